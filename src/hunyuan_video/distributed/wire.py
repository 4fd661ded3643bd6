"""How queries, keys and values travel between ranks: as they are, or in 8 bits where that costs little."""

from __future__ import annotations

from enum import Enum

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

FP8 = torch.float8_e4m3fn
SCALE_BYTES = 4


class Wire(Enum):
    """EXACT: everything as it is. FP8: q, v and the output in 8 bits (float8_e4m3fn, a float32 scale for each token and head), and k, whose
    errors move the softmax, as it is."""

    EXACT = "exact"
    FP8 = "fp8"

    def short(self, x: Float[Tensor, "*shape D"]) -> Shaped[Tensor, "*shape W"]:
        """What travels of q, v, or the output."""
        if self is Wire.EXACT:
            return x
        scale = (x.abs().amax(-1, keepdim=True).float() / torch.finfo(FP8).max).clamp_min(torch.finfo(torch.float32).tiny)
        return torch.cat([(x / scale).to(FP8).view(torch.uint8), scale.view(torch.uint8)], dim=-1)

    def short_width(self, x: Tensor) -> int:
        return x.shape[-1] if self is Wire.EXACT else x.shape[-1] + SCALE_BYTES

    def long(self, x: Shaped[Tensor, "*shape W"], dtype: torch.dtype) -> Float[Tensor, "*shape D"]:
        """What `short` was made of."""
        if self is Wire.EXACT:
            return x
        values, scale = x.tensor_split([-SCALE_BYTES], dim=-1)
        return (values.contiguous().view(FP8).float() * scale.contiguous().view(torch.float32)).to(dtype)

    def exact(self, x: Float[Tensor, "*shape D"]) -> Shaped[Tensor, "*shape W"]:
        """What travels of k."""
        return x if self is Wire.EXACT else x.contiguous().view(torch.uint8)

    def split(self, packed: Shaped[Tensor, "*shape W"], like: Float[Tensor, "*more D"]) -> tuple[Tensor, Tensor]:
        """Keys and values of `exact(k)` and `short(v)` side by side."""
        if self is Wire.EXACT:
            k, v = packed.tensor_split(2, dim=-1)
            return k, v
        k, v = packed.tensor_split([like.shape[-1] * like.itemsize], dim=-1)
        return k.contiguous().view(like.dtype), self.long(v, like.dtype)
