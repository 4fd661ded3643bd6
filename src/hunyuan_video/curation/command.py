"""From footage to lists of clips for `data prepare`: the stages in their order, each for all clips before the next one.

OUT/
  config.json          what was asked for and what measured, which stays the same in a folder
  ledger/              what is known of files and clips, line by line
  clips/ID.mp4         the clips that any tier takes
  256p.jsonl …         a list for each tier: {"file": "clips/ID.mp4", "caption": …}
  clips.jsonl          every clip: where it is from, its scores, and why each tier did not take it
  report.md pictures/  the funnel
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from hunyuan_video.clips import FPS
from hunyuan_video.config import require
from hunyuan_video.curation import balance, captions, duplicates, fingerprints, funnel, tiers
from hunyuan_video.curation.crop import Box
from hunyuan_video.curation.cutting import Cutting, cut
from hunyuan_video.curation.extras import tools
from hunyuan_video.curation.footage import Footage, Part, find
from hunyuan_video.curation.ledger import Ledger, Record, rounded, to_line
from hunyuan_video.curation.looking import Looking, look
from hunyuan_video.curation.measures import MEASURES, Measuring, check_packages, is_finished, measure
from hunyuan_video.curation.networks import Networks
from hunyuan_video.curation.workers import Workers
from hunyuan_video.files import replacing
from hunyuan_video.rewriting.remote import Remote

log = logging.getLogger(__name__)
NAME_DIGITS = 12  # of a file's content, in the names of its clips


@dataclass(frozen=True)
class Clip:
    """A part of a shot."""

    footage: Footage
    part: Part

    @property
    def id(self) -> str:
        return f"{self.footage.content[:NAME_DIGITS]}-{self.part.start:06d}-{self.part.num_frames}"


@dataclass(frozen=True)
class Curation:
    """What to do with which footage."""

    sources: Sequence[Path]
    thresholds: tiers.Thresholds
    networks: Networks = field(default_factory=Networks)
    describer: Remote | None = None


def curate(config: Curation, out: Path, workers: Workers) -> str:
    """Do what is still to be done, and return the report.

    Raises:
        ValueError: the folder was made with other settings; or what `find`, the networks and the describer raise.
        BlockingIOError: somebody else works there.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", thread_local=False).acquire(timeout=0):
            return _Curating(config, out, workers).run()
    except Timeout as error:
        raise BlockingIOError(f"Another curation works in {out}; wait for its end, or choose another folder.") from error


