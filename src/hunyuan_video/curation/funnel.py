"""The report: how many clips each stage removed, for each tier, why, and what some of them look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from hunyuan_video import markdown
from hunyuan_video.curation.crop import WHOLE, Box
from hunyuan_video.curation.footage import shown, upright
from hunyuan_video.curation.tiers import REASONS
from hunyuan_video.files import replacing, words_of

Row = Mapping[str, Any]
ACROSS, DOWN = 4, 3  # pictures of a sheet
THUMBNAIL = (192, 108)
PICTURES = "pictures"
REPEATED, COMMON, SPEECHLESS = "duplicate", "concept too common", "no caption"
EARLY = (REPEATED, COMMON)


def funnel(rows: Sequence[Row], tiers: Sequence[str]) -> str:
    """A Markdown table: one column for each tier, one line for each reason in the order of the stages, and how many are left."""
    reasons = [*EARLY, *(reason for pair in REASONS.values() for reason in pair), SPEECHLESS]
    counts = {tier: Counter(row["removed"].get(tier) for row in rows) for tier in tiers}
    met = [reason for reason in reasons if any(counts[tier][reason] for tier in tiers)]
    lines = [("clips", [len(rows)] * len(tiers)), *((f"− {reason}", [counts[tier][reason] for tier in tiers]) for reason in met)]
    lines.append(("**kept**", [counts[tier][None] for tier in tiers]))
    return markdown.table(["", *tiers], ([name, *(f"{number:,}" for number in numbers)] for name, numbers in lines))


def report(rows: Sequence[Row], files: Sequence[Row], tiers: Sequence[str], num_short: int, folder: Path, paths: Mapping[str, Path]) -> str:
    """Markdown; also writes the sheets that it shows into `folder`. `paths` are the footage's, by name."""
    seconds = sum(file.get("seconds", 0.0) for file in files)
    shots = sum(len(file.get("shots", ())) for file in files)
    lines = ["# What became of the footage", ""]
    lines.append(
        f"{_many(len(files), 'file')}, {seconds / 60:.1f} minutes, {_many(shots, 'shot')}, of which {num_short:,} are too short for a clip."
    )
    lines += ["", funnel(rows, tiers), ""]
    clips, kept = Counter(row["file"] for row in rows), Counter(row["file"] for row in rows if None in row["removed"].values())
    each = []
    for file in files:
        name = file["name"]
        problem = f" ({file['problem']})" if "problem" in file else ""
        copies = f", and {_many(file['same'], 'copy', 'copies')} of it" if file.get("same") else ""
        each.append([name + copies + problem, f"{file.get('seconds', 0):.1f}", len(file.get("shots", ())), clips[name], kept[name]])
    lines.append(markdown.table(["file", "seconds", "shots", "clips", "kept"], each))
    groups = [(f"Kept for {tier}", [row for row in rows if row["removed"][tier] is None]) for tier in tiers]
    by_reason = dict[str, list[Row]]()
    for row in rows:
        if (reason := row["removed"][tiers[0]]) is not None:
            by_reason.setdefault(reason, []).append(row)
    groups += [(f"Removed: {reason}", found) for reason, found in by_reason.items()]
    for title, found in groups:
        if found:
            name = f"{PICTURES}/{words_of(title, 60)}.jpg"
            _save(sheet([_first_frame(row, paths) for row in found[: ACROSS * DOWN]]), folder / name)
            some = f", {ACROSS * DOWN} of {len(found)}" if len(found) > ACROSS * DOWN else ""
            names = ", ".join(f"`{row['id']}`" for row in found[: ACROSS * DOWN])
            lines += ["", f"## {title}{some}", "", f"![{title}]({name})", "", names]
    return "\n".join(lines) + "\n"


def _many(count: int, what: str, several: str = "") -> str:
    return f"{count:,} {what if count == 1 else several or f'{what}s'}"


def _first_frame(row: Row, paths: Mapping[str, Path]) -> Image.Image:
    """As it is in the clip, or of one that is removed as it is in the footage."""
    picture = upright(next(shown(paths[row["file"]], row["start"], row["start"] + 1)))
    box = Box(*row["scores"]["crop"]) if None in row["removed"].values() else WHOLE
    top, left, height, width = box.pixels(*picture.shape[:2])
    return Image.fromarray(picture[top : top + height, left : left + width])


def sheet(pictures: Sequence[Image.Image]) -> UInt8[np.ndarray, "h w 3"]:
    """Pictures beside and below one another, whole, on grey."""
    width, height = THUMBNAIL
    rows = -(-len(pictures) // ACROSS)
    whole = Image.new("RGB", (min(ACROSS, len(pictures)) * width, rows * height), "grey")
    for number, picture in enumerate(pictures):
        picture.thumbnail(THUMBNAIL)
        place = (number % ACROSS * width, number // ACROSS * height)
        whole.paste(picture, (place[0] + (width - picture.width) // 2, place[1] + (height - picture.height) // 2))
    return np.asarray(whole)


def _save(picture: UInt8[np.ndarray, "h w 3"], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as (temporary, _):
        Image.fromarray(picture).save(temporary, "JPEG", quality=85)
