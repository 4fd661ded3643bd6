"""What latents look like before the VAE decodes them: each of their places as one pixel, a weighted sum of its channels. The weights are
fitted to the VAE that is there, on patterns that it encodes.

T, H, W: frames, height and width of latents; C their channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from hunyuan_video.video import to_frames, to_tensor

_CLIPS, _SIDE, _FRAMES = 12, 64, 5  # of the patterns; pixels


@dataclass(frozen=True)
class Preview:
    """Channels of latents, as they are sampled (scaled), to red, green and blue in [-1, 1]."""

    weight: Float[Tensor, "C 3"]
    bias: Float[Tensor, "3"]

    def __call__(self, latents: Float[Tensor, "1 C T H W"]) -> UInt8[np.ndarray, "T H W 3"]:
        """A picture for each frame of latents, which stands for four of the video, but the first for one."""
        pixels = torch.einsum("cthw,cr->rthw", latents[0].float().cpu(), self.weight) + self.bias[:, None, None, None]
        return to_frames(pixels.clamp(-1, 1))


@torch.no_grad()
def fit(encode: Callable[[UInt8[np.ndarray, "F H2 W2 3"]], Float[Tensor, "1 C T H W"]]) -> Preview:
    """The sums nearest to what a VAE encodes, over soft and hard-edged patterns, moving and still. `encode` is the pipeline's."""
    generator = torch.Generator().manual_seed(0)
    latents, colours = [], []
    for _ in range(_CLIPS):
        pixels = to_tensor(to_frames(_pattern(generator)))
        z = encode(to_frames(pixels))[0].float().cpu()
        height, width = z.shape[2:]
        means = F.adaptive_avg_pool3d(pixels[None, :, 1:], (z.shape[1] - 1, height, width))[0]
        first = F.adaptive_avg_pool2d(pixels[:, 0], (height, width))
        latents.append(rearrange(z, "C T H W -> (T H W) C"))
        colours.append(rearrange(torch.cat([first[:, None], means], dim=1), "R T H W -> (T H W) R"))
    x = F.pad(torch.cat(latents), (0, 1), value=1.0).double()
    solution = torch.linalg.lstsq(x, torch.cat(colours).double()).solution.float()
    return Preview(solution[:-1], solution[-1])


def _pattern(generator: torch.Generator) -> Float[Tensor, "3 F H2 W2"]:
    """A clip: a soft field of colours with a rectangle of one colour going over it."""
    coarse = torch.rand(1, 3, 4, 4, generator=generator) * 2 - 1
    field = F.interpolate(coarse, (_SIDE, _SIDE), mode="bicubic", align_corners=False)[0].clamp(-1, 1)
    clip = field[:, None].repeat(1, _FRAMES, 1, 1)
    colour = torch.rand(3, generator=generator) * 2 - 1
    top, left, height, width = (int(n) for n in torch.randint(_SIDE // 8, _SIDE // 2, (4,), generator=generator))
    speed = int(torch.randint(0, 8, (1,), generator=generator))
    for frame in range(_FRAMES):
        start = left + speed * frame
        clip[:, frame, top : top + height, start : start + width] = colour[:, None, None]
    return clip
