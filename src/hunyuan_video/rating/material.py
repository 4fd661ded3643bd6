"""What raters see: every clip encoded anew, all alike in size, rate, length and in what their files say, which is nothing."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hunyuan_video.clips import FPS, look, on_grid, pictures
from hunyuan_video.config import Limits, require
from hunyuan_video.evaluation.study import Study
from hunyuan_video.files import replacing, sha256
from hunyuan_video.pictures import fill, reading
from hunyuan_video.rating.design import SPOILED
from hunyuan_video.recording import Frames, Recording

log = logging.getLogger(__name__)

MOSAIC = 16  # squares on the shorter side of a spoiled clip
MOST = Limits().max_frames


@dataclass(frozen=True)
class Source:
    """A clip as its system made it."""

    path: Path
    num_frames: int
    height: int
    width: int
    sha256: str


@dataclass(frozen=True)
class Material:
    """Clips for raters, in a folder, where they are when they are `encoded`; and what they are made of, in hexadecimal. All have the size
    of the smallest and the length of the shortest; of larger ones the middle is shown."""

    folder: Path
    sources: Mapping[tuple[str, str], Source]
    """by prompt and system"""
    digest: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height and width."""
        each = self.sources.values()
        height, width = (min(getattr(source, side) for source in each) // 2 * 2 for side in ("height", "width"))
        return min(source.num_frames for source in each), height, width

    def path(self, prompt: str, system: str) -> Path:
        return self.folder / ("spoiled" if system == SPOILED else f"of/{system}") / f"{prompt}.mp4"

    def encode(self, plants: Mapping[str, str]) -> None:
        """What has not been yet. `plants` are prompts that get a spoiled clip, each with the one whose clip is spoiled.

        Raises:
            ValueError: a clip cannot be read.
        """
        lacking = [key for key in [*self.sources, *((prompt, SPOILED) for prompt in plants)] if not self.path(*key).exists()]
        if not lacking:
            return
        log.info("Encoding %d clips for raters …", len(lacking))
        if len(shapes := {(source.num_frames, source.height, source.width) for source in self.sources.values()}) > 1:
            num_frames, height, width = self.shape
            log.warning(
                "The clips have %d different sizes and lengths; all are shown at %dx%d with %d frames.",
                len(shapes),
                width,
                height,
                num_frames,
            )
        systems = list(dict.fromkeys(system for _, system in self.sources))
        # By the place among all plants, so that whoever goes on after an interruption makes the same clips.
        spoiled_of = {prompt: (other, systems[place % len(systems)]) for place, (prompt, other) in enumerate(plants.items())}
        for prompt, system in lacking:
            spoiled = system == SPOILED
            frames = _frames(self.sources[spoiled_of[prompt] if spoiled else (prompt, system)].path, self.shape)
            _encode(spoil(frames) if spoiled else frames, self.path(prompt, system))


def material_of(study: Study) -> Material:
    """What raters will see of a study.

    Raises:
        ValueError: a clip is missing, or cannot be read.
    """
    for system in study.systems:
        missing = len(study.missing(system.name))
        require(
            missing == 0,
            f"{system.name} has no clip of {missing} of {len(study.prompts)} prompts; `evaluate run` makes them, or --leave-out-missing "
            "does without these prompts.",
        )
    keys = [(prompt.id, system.name) for prompt in study.prompts for system in study.systems]
    sources = {(prompt, system): _look(study.clip(system, prompt)) for prompt, system in keys}
    digest = hashlib.sha256(json.dumps([[*key, source.sha256] for key, source in sources.items()]).encode()).hexdigest()
    return Material(study.folder / "rating" / digest[:16], sources, digest)


def _look(path: Path) -> Source:
    with reading(path):
        times, height, width = look(path, MOST / FPS, FPS)
    return Source(path, len(on_grid(times, FPS, MOST)), height, width, sha256(path))


def _frames(path: Path, shape: tuple[int, int, int]) -> Frames:
    num_frames, height, width = shape
    with reading(path):
        times, *_ = look(path, num_frames / FPS, FPS)
        return np.stack([fill(picture, height, width) for picture in pictures(path, on_grid(times, FPS, num_frames))])


def _encode(frames: Frames, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with Recording(path.suffix, fps=FPS) as recording, replacing(path) as (temporary, _):
        recording.add(frames)
        recording.write(temporary, None)


def spoil(frames: Frames) -> Frames:
    """A clip that nobody can take for a good one: large squares, in a wrong order."""
    side = -(-min(frames.shape[1:3]) // MOSAIC)
    coarse = frames[:, side // 2 :: side, side // 2 :: side].repeat(side, axis=1).repeat(side, axis=2)
    padded = np.pad(coarse, ((0, 0), (0, side), (0, side), (0, 0)), mode="edge")[:, : frames.shape[1], : frames.shape[2]]
    return padded[np.random.default_rng(len(frames)).permutation(len(frames))]