class _Curating:
    def __init__(self, config: Curation, out: Path, workers: Workers):
        self.config, self.out, self.workers = config, out, workers
        self.thresholds, self.tools = config.thresholds, tools()
        require(
            "aesthetic" not in self.thresholds.measured or config.networks.aesthetic is not None,
            "A tier limits `aesthetic`, which only a network of yours can judge; give --embedder and --aesthetic.",
        )
        check_packages(self.thresholds)
        self._check_config()
        self.footage = find(config.sources)
        self.files, self.prints, self.scores, self.cuts, self.captions = (
            Ledger(out / "ledger" / f"{name}.jsonl") for name in ("files", "fingerprints", "scores", "cuts", "captions")
        )

    def run(self) -> str:
        todo = [footage for footage in self.footage if footage.content not in self.files]
        jobs = [Looking(footage, self.thresholds.transitions, self.thresholds.lengths) for footage in todo]
        self._keep(self.files, "watching", look, jobs, len(self.footage))
        clips = [
            Clip(footage, Part(footage.path, start, num_frames))
            for footage in self.footage
            for start, num_frames in self.files[footage.content].get("clips", ())
        ]
        if all("problem" in self.files[footage.content] for footage in self.footage):
            self._write((), {})
            raise ValueError(f"No file of {len(self.footage)} can be used; {self.out / 'report.md'} says why.")
        removed = self._repeated(clips)
        left = [clip for clip in clips if clip.id not in removed]
        removed |= self._too_common(left)
        left = [clip for clip in left if clip.id not in removed]
        self._measure(left)
        taken = [clip for clip in left if self.thresholds.refuse(self.scores[clip.id]["scores"]) is None]
        self._cut(taken)
        self._describe(taken)
        return self._write(clips, removed)

    def _check_config(self) -> None:
        """What was measured is only comparable if it was measured so."""
        path = self.out / "config.json"
        lengths, transitions = asdict(self.thresholds.lengths), asdict(self.thresholds.transitions)
        asked = {"lengths": lengths, "transitions": transitions, "networks": self.config.networks.identity}
        asked |= {"measures": MEASURES, "tools": self.tools}
        if path.exists() and (old := json.loads(path.read_text(encoding="utf-8"))) != asked:
            changed = ", ".join(name for name in asked if asked[name] != old.get(name))
            raise ValueError(f"{self.out} was made with other {changed} (its config.json has them); use these, or another folder.")
        with replacing(path) as (temporary, _):
            temporary.write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")

    def _keep(self, ledger: Ledger, doing: str, work: Callable[[Any], Record], jobs: Sequence[Any], total: int) -> None:
        """The work of jobs, of `total` with those that were done before."""
        log.info("%s: %d to do of %d", doing, len(jobs), total)
        found: Iterable[Record] = self.workers.map(work, jobs)
        for _ in tqdm(ledger.keep(found), desc=doing, total=total, initial=total - len(jobs), disable=None):
            pass

    def _repeated(self, clips: Sequence[Clip]) -> dict[str, dict[str, str]]:
        """Those that are duplicates, and of what: of the largest, then the longest, then the first."""
        jobs = [_Printing(clip.id, clip.part, self.config.networks.embedder) for clip in clips if clip.id not in self.prints]
        self._keep(self.prints, "fingerprints", _print, jobs, len(clips))

        def preference(clip: Clip) -> tuple[int, int]:
            file = self.files[clip.footage.content]
            return -file["height"] * file["width"], -clip.part.num_frames

        ordered = sorted(clips, key=preference)
        found = [fingerprints.from_json(self.prints[clip.id]) for clip in ordered]
        first = duplicates.originals(found, self.thresholds.alike)
        return {
            clip.id: {"reason": funnel.REPEATED, "of": ordered[original].id}
            for number, (clip, original) in enumerate(zip(ordered, first, strict=True))
            if original != number
        }

    def _too_common(self, clips: Sequence[Clip]) -> dict[str, dict[str, str]]:
        vectors = np.stack([fingerprints.from_json(self.prints[clip.id]).vector for clip in clips]) if clips else np.empty((0, 1))
        found = balance.concepts(vectors, self.thresholds.concepts)
        keep = balance.kept(found, [sha256(clip.id.encode()).hexdigest() for clip in clips], self.thresholds.concepts)
        return {clip.id: {"reason": funnel.COMMON} for clip, kept in zip(clips, keep, strict=True) if not kept}

    def _measure(self, clips: Sequence[Clip]) -> None:
        jobs = list[Measuring]()
        for clip in clips:
            known = self.scores.records.get(clip.id, {"scores": {}, "done": []})
            if not is_finished(known["scores"], known["done"], self.thresholds):
                logos = tuple(Box(*box) for box in self.files[clip.footage.content]["logos"])
                jobs.append(
                    Measuring(clip.id, clip.part, logos, known["scores"], tuple(known["done"]), self.thresholds, self.config.networks)
                )
        self._keep(self.scores, "measuring", measure, jobs, len(clips))

    def _cut(self, clips: Sequence[Clip]) -> None:
        (self.out / "clips").mkdir(exist_ok=True)
        jobs = [
            Cutting(clip.id, clip.part, Box(*self.scores[clip.id]["scores"]["crop"]), self._path(clip))
            for clip in clips
            if not self._is_cut(clip)
        ]
        self._keep(self.cuts, "cutting", cut, jobs, len(clips))

    def _is_cut(self, clip: Clip) -> bool:
        """As it is to be: another threshold may crop it otherwise."""
        known, crop = self.cuts.records.get(clip.id, {}), self.scores[clip.id]["scores"]["crop"]
        return known.get("crop") == crop and self._path(clip).exists()

    def _path(self, clip: Clip) -> Path:
        return self.out / "clips" / f"{clip.id}.mp4"

    def _describe(self, clips: Sequence[Clip]) -> None:
        if (model := self.config.describer) is None:
            return
        todo = [clip for clip in clips if not self._is_described(clip, model) and self._given(clip) is None]
        jobs = [captions.Asking(clip.id, self._path(clip), clip.part.num_frames) for clip in todo]
        found = self.captions.keep(captions.describe(jobs, model))
        for _ in tqdm(found, desc="captions", total=len(clips), initial=len(clips) - len(jobs), disable=None):
            pass

    def _is_described(self, clip: Clip, model: Remote) -> bool:
        """Or this model has been tried."""
        known = self.captions.records.get(clip.id)
        return known is not None and ("caption" in known or known["by"] == model.name)

    def _given(self, clip: Clip) -> captions.Caption | None:
        return captions.beside(self._path(clip), clip.footage.path, *clip.footage.same)

    def _caption(self, clip: Clip, scores: tiers.Scores) -> captions.Caption | None:
        found = self._given(clip)
        if found is None and clip.id in self.captions:
            found = self.captions[clip.id].get("caption")
        return None if found is None else captions.with_camera(found, scores["camera"], scores["camera_confidence"])

    def _write(self, clips: Sequence[Clip], removed: dict[str, dict[str, str]]) -> str:
        rows = [self._row(clip, removed.get(clip.id)) for clip in clips]
        names = [tier.name for tier in self.thresholds.tiers]
        _write_lines(self.out / "clips.jsonl", rows)
        for name in names:
            taken = (row for row in rows if row["removed"][name] is None)
            _write_lines(self.out / f"{name}.jsonl", ({"file": f"clips/{row['id']}.mp4", "caption": row["caption"]} for row in taken))
        files = [{"name": footage.name, "same": len(footage.same)} | self.files[footage.content] for footage in self.footage]
        least = self.thresholds.lengths.least
        num_short = sum(stop - start < least for file in files for start, stop in file.get("shots", ()))
        paths = {footage.name: footage.path for footage in self.footage}
        text = funnel.report(rows, files, names, num_short, self.out, paths)
        with replacing(self.out / "report.md") as (temporary, _):
            temporary.write_text(text, encoding="utf-8")
        return text

    def _row(self, clip: Clip, removed: dict[str, str] | None) -> Record:
        file, part = self.files[clip.footage.content], clip.part
        scores = self.scores[clip.id]["scores"] if removed is None else {}
        caption = self._caption(clip, scores) if "camera" in scores else None
        row: Record = {
            "id": clip.id,
            "file": clip.footage.name,
            "sha256": file["sha256"],
            "start": part.start,
            "num_frames": part.num_frames,
        }
        row["seconds"] = [part.start / FPS, (part.start + part.num_frames) / FPS]
        row["removed"] = {tier.name: self._reason(tier, scores, removed, caption) for tier in self.thresholds.tiers}
        row |= {} if removed is None or "of" not in removed else {"duplicate_of": removed["of"]}
        row |= {"scores": scores, "caption": caption}
        if "crop" in scores and self._is_cut(clip):
            row["clip"] = {name: value for name, value in self.cuts[clip.id].items() if name != "id"}
        return rounded(row | {"tools": self.tools})

    def _reason(self, tier: tiers.Tier, scores: tiers.Scores, removed: Any, caption: Any) -> str | None:
        if removed is not None:
            return removed["reason"]
        return tier.refuses(scores) or (None if caption else funnel.SPEECHLESS)


@dataclass(frozen=True)
class _Printing:
    id: str
    part: Part
    embedder: Path | None


def _print(job: _Printing) -> Record:
    return {"id": job.id} | fingerprints.to_json(fingerprints.fingerprint(job.part, job.embedder))


def _write_lines(path: Path, rows: Iterable[Record] | Iterator[Record]) -> None:
    with replacing(path) as (temporary, _):
        temporary.write_bytes(b"".join(map(to_line, rows)))
