"""The most that this machine does in plain products, attention and convolutions: what every other number is held against.

One thread, the best of a few repeats: a ceiling is what was once reached, not what is usual.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from measure import Spread, take_turns

from hunyuan_video.kernels import choice, table

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
    """Operations a second of the fastest kernel that is exact and works here."""
    q, k, v = torch.randn(3, 1, tokens, HEADS, HEAD_DIM).to(dtype)
    names = [name for name, kernel in table.KERNELS.items() if kernel.is_candidate and choice.why_not(name, CPU, dtype, HEAD_DIM) is None]
    return max(4 * HEADS * HEAD_DIM * tokens**2 / _least(partial(table.load(name), q, k, v, None)) for name in names)


@cache
@torch.no_grad()
def convolutions(dtype: torch.dtype) -> float:
    """Operations a second of a 3x3x3 convolution, of the decoder's widths and in the better of two memory layouts."""
    found = 0.0
    for channels, frames, side in ((512, 5, 8), (512, 5, 16), (256, 5, 32), (128, 9, 64)):
        x = torch.randn(1, channels, frames + 2, side + 2, side + 2, dtype=dtype)
        weight = torch.randn(channels, channels, 3, 3, 3, dtype=dtype)
        for layout in (torch.contiguous_format, torch.channels_last_3d):
            laid_out = partial(F.conv3d, x.to(memory_format=layout), weight.to(memory_format=layout))
            found = max(found, 2 * weight.numel() * frames * side**2 / _least(laid_out))
    return found


def _least(call: Callable[[], object]) -> float:
    call()
    spread: Spread = take_turns({"": call}, CPU, REPEATS)[""]
    return spread.least
