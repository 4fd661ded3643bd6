"""Judges what a pipeline makes of the miniature's prompts, and of beginnings, and says which goals are reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hunyuan_video.clips import read_clip
from hunyuan_video.config import Runtime
from hunyuan_video.miniature import evaluation, goals
from hunyuan_video.miniature.beginnings import Asked
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.request import Clip, Keyframe, Picture
from hunyuan_video.weights import Weights


def evaluate(
    found: Weights,
    runtime: Runtime,
    folder: Path,
    num_clips: int,
    seed: int,
    before: Path | None = None,
    footage: Sequence[Path] = (),
) -> str:
    """Write tables, numbers and contact sheet into `folder`; returns the tables. `before` is the evaluation.json of other weights, whose
    numbers are to be kept; `footage` are videos that the VAE is to show. Raises what `evaluation.main` does, and a ValueError for files
    that are no such thing."""
    earlier = None if before is None else goals.read(before)
    pipe = HunyuanVideo.load(found, runtime)
    size = (pipe.defaults.num_frames, pipe.defaults.height, pipe.defaults.width)
    real = {path.stem: read_clip(path, size[0], size=size[1:]).pixels for path in footage}

    def generate(prompt: str, seed: int) -> evaluation.Frames:
        return pipe(prompt, replace(pipe.defaults, seed=seed)).frames

    def begin(asked: Asked) -> evaluation.Frames:
        return pipe(asked.prompt, replace(pipe.defaults, seed=asked.seed), keyframes=keyframes(asked)).frames

    begins = begin if found.image_to_video else None
    return evaluation.main(generate, pipe.reconstruct, size, folder, num_clips, seed, begins, real, earlier)


def keyframes(asked: Asked) -> tuple[Keyframe, ...]:
    """What a request is given of the frames that are known."""
    first = Picture(asked.first[0]) if len(asked.first) == 1 else Clip(asked.first)
    return (Keyframe(0, first), *(() if asked.last is None else (Keyframe(-1, Picture(asked.last)),)))
