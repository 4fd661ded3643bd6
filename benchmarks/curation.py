"""How well `data curate` finds what was spoiled on purpose: renders footage, curates it with the thresholds as they are, and compares with
the truth. Prints a table with a line for each filter.

    python benchmarks/curation.py --out runs/curation

Interrupted, it goes on when given again; the films and all that was measured stay in OUT.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import curation_footage as footage
from curation_footage import CAMERAS, Film, Shot

from hunyuan_video.curation import command, tiers
from hunyuan_video.curation.workers import Processes

EXACT = 2  # frames by which the end of a shot may be missed
# What each spoiled kind must be removed for.
EXPECTED = {
    "blurred": {"blurred"},
    "dark": {"dark", "flat"},  # in the dark there is little contrast
    "overexposed": {"overexposed"},
    "flat": {"flat"},
    "blocky": {"blocky"},
    "still": {"static", "static (motion vectors)"},
    "frozen": {"frozen"},
    "full_of_text": {"much text", "overlays"},
    "with_watermark": {"overlays", "much text", "text"},
}
# What must be cropped away, and by which side of the picture.
CROPPED = ("letterboxed", "subtitled", "with_logo")


def films() -> Iterator[Film]:
    """Everything, each shot of another scene, and of each kind ten."""
    seeds = iter(range(1, 1000))

    def shots(*kinds: Any, **more: Any) -> list[Shot]:
        return [Shot(next(seeds), CAMERAS[number % 6], kind, **more) for number, kind in enumerate(kinds)]

    cuts = [Shot(next(seeds), camera) for camera in CAMERAS]
    joins = [Shot(next(seeds), CAMERAS[number % 6], None, 112, way) for number, way in enumerate(("cut", *("dissolve", "fade") * 10))]
    f, joined = footage, footage.joined
    yield joined("cuts.mp4", cuts)
    yield footage.copied(joined("cuts.mp4", cuts), "copies.mp4")
    yield joined("joins.mp4", joins)
    yield joined("pictures.mp4", shots(*[f.blurred, f.dark, f.overexposed, f.flat, f.blocky] * 10))
    yield joined("movement.mp4", shots(*[f.still, f.frozen, f.soft_start] * 10))
    yield joined("titles.mp4", shots(*[f.subtitled, f.full_of_text] * 10))
    yield joined("logo.mp4", [replace(shot, camera=CAMERAS[-1 - number % 8]) for number, shot in enumerate(shots(*[f.with_logo] * 10))])
    for name in ("marks.mp4", "more_marks.mp4"):
        yield joined(name, shots(*[f.with_watermark, None, f.with_logo, None] * 5))
    yield joined("bars.mp4", shots(*[f.letterboxed] * 10))


@dataclass(frozen=True)
class Clip:
    """What was found, and what it is."""

    row: dict[str, Any]
    film: Film
    shot: Shot
    span: tuple[int, int]

    @property
    def reason(self) -> str | None:
        """Why the lowest tier does not take it, but for words."""
        reason = next(iter(self.row["removed"].values()))
        return None if reason == "no caption" else reason


def clips(rows: Iterable[dict[str, Any]], films: Sequence[Film]) -> list[Clip]:
    by_name, found = {f"films/{film.name}": film for film in films}, list[Clip]()
    for row in rows:
        film = by_name[row["file"]]
        middle = row["start"] + row["num_frames"] // 2
        number = next(number for number, (_, stop) in enumerate(film.spans) if middle < stop or stop == film.spans[-1][1])
        found.append(Clip(row, film, film.shots[number], film.spans[number]))
    return found


def rates(right: int, found: int, true: int) -> str:
    return f"{right} of {found} | {100 * right / max(found, 1):.0f} % | {right} of {true} | {100 * right / max(true, 1):.0f} %"


def of_shots(files: Iterable[dict[str, Any]], films: Sequence[Film]) -> list[str]:
    """A boundary is right if both ends of the transition are, within EXACT frames."""
    lines = list[str]()
    for joined, title in (("cut", "cuts"), ("dissolve", "dissolves"), ("fade", "fades through black")):
        right = found = true = 0
        for file, film in zip(files, films, strict=True):
            ends = [(one[1], other[0]) for one, other in zip(film.spans, film.spans[1:], strict=False)]
            kinds = [shot.joined for shot in film.shots[1:]]
            seen = [(one[1], other[0]) for one, other in zip(file["shots"], file["shots"][1:], strict=False)]
            near = [min(range(len(ends)), key=lambda k, s=s: abs(ends[k][0] - s[0])) if ends else None for s in seen]
            true += kinds.count(joined)
            for boundary, k in zip(seen, near, strict=True):
                if k is not None and kinds[k] == joined:
                    found += 1
                    right += max(abs(boundary[0] - ends[k][0]), abs(boundary[1] - ends[k][1])) <= EXACT
        lines.append(f"| {title} | {rates(right, found, true)} |")
    return lines


def of_clips(found: Sequence[Clip]) -> list[str]:
    lines = list[str]()
    copies = {clip.row["id"] for clip in found if clip.film.name == "copies.mp4"}
    removed = {clip.row["id"] for clip in found if clip.reason == "duplicate"}
    lines.append(f"| duplicates | {rates(len(copies & removed), len(removed), len(copies))} |")
    for kind, reasons in EXPECTED.items():
        true = {clip.row["id"] for clip in found if clip.shot.kind == kind and clip.row["id"] not in copies}
        said = {clip.row["id"] for clip in found if clip.reason in reasons and clip.shot.kind not in _alike(kind)}
        lines.append(f"| {kind.replace('_', ' ')} | {rates(len(true & said), len(said), len(true))} |")
    left = [clip for clip in found if clip.row["id"] not in copies]
    for kind in CROPPED:
        true = [clip for clip in left if clip.shot.kind == kind]
        cropped = [clip for clip in left if clip.reason is None and clip.row["scores"]["kept"] < 1 and _cropped_as(clip) == kind]
        right = [clip for clip in true if clip.reason is None and is_clean(clip)]
        lines.append(f"| {kind.replace('_', ' ')}: cropped away | {rates(len(right), len(cropped), len(true))} |")
    return lines


def _alike(kind: str) -> set[str]:
    """Other kinds that fall for the same reason, and so are not found wrongly."""
    return {other for other, reasons in EXPECTED.items() if other != kind and reasons & EXPECTED[kind]}


def _cropped_as(clip: Clip) -> str:
    """The kind that it is, or, of one that should have stayed whole, the one that it was taken for: all of them."""
    return clip.shot.kind if clip.shot.kind in CROPPED else CROPPED[-1]


def is_clean(clip: Clip) -> bool:
    """Nothing of what lay over the picture is left in the crop, and more than 60 % of it."""
    left, top, right, bottom = clip.row["scores"]["crop"]
    height, width = footage.HEIGHT, footage.WIDTH
    bar, side = footage.bar_of(height) / height, (height // 8) / height
    slack = 2 / height
    if clip.shot.kind == "letterboxed":
        return top >= bar - slack and bottom <= 1 - bar + slack and bottom - top > 0.75
    if clip.shot.kind == "subtitled":
        return bottom <= 0.93 - 0.5 * 22 / 450 and (right - left) * (bottom - top) >= 0.6
    corner = 1 - (2 * side + side / 3) * height / width
    return right <= corner + slack or top >= side / 3 + side - slack


def of_cameras(found: Sequence[Clip]) -> str:
    seen = [clip for clip in found if "camera" in clip.row["scores"]]
    right = sum(_way(clip.row["scores"]["camera"]) == _way(clip.shot.camera) for clip in seen)
    return f"Of {len(seen)} clips that were kept or cropped, {right} have the direction that the camera took."


def _way(camera: str) -> str:
    """A move along and a turn shift a flat scene alike."""
    return camera.replace("tilt-", "").replace("pan-", "").replace("around-", "")


def starts(found: Sequence[Clip]) -> str:
    soft = [clip for clip in found if clip.shot.kind == "soft_start"]
    sharp = sum(clip.row["start"] >= clip.span[0] + footage.SOFT for clip in soft)
    return f"Of {len(soft)} shots that are out of focus for {footage.SOFT} frames, {sharp} clips start after them."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/curation"), help="folder for films and clips")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    given = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    (given.out / "films").mkdir(parents=True, exist_ok=True)
    made = list[Film]()
    for film in films():
        if not (given.out / "films" / film.name).exists():
            footage.saved(film, given.out / "films", crf=30 if film.name == "copies.mp4" else 18)
        made.append(replace(film, frames=film.frames[:0]))  # gigabytes, all of them
    with Processes(given.workers) as workers:
        report = command.curate(command.Curation((given.out / "films",), tiers.read()), given.out / "curated", workers)
    print("\n".join(tables(made, given.out / "curated")))
    print(f"\n{report.partition('| file |')[0]}\nOn {os.cpu_count()} cores of {platform.machine()}.")


def tables(made: Sequence[Film], out: Path) -> list[str]:
    """Of a folder that was curated."""
    rows = [json.loads(line) for line in (out / "clips.jsonl").read_text(encoding="utf-8").splitlines()]
    contents = {footage.name: footage.content for footage in command.find([out.parent / "films"])}
    ledger = command.Ledger(out / "ledger" / "files.jsonl")
    found = clips(rows, made)
    head = ["| what | found rightly | precision | of the true ones | recall |", "|---|---:|---:|---:|---:|"]
    body = of_shots([ledger[contents[f"films/{film.name}"]] for film in made], made) + of_clips(found)
    return [*head, *body, "", starts(found), of_cameras(found)]


if __name__ == "__main__":
    main()
