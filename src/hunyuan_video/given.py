"""From what a request gives, pictures and clips, to what a video begins with; and which of the decoded frames are the video.

Letters: C channels, T H W latent frames, height, width; F frames, H2 W2 height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from hunyuan_video.beginning import Beginning, how_told
from hunyuan_video.config import FullSampling, Given
from hunyuan_video.models.transformer import TransformerConfig
from hunyuan_video.models.vae import VAEConfig
from hunyuan_video.pictures import fill
from hunyuan_video.request import Clip, Keyframe, Picture, Request

Encode = Callable[[UInt8[np.ndarray, "F H2 W2 3"]], Float[Tensor, "1 C T H W"]]
AROUND = 4  # latent frames of a loop's end that are decoded before its beginning, which continues them


def begins_with(
    request: Request, sampling: FullSampling, encode: Encode, config: TransformerConfig, trained: Collection[Given]
) -> Beginning:
    """What a transformer is given of a request's pictures and clips, each in the video's size. `trained` is what its weights know."""
    size = sampling.height, sampling.width
    if request.video is not None:
        return Beginning(over=encode(sized(request.video, *size)))
    held = {frame: latent for each in request.held for frame, latent in _latents(each, sampling, encode)}
    if not held:
        return Beginning()
    frames = sorted(held)
    together = torch.cat([held[frame] for frame in frames], dim=2)
    # A loop has no first frame that stands alone, and weights know no other.
    return Beginning.of(together, config, frames, (sampling.num_frames - 1) // 4 + 1, () if sampling.loop else trained)


def _latents(given: Keyframe, sampling: FullSampling, encode: Encode) -> list[tuple[int, Float[Tensor, "1 C 1 H W"]]]:
    """Of each latent frame that it takes. Where that is four frames, a picture stands still for so long."""
    pixels = sized(given.shows, sampling.height, sampling.width)
    places = given.latent_frames(sampling.num_frames, loop=sampling.loop)
    still = isinstance(given.shows, Picture) and (sampling.loop or places[0] > 0)
    latents = encode(np.repeat(pixels, 5, axis=0))[:, :, 1:] if still else encode(pixels)
    return list(zip(places, latents.split(1, dim=2), strict=True))


def sized(shown: Picture | Clip, height: int, width: int) -> UInt8[np.ndarray, "F H2 W2 3"]:
    """The middle of each frame in this size."""
    frames = shown.pixels if isinstance(shown, Clip) else shown.pixels[None]
    if frames.shape[1:3] == (height, width):
        return frames
    return np.stack([fill(Image.fromarray(frame), height, width) for frame in frames])


@dataclass(frozen=True)
class Shown:
    """What is decoded of finished latents: `again` are so many latent frames of their end, before their beginning; of the frames that come
    out, the first `before` are not shown."""

    again: int = 0
    before: int = 0

    def latents(self, latents: Float[Tensor, "1 C T H W"]) -> Float[Tensor, "1 C _ H W"]:
        return torch.cat([latents[:, :, -self.again :], latents], dim=2) if self.again else latents

    def of(self, frames: UInt8[np.ndarray, "F H2 W2 3"], done: int) -> UInt8[np.ndarray, "_ H2 W2 3"]:
        """Those of a piece that are shown, where `done` came before it."""
        return frames[max(0, self.before - done) :]


def shown(sampling: FullSampling, config: TransformerConfig, vae: VAEConfig) -> Shown:
    """Of a video. Before the frames of latent concatenation stand the picture's own, as in the official code."""
    ratio = vae.time_compression_ratio
    if sampling.loop:
        again = min(AROUND, (sampling.num_frames - 1) // ratio)
        return Shown(again, 1 + ratio * (again - 1))
    return Shown(before=ratio if how_told(config) == "latent_concat" else 0)
