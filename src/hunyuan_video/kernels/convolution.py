"""A convolution in three dimensions by the library that is fast for it, however small the input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def conv3d(
    x: Float[Tensor, "B I T H W"], weight: Float[Tensor, "O I _ _ _"], bias: Float[Tensor, " O"] | None, stride: tuple[int, ...] = (1, 1, 1)
) -> Float[Tensor, "B O T2 H2 W2"]:
    """As `F.conv3d` without padding, and without a gradient.

    On a CPU PyTorch gives a float32 input of one sample to oneDNN only if channels x frames x rows are above 20,480. What is smaller, as
    most of a small VAE's, goes through a loop that takes up to fifteen times as long. Here oneDNN gets it.
    """
    if x.is_cpu and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return torch.mkldnn_convolution(x, weight, bias, padding=(0, 0, 0), stride=stride, dilation=(1, 1, 1), groups=1)
    return F.conv3d(x, weight, bias, stride)
