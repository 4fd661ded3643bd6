"""Attention in 8 bits, in the manner of SageAttention 2 (arXiv 2411.10958): queries and keys as integers or as float8_e4m3fn, shares of
attention and values as float8_e4m3fn, or in 16 bits where the GPU has no such products.

What keeps the error small: the mean key is taken off all keys, which moves all scores of a query alike, and so none of its shares; queries
and keys are rotated by a Hadamard matrix, which moves no score and spreads a channel that sticks out over all; each query has a scale of
its own, as has each block of 64 keys and each channel of the values, whose mean is taken off and added to the output.

Letters: B batch, L query tokens, S key tokens, H heads, D head dimension, b blocks of keys.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal, no_type_check

import torch
import triton.language as tl
from jaxtyping import Float, Shaped
from torch import Tensor

from hunyuan_video.kernels.blocks import BlockLists
from hunyuan_video.kernels.triton.attention import Rounded, launch, side_by_side
from hunyuan_video.kernels.triton.jit import kernel
from hunyuan_video.kernels.triton.tiles import has_fp8, tiles_for

Numbers = Literal["int8", "fp8"]
DTYPES = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
LARGEST = {torch.int8: float(torch.iinfo(torch.int8).max), torch.float8_e4m3fn: torch.finfo(torch.float8_e4m3fn).max}
KEYS = 64  # that share a scale
PADDED = 128  # the largest block of an attention's program, of which the copies have whole ones


@kernel
@no_type_check  # of what only Triton's compiler reads
def round_block(
    x, mean, out, scale, x_batch, x_token, x_head, heads, tokens, padded, factor,
    DIM: tl.constexpr, BLOCK: tl.constexpr, LARGEST: tl.constexpr, ROTATE: tl.constexpr, SMOOTH: tl.constexpr, BY_TOKEN: tl.constexpr,
    WHOLE: tl.constexpr,
):  # fmt: skip
    block, both = tl.program_id(0), tl.program_id(1).to(tl.int64)
    token, feature = block * BLOCK + tl.arange(0, BLOCK)[:, None], tl.arange(0, DIM)[None, :]
    start = x + both // heads * x_batch + both % heads * x_head
    numbers = tl.load(start + token.to(tl.int64) * x_token + feature, token < tokens, 0.0).to(tl.float32)
    if SMOOTH:
        numbers = tl.where(token < tokens, numbers - tl.load(mean + both * DIM + feature), 0.0)
    if ROTATE:  # by 1 or -1 for the parity of the bits that both indices have
        bits = tl.arange(0, DIM)[:, None] & feature
        bits ^= bits >> 4
        bits ^= bits >> 2
        bits ^= bits >> 1
        signs = 1.0 - 2.0 * (bits & 1)
        numbers = tl.dot(numbers.to(tl.bfloat16), signs.to(tl.bfloat16)) * DIM**-0.5
    largest = tl.max(tl.abs(numbers), axis=1, keep_dims=True)
    if BY_TOKEN:
        step = tl.maximum(largest / LARGEST, 1.0e-30)
        tl.store(scale + both * padded + token, step * factor)
    else:
        step = tl.maximum(tl.max(largest) / LARGEST, 1.0e-30)
        tl.store(scale + both * (padded // BLOCK) + block, step * factor)
    numbers /= step
    if WHOLE:
        numbers += tl.where(numbers < 0, -0.5, 0.5)  # what follows cuts off
    tl.store(out + (both * padded + token) * DIM + feature, numbers.to(out.dtype.element_ty))


@kernel
@no_type_check
def turn_values(
    v, mean, scale, out, v_batch, v_token, v_head, heads, tokens, padded, DIM: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    block, both = tl.program_id(0), tl.program_id(1).to(tl.int64)
    token, feature = block * BLOCK + tl.arange(0, BLOCK)[:, None], tl.arange(0, DIM)[None, :]
    start = v + both // heads * v_batch + both % heads * v_head
    numbers = tl.load(start + token.to(tl.int64) * v_token + feature, token < tokens, 0.0).to(tl.float32)
    numbers = (numbers - tl.load(mean + both * DIM + feature)) / tl.load(scale + both * DIM + feature)
    numbers = tl.trans(tl.where(token < tokens, numbers, 0.0).to(out.dtype.element_ty))
    tl.store(out + (both * DIM + tl.trans(feature)) * padded + tl.trans(token), numbers)


def round_all(
    q: Float[Tensor, "B L H D"],
    k: Float[Tensor, "B S H D"],
    v: Float[Tensor, "B S H D"],
    numbers: Numbers,
    *,
    smooth: bool = True,
    rotate: bool = True,
) -> Rounded:
    """Everything in 8 bits that an attention needs, but values where the GPU has no float8_e4m3fn."""
    dim, tall = q.shape[-1], (q.shape[0], q.shape[2])
    per_feature = torch.zeros(*tall, dim, dtype=torch.float32, device=q.device)
    k_mean = k.mean(1, dtype=torch.float32) if smooth else per_feature
    turned = partial(_turned, dtype=DTYPES[numbers], rotate=rotate)
    q_rounded, q_scale = turned(q, None, block=KEYS, by_token=True, factor=dim**-0.5 * math.log2(math.e))
    k_rounded, k_scale = turned(k, k_mean, block=KEYS, by_token=False, factor=1.0)
    if not has_fp8(q.device):
        return Rounded(q_rounded, k_rounded, v, q_scale, k_scale, torch.ones_like(per_feature), per_feature)

    v_mean = v.mean(1, dtype=torch.float32)
    least, most = (x.float() for x in v.aminmax(dim=1))
    v_scale = (torch.maximum(most - v_mean, v_mean - least) / LARGEST[torch.float8_e4m3fn]).clamp(min=1e-30)
    padded = k_rounded.shape[1]
    v_rounded = torch.empty(*tall, dim, padded, dtype=torch.float8_e4m3fn, device=q.device)
    batches, tokens, heads, _ = v.shape
    turn_values[padded // KEYS, batches * heads](
        v, v_mean, v_scale, v_rounded, *v.stride()[:3], heads, tokens, padded, dim, KEYS, num_warps=4
    )  # fmt: skip
    return Rounded(q_rounded, k_rounded, v_rounded.permute(0, 3, 1, 2), q_scale, k_scale, v_scale, v_mean)


def _turned(
    x: Float[Tensor, "B S H D"],
    mean: Float[Tensor, "B H D"] | None,
    *,
    dtype: torch.dtype,
    rotate: bool,
    block: int,
    by_token: bool,
    factor: float,
) -> tuple[Shaped[Tensor, "B padded H D"], Float[Tensor, "B H scales"]]:
    """Rotated and rounded, a head's tokens behind each other, and what makes of each its old size, times `factor`."""
    batches, tokens, heads, dim = x.shape
    padded = -(-tokens // PADDED) * PADDED
    out = torch.empty(batches, heads, padded, dim, dtype=dtype, device=x.device)
    scale = torch.empty(batches, heads, padded if by_token else padded // block, dtype=torch.float32, device=x.device)
    round_block[padded // block, batches * heads](
        x, x if mean is None else mean, out, scale, *x.stride()[:3], heads, tokens, padded, factor,
        dim, block, LARGEST[dtype], rotate, mean is not None, by_token, dtype == torch.int8, num_warps=8,
    )  # fmt: skip
    return out.transpose(1, 2), scale


def attend_in_8_bits(
    q: Float[Tensor, "B L H D"],
    k: Float[Tensor, "B S H D"],
    v: Float[Tensor, "B S H D"],
    numbers: Numbers,
    blocks: BlockLists | None = None,
    *,
    smooth: bool = True,
    rotate: bool = True,
) -> Float[Tensor, "B L H D"]:
    """Attention to all keys, or to those of `blocks`; without what keeps errors small, where somebody asks for that to measure it."""
    q, k, v = side_by_side(q, k, v)
    rounded = round_all(q, k, v, numbers, smooth=smooth, rotate=rotate)
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    return launch(rounded.q, rounded.k, rounded.v, out, k.shape[1], tiles_for(q.device, 8), rounded, blocks)
