"""The attention kernels that are chosen by name alone. They import Triton when they are first called.

Letters: B batch, L query tokens, S key tokens, H heads, D head dimension.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hunyuan_video.kernels import triton
from hunyuan_video.models.attention import AttentionFn, sdpa

FEW = 1024  # queries; with fewer, as the blocks have that only text goes through, nothing is gained


def int8(
    q: Float[Tensor, "B L H D"], k: Float[Tensor, "B S H D"], v: Float[Tensor, "B S H D"], mask: Bool[Tensor, "B _ S"] | None
) -> Float[Tensor, "B L H D"]:
    """Queries and keys as integers of 8 bits; values in float8_e4m3fn, or as they are on a GPU of a compute capability below 8.9. With a
    mask, which prompts of different lengths in one batch have, or few queries, it is PyTorch's kernel."""
    return _in_8_bits("int8", q, k, v) if mask is None and q.shape[1] >= FEW else sdpa(q, k, v, mask)


def fp8(
    q: Float[Tensor, "B L H D"], k: Float[Tensor, "B S H D"], v: Float[Tensor, "B S H D"], mask: Bool[Tensor, "B _ S"] | None
) -> Float[Tensor, "B L H D"]:
    """Queries, keys and values in float8_e4m3fn; where `int8` is PyTorch's kernel, so is this."""
    return _in_8_bits("fp8", q, k, v) if mask is None and q.shape[1] >= FEW else sdpa(q, k, v, mask)


Numbers = Literal["int8", "fp8"]
BY_NAME: dict[Numbers, AttentionFn] = {"int8": int8, "fp8": fp8}
LEAST: dict[Numbers, tuple[int, int]] = {"int8": (8, 0), "fp8": (8, 9)}  # compute capability of the GPU


def _in_8_bits(numbers: Literal["int8", "fp8"], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if q.is_meta:  # what a plan counts: copies in 8 bits beside an attention
        copies = [torch.empty_like(x, dtype=torch.int8) for x in (q, k, v)]
        out = sdpa(q, k, v, None)
        copies.clear()
        return out
    from hunyuan_video.kernels.triton.eight_bits import attend_in_8_bits

    return attend_in_8_bits(q, k, v, numbers)


def load(name: Numbers) -> AttentionFn:
    """A kernel of `BY_NAME`.

    Raises:
        ImportError: Triton is missing.
    """
    triton.need(f"attention {name!r}")
    return BY_NAME[name]
