"""Rotary positions of a grid of tokens, three axes in one head (RoPE, arXiv 2104.09864).

Letters: T H W tokens along time, height and width; N of them all, B batch, S sequence.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def split_head(head_dim: int) -> tuple[int, int, int]:
    """How every released size splits a head's features into time, height and width: 7/16 for each side, the rest for time."""
    side = head_dim * 7 // 16 // 2 * 2
    return head_dim - 2 * side, side, side


class Rope(NamedTuple):
    """Rotary position tables, float32, one value per pair of neighbouring features: [tokens, 1, head_dim / 2]."""

    cos: Float[Tensor, "N 1 half"]
    sin: Float[Tensor, "N 1 half"]

    def with_text(self, num_tokens: int) -> Rope:
        """Extended by `num_tokens` rotations of zero. Text carries no position: the LLM already encoded its order."""
        pad = self.cos.new_zeros(num_tokens, 1, self.cos.shape[-1])
        return Rope(torch.cat([self.cos, pad + 1]), torch.cat([self.sin, pad]))


def frequencies_of(dim: int, theta: float) -> Float[Tensor, " half"]:
    """By how much each pair of an axis' features turns from one position to the next, the fastest first."""
    return 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)


def riflex(dim: int, theta: float, num_frames: int, trained: int) -> Float[Tensor, " half"] | None:
    """Frequencies along time, of `dim` features, for a video half as long again as the longest of a training, or longer; else None.

    In a longer video the pair of features that just did not come around in training would, and the video would repeat itself: it is slowed
    down so that it does not (RIFLEx, arXiv 2502.15894). Which pair that is, and how much, is as in the official image-to-video code.
    """
    if 2 * (num_frames - 1) <= 3 * (trained - 1):
        return None
    frequencies = frequencies_of(dim, theta)
    turns_in_training = (trained + 3) / 4 * frequencies / (2 * math.pi)
    first = int((turns_in_training >= 1).sum()) + max(0, (num_frames + 3) // 100 - 2)
    frequencies[min(first, len(frequencies) - 1)] = 0.9 * 2 * math.pi / ((num_frames + 3) // 4)
    return frequencies


def rope_table(grid: tuple[int, int, int], dims: tuple[int, int, int], theta: float, device: torch.device) -> Rope:
    """Tables for a token grid (T, H/2, W/2), row-major. Each axis turns its own share of the features by its own integer position."""
    cos, sin = [], []
    for axis, dim in enumerate(dims):
        angle = torch.outer(torch.arange(grid[axis], dtype=torch.float32), frequencies_of(dim, theta))
        shape = [1, 1, 1, -1]
        shape[axis] = grid[axis]
        for table, turn in ((cos, angle.cos()), (sin, angle.sin())):  # on the CPU, for the last bits are the machine's
            table.append(turn.to(device).view(shape).expand(*grid, -1))
    return Rope(*(rearrange(torch.cat(table, dim=-1), "T H W half -> (T H W) 1 half") for table in (cos, sin)))


def apply_rope(x: Float[Tensor, "B S heads dim"], rope: Rope) -> Float[Tensor, "B S heads dim"]:
    """Rotate neighbouring pairs (x0, x1) in float32, where a bfloat16 angle would be off by whole pixels, and cast back."""
    x0, x1 = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack([x0 * rope.cos - x1 * rope.sin, x1 * rope.cos + x0 * rope.sin], dim=-1)
    return rotated.flatten(-2).type_as(x)
