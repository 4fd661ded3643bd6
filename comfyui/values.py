"""ComfyUI's values and ours: IMAGE and pictures, VIDEO and clips, LATENT and latents.

IMAGE    float32 [F, H, W, 3] in [0, 1], F frames; perhaps with a fourth channel, which is left out
VIDEO    frames with a rate
LATENT   {"samples": [B, C, T, H/8, W/8]} as the VAE decodes it, not scaled as the transformer knows it
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hunyuan_video.clips import FPS, on_grid
from hunyuan_video.config import require
from hunyuan_video.models.vae import VAEConfig
from hunyuan_video.request import Clip, Picture, Provenance

from . import host

RequestType = host.io.Custom("HUNYUAN_VIDEO_REQUEST")
RecordType = host.io.Custom("HUNYUAN_VIDEO_RECORD")


@dataclass(frozen=True, eq=False)
class Record:
    """How a video was made, and its latents as they were sampled: ComfyUI's, scaled there and back, have other last bits."""

    made: Provenance
    latents: Tensor


def frames_of(images: Tensor) -> np.ndarray:
    """Of an IMAGE: uint8 [F, H, W, 3], exactly those that it was made of."""
    shape = list(images.shape)
    require(images.ndim == 4 and shape[3] in (3, 4), f"The images have the shape {shape}; it must be [frames, height, width, 3].")
    return (images[..., :3].float().cpu() * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def images_of(frames: np.ndarray) -> Tensor:
    """An IMAGE."""
    return torch.from_numpy(frames).float() / 255


def picture_of(images: Tensor) -> Picture:
    """The first of an IMAGE."""
    return Picture(frames_of(images[:1])[0])


def clip_of(shown: Any) -> Clip:
    """Of an IMAGE, whose frames are taken as they are, or of a VIDEO, of which 24 a second are; as many as a video can have."""
    return Clip(shown_frames(shown)).trimmed()


def shown_frames(shown: Any) -> np.ndarray:
    """Of an IMAGE or a VIDEO: uint8 [F, H, W, 3]."""
    if isinstance(shown, Tensor):
        return frames_of(shown)
    parts = shown.get_components()
    rate = float(parts.frame_rate)
    times, most = np.arange(len(parts.images)) / rate, math.ceil(len(parts.images) / rate * FPS)  # all: what goes on does so from the end
    return frames_of(parts.images[on_grid(times, FPS, most)])


def to_latent(latents: Tensor, vae: VAEConfig) -> dict[str, Tensor]:
    return {"samples": latents.float().cpu() / vae.scaling_factor + vae.shift_factor}


def from_latent(latent: dict[str, Any], vae: VAEConfig) -> Tensor:
    """Latents as the transformer knows them. Raises a ValueError for another model's."""
    samples = latent["samples"]
    right = isinstance(samples, Tensor) and samples.ndim == 5 and samples.shape[1] == vae.latent_channels
    shape = list(samples.shape) if isinstance(samples, Tensor) else type(samples).__name__
    require(right, f"The latent is {shape}; for this VAE it must be [batch, {vae.latent_channels}, frames, height, width].")
    return (samples.float() - vae.shift_factor) * vae.scaling_factor
