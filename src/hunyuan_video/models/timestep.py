"""The noise level, and the guidance scale, as vectors.

Letters: B batch, D hidden size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def frequencies(half: int, device: torch.device) -> Float[Tensor, " half"]:
    """exp(-log(10000) k / half), the argument in float32 as in the reference, then rounded once, so that every machine has the same: the
    last bit of a float32 `exp` is the machine's, and where guidance reaches 6000 it moves the output by 1e-4."""
    where = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
    argument = -math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=where) / half
    return argument.double().exp().float().to(device)


def timestep_table(t: Float[Tensor, " B"], dim: int) -> Float[Tensor, "B dim"]:
    """Sinusoids of t, cosines first, in float32; an odd `dim` ends in a zero."""
    angle = t.float()[:, None] * frequencies(dim // 2, t.device)
    return F.pad(torch.cat([angle.cos(), angle.sin()], dim=-1), (0, dim % 2))


class TimestepEmbedder(nn.Module):
    """A scalar per sample (t or guidance, 0…1000 and beyond) to a vector."""

    def __init__(self, hidden_size: int, frequency_dim: int = 256):
        super().__init__()
        self.frequency_dim = frequency_dim
        self.mlp = nn.Sequential(nn.Linear(frequency_dim, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size))

    def forward(self, t: Float[Tensor, " B"], dtype: torch.dtype) -> Float[Tensor, "B D"]:
        return self.mlp(timestep_table(t, self.frequency_dim).to(dtype))
