"""Judges what a pipeline makes of the miniature's prompts, and of beginnings, and says which goals are reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hunyuan_video.beginning import Beginning
from hunyuan_video.config import Runtime, require
from hunyuan_video.miniature import evaluation, goals
from hunyuan_video.miniature.beginnings import Asked
from hunyuan_video.pictures import fill
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.video import open_container, rgb, video_stream
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
    real = {path.stem: first_frames(path, *size) for path in footage}

    def generate(prompt: str, seed: int) -> evaluation.Frames:
        return pipe(prompt, replace(pipe.defaults, seed=seed)).frames

    def begin(asked: Asked) -> evaluation.Frames:
        *_, last = pipe.steps(asked.prompt, replace(pipe.defaults, seed=asked.seed), given=given_to(pipe, asked))
        assert last.frames is not None
        return last.frames

    begins = begin if found.image_to_video else None
    return evaluation.main(generate, pipe.reconstruct, size, folder, num_clips, seed, begins, real, earlier)


def first_frames(path: Path, num_frames: int, height: int, width: int) -> evaluation.Frames:
    """The middle of a video's first frames in this size."""
    with open_container(path) as container:
        frames = islice(container.decode(video_stream(container)), num_frames)
        clip = [fill(Image.fromarray(rgb(frame)), height, width) for frame in frames]
    require(len(clip) == num_frames, f"{path} has {len(clip)} frames; {num_frames} are needed.")
    return np.stack(clip)


def given_to(pipe: HunyuanVideo, asked: Asked) -> Beginning:
    """Latents of the frames that are known. A last picture stands still for the frames of its latent."""
    first = pipe.encode(asked.first)
    frames, latents = [*range(first.shape[2])], [first]
    if asked.last is not None:
        frames.append(pipe.vae.config.latent_shape(pipe.defaults.num_frames, *asked.last.shape[:2])[2] - 1)
        latents.append(pipe.encode(np.repeat(asked.last[None], 5, axis=0))[:, :, -1:])
    return Beginning.of(torch.cat(latents, dim=2), pipe.transformer.config, frames)
