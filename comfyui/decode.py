"""Nodes between latents and frames."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io  # pyright: ignore[reportMissingImports]
from torch import Tensor

from hunyuan_video.clips import FPS
from hunyuan_video.config import require

from . import host
from .pipelines import Model, ModelType, as_usual, loaded, pipeline
from .values import Record, RecordType, frames_of, from_latent, images_of, to_latent


@as_usual
def decoded(model: Model, record: Record) -> tuple[np.ndarray, Record]:
    """The frames of a record, and the record of these. ComfyUI hears of each row of tiles, and may cancel between them."""
    pipe, bar = pipeline(model), host.ProgressBar(1)
    made = replace(record.made, runtime=replace(record.made.runtime, vae_tiling=pipe.runtime.vae_tiling))
    with closing(pipe.decoding(record.latents, made)) as steps:  # pyright: ignore[reportArgumentType] (a generator)
        for step in steps:
            host.raise_if_cancelled()
            bar.update_absolute(step.step, step.total)
            if step.frames is not None:
                return step.frames, Record(step.provenance, record.latents)
    raise AssertionError("The last piece brings all frames.")


def outputs() -> list[io.Image.Output]:
    return [
        io.Image.Output(display_name="images"),
        io.Video.Output(display_name="video"),
        RecordType.Output(display_name="record"),
    ]


def shown(frames: np.ndarray, record: Record | None) -> io.NodeOutput:
    images = images_of(frames)
    return io.NodeOutput(images, host.video(images, FPS), record)


class Decode(io.ComfyNode):
    """Latents to frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HunyuanVideoDecode",
            display_name="HunyuanVideo Decode",
            category=host.CATEGORY,
            description="Decodes latents, in tiles: bounded memory for any number of frames.",
            inputs=[
                ModelType.Input("model"),
                io.Latent.Input("latent"),
                io.Boolean.Input("tiled", default=True, tooltip="In overlapping tiles, as the official code always does."),
                RecordType.Input(
                    "record", optional=True, tooltip="Of whoever sampled them; needed for loops, and to save how the video was made."
                ),
            ],
            outputs=outputs(),
        )

    @classmethod
    @as_usual
    def execute(cls, model: Model, latent: dict[str, Any], tiled: bool = True, record: Record | None = None) -> io.NodeOutput:
        model = replace(model, runtime=replace(model.runtime, vae_tiling=tiled))
        vae = loaded(model).pipe.vae.config
        latents = from_latent(latent, vae)
        if record is None:
            return shown(np.concatenate([pipeline(model).decode(each[None]) for each in latents]), None)
        same = torch.equal(to_latent(record.latents, vae)["samples"], latent["samples"].cpu())
        require(same, "The latent is not what the record tells of: a node between them has changed it; leave the record unconnected.")
        return shown(*decoded(model, record))


class Encode(io.ComfyNode):
    """Frames to latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HunyuanVideoEncode",
            display_name="HunyuanVideo Encode",
            category=host.CATEGORY,
            description="Encodes 4n + 1 frames as latents that ComfyUI's own HunyuanVideo nodes take, too.",
            inputs=[ModelType.Input("model"), io.Image.Input("images"), io.Boolean.Input("tiled", default=True)],
            outputs=[io.Latent.Output(display_name="latent")],
        )

    @classmethod
    @as_usual
    def execute(cls, model: Model, images: Tensor, tiled: bool = True) -> io.NodeOutput:
        frames = frames_of(images)
        require(
            len(frames) % 4 == 1,
            f"There are {len(frames)} frames; they must be 4n + 1, such as the first {(len(frames) - 1) // 4 * 4 + 1}.",
        )
        pipe = pipeline(replace(model, runtime=replace(model.runtime, vae_tiling=tiled)))
        return io.NodeOutput(to_latent(pipe.encode(frames), pipe.vae.config))
