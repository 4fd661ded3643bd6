"""What raters see: every clip encoded anew, all alike in size, rate, length and in what their files say, which is nothing."""

from __future__ import annotations

import hashlib
import json
import logging
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
class Material:
    """Clips for raters, in a folder; their shape; and what they were made of, in hexadecimal."""

    folder: Path
    num_frames: int
    height: int
    width: int
    digest: str

    def path(self, prompt: str, system: str) -> Path:
        return self.folder / ("spoiled" if system == SPOILED else f"of/{system}") / f"{prompt}.mp4"


@dataclass(frozen=True)
class _Source:
    path: Path
    num_frames: int
    height: int
    width: int
    sha256: str


def prepare(study: Study, plants: dict[str, str]) -> Material:
    """Encode what has not been yet. `plants` are prompts that get a spoiled clip, each with the one whose clip is spoiled. All have the
    size of the smallest and the length of the shortest clip; of larger ones the middle is shown.

    Raises:
        ValueError: a clip is missing, or cannot be read.
    """
    for system in study.systems:
        missing = len(study.missing(system.name))
        require(missing == 0, f"{system.name} has no clip of {missing} of {len(study.prompts)} prompts; `evaluate run` makes them.")
    keys = [(prompt.id, system.name) for prompt in study.prompts for system in study.systems]
    sources = {(prompt, system): _look(study.clip(system, prompt)) for prompt, system in keys}
    digest = hashlib.sha256(json.dumps([[*key, source.sha256] for key, source in sources.items()]).encode()).hexdigest()
    each = sources.values()
    height, width = (min(getattr(source, side) for source in each) // 2 * 2 for side in ("height", "width"))
    num_frames = min(source.num_frames for source in each)
    if len(shapes := {(source.num_frames, source.height, source.width) for source in each}) > 1:
        log.warning(
            "The clips have %d different sizes and lengths; all are shown at %dx%d with %d frames.", len(shapes), width, height, num_frames
        )
    material = Material(study.folder / "rating" / digest[:16], num_frames, height, width, digest)
    systems = [system.name for system in study.systems]
    wanted = [*sources, *((prompt, SPOILED) for prompt in plants)]
    lacking = [key for key in wanted if not material.path(*key).exists()]
    if lacking:
        log.info("Encoding %d clips for raters …", len(lacking))
    # By the place among all plants, so that whoever goes on after an interruption makes the same clips.
    spoiled_of = {prompt: sources[other, systems[place % len(systems)]] for place, (prompt, other) in enumerate(plants.items())}
    for prompt, system in lacking:
        spoiled = system == SPOILED
        source = spoiled_of[prompt] if spoiled else sources[prompt, system]
        frames = _frames(source.path, material)
        _encode(spoil(frames) if spoiled else frames, material.path(prompt, system))
    return material


def _look(path: Path) -> _Source:
    with reading(path):
        times, height, width = look(path, MOST / FPS, FPS)
    return _Source(path, min(MOST, len(on_grid(times, FPS))), height, width, sha256(path))


def _frames(path: Path, material: Material) -> Frames:
    with reading(path):
        times, *_ = look(path, material.num_frames / FPS, FPS)
        shown = on_grid(times, FPS)[: material.num_frames]
        return np.stack([fill(picture, material.height, material.width) for picture in pictures(path, shown)])


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
