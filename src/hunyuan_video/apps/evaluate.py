"""Judges what a pipeline makes of the miniature's prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hunyuan_video.config import Runtime
from hunyuan_video.miniature import evaluation
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.weights import Weights


def evaluate(found: Weights, runtime: Runtime, folder: Path, num_clips: int, seed: int) -> str:
    """Write table, numbers and contact sheet into `folder`; returns the table. Raises what `evaluation.main` does."""
    pipe = HunyuanVideo.load(found, runtime)
    size = (pipe.defaults.num_frames, pipe.defaults.height, pipe.defaults.width)

    def generate(prompt: str, seed: int) -> evaluation.Frames:
        return pipe(prompt, replace(pipe.defaults, seed=seed)).frames

    return evaluation.main(generate, pipe.reconstruct, size, folder, num_clips, seed)
