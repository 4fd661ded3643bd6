"""How near a clip is to another of the same prompt and seed, and whether it is a video at all.

PSNR and SSIM compare pixels, and forgive a black clip of a dark scene or a frozen one of a calm scene: `soundness` does not.

Letters: T frames, H height, W width.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

Frames = UInt8[np.ndarray, "T H W 3"]

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
WINDOW, SIGMA = 11, 1.5  # pixels
STABLE = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)  # where there is neither light nor contrast
BROKEN = 0.5  # a soundness below it
LEVEL = 1.0  # of 255: a difference that nobody sees


def psnr(frames: Frames, other: UInt8[np.ndarray, "_ _ _ 3"]) -> float:
    """Peak signal-to-noise ratio in dB over a whole clip; infinite for equal clips."""
    _check_shapes(frames, other, "PSNR")
    error = np.mean([np.mean((x.astype(np.float64) - y) ** 2) for x, y in zip(frames, other, strict=True)])  # a frame at a time, for memory
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)


def ssim(frames: Frames, other: UInt8[np.ndarray, "_ _ _ 3"]) -> float:
    """Structural similarity of the luminance, mean over windows and frames; 1 for equal clips (Wang et al., 2004: Gaussian windows of 11
    pixels with a deviation of 1.5, only those that lie wholly inside)."""
    _check_shapes(frames, other, "SSIM")
    if min(frames.shape[1:3]) < WINDOW:
        raise ValueError(f"The clips are {frames.shape[1]}x{frames.shape[2]} pixels; SSIM looks through windows of {WINDOW}x{WINDOW}.")
    pairs = ((luminance(x[None])[0], luminance(y[None])[0]) for x, y in zip(frames, other, strict=True))
    return float(np.mean([_ssim(x, y) for x, y in pairs]))


def _ssim(x: Float[Tensor, "H W"], y: Float[Tensor, "H W"]) -> float:
    offset = torch.arange(WINDOW, dtype=x.dtype) - WINDOW // 2
    weights = torch.exp(-(offset**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()
    moments = torch.stack([x, y, x * x, y * y, x * y])[:, None]
    x, y, xx, yy, xy = F.conv2d(F.conv2d(moments, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))[:, 0]
    light, contrast = STABLE
    likeness = (2 * x * y + light) * (2 * (xy - x * y) + contrast)
    return (likeness / ((x * x + y * y + light) * (xx - x * x + yy - y * y + contrast))).mean().item()


def soundness(frames: Frames, exact: UInt8[np.ndarray, "_ _ _ 3"]) -> float:
    """How much of what makes the exact clip a video this one has too, 0 to 1: of each trait the smaller over the larger of the two, and of
    all traits the least. Below `BROKEN` a clip is black, blank, noise, stripes or frozen, however near its pixels are.

    Traits are contrast, roughness (what a blur of 3 x 3 pixels takes away), how rows and how columns differ among themselves, each of the
    worst frame, and motion over the clip: no positions, so another draw of the same scene is sound.
    """
    _check_shapes(frames, exact, "Soundness")
    x, y = luminance(frames), luminance(exact)
    traits = [(_contrast(x), _contrast(y)), (_roughness(x), _roughness(y)), (_motion(x), _motion(y))]
    traits += [(x.mean(dim=side).std(dim=1), y.mean(dim=side).std(dim=1)) for side in (1, 2)]
    return min(float(((torch.minimum(a, b) + LEVEL) / (torch.maximum(a, b) + LEVEL)).min()) for a, b in traits)


def luminance(frames: Frames) -> Float[Tensor, "T H W"]:
    """0 to 255."""
    return torch.from_numpy(frames.astype(np.float64)) @ torch.tensor(LUMA, dtype=torch.float64)


def _contrast(x: Float[Tensor, "T H W"]) -> Float[Tensor, " T"]:
    return x.flatten(1).std(dim=1)


def _roughness(x: Float[Tensor, "T H W"]) -> Float[Tensor, " T"]:
    blurred = F.avg_pool2d(x, 3, stride=1)
    return (x[:, 1:-1, 1:-1] - blurred).abs().flatten(1).mean(dim=1)


def _motion(x: Float[Tensor, "T H W"]) -> Float[Tensor, " 1"]:
    coarse = F.avg_pool2d(x, 4)  # grain that flickers is no motion
    return coarse.diff(dim=0).abs().mean().nan_to_num().view(1)  # one frame does not move


def _check_shapes(frames: Frames, other: UInt8[np.ndarray, "_ _ _ 3"], name: str) -> None:
    if frames.shape != other.shape:
        raise ValueError(f"The clips have shapes {frames.shape} and {other.shape}; {name} compares clips of one shape.")
