"""The most that this machine does in plain products, attention, convolutions and copies: what every other number is held against.

One thread, the best of a few repeats: a ceiling is what was once reached, not what is usual.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from measure import Spread, take_turns

from hunyuan_video.models.attention import KINDS

CPU = torch.device("cpu")
REPEATS = 5
HEADS, HEAD_DIM = 6, 128


@cache
@torch.no_grad()
def products(dtype: torch.dtype) -> float:
    """Operations a second of matrix products, of the shapes of a block 768 wide."""
    x, weights = torch.randn(1340, 768, dtype=dtype), [torch.randn(width, 768, dtype=dtype) for width in (768, 2304, 3072)]
    return max(2 * x.shape[0] * each.numel() / _least(partial(F.linear, x, each)) for each in weights)


@cache
@torch.no_grad()
def attention(dtype: torch.dtype, tokens: int) -> float:
    """Operations a second of the faster of PyTorch's fused attention and plain products in pieces."""
    q, k, v = torch.randn(3, 1, tokens, HEADS, HEAD_DIM).to(dtype)
    return max(4 * HEADS * HEAD_DIM * tokens**2 / _least(partial(KINDS[name], q, k, v, None)) for name in ("sdpa", "chunked"))


@cache
@torch.no_grad()
def convolutions(dtype: torch.dtype) -> float:
    """Operations a second of a 3x3x3 convolution of 256 channels, in the better of two memory layouts."""
    x, weight = torch.randn(1, 256, 5, 34, 34, dtype=dtype), torch.randn(256, 256, 3, 3, 3, dtype=dtype)
    work = 2 * weight.numel() * 3 * 32 * 32
    rates = []
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        laid_out = partial(F.conv3d, x.to(memory_format=layout), weight.to(memory_format=layout))
        rates.append(work / _least(laid_out))
    return max(rates)


@cache
def copies() -> float:
    """Bytes a second that are read and written, of a tensor that no cache holds."""
    source = torch.zeros(2**28, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _least(lambda: target.copy_(source))


def _least(call: Callable[[], object]) -> float:
    call()
    spread: Spread = take_turns({"": call}, CPU, REPEATS)[""]
    return spread.least
