"""Products of layers and some hundred tokens by oneDNN, with GELU in the same pass, on a CPU.

PyTorch multiplies bfloat16 by oneDNN anyway, and reads and writes the result once more for GELU; float32 it leaves to a library that on
some makes of CPU is half as fast. Which is faster is measured (`kernels/fused.py`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hunyuan_video.cpu import multiplies_bfloat16
from hunyuan_video.kernels import pieces
from hunyuan_video.kernels.pieces import Apply, Dense, Pieces


def linear(layer: Apply, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S M"]:
    """As `pieces.linear`; weights that are more than a matrix multiply themselves."""
    if not isinstance(layer, Dense) or not _multiplies(x):
        return pieces.linear(layer, x)
    return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "none", [], "")


def linear_gelu(layer: Apply, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S M"]:
    """As `pieces.linear_gelu`."""
    if not isinstance(layer, Dense) or not _multiplies(x):
        return pieces.linear_gelu(layer, x)
    return torch.ops.mkldnn._linear_pointwise(x, layer.weight, layer.bias, "gelu", [], "tanh")


def _multiplies(x: Tensor) -> bool:
    return x.dtype != torch.bfloat16 or multiplies_bfloat16()


PIECES = Pieces(linear=linear, linear_gelu=linear_gelu)
