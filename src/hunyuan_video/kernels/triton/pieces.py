"""The pieces of a block beside its matrix products and attention, each in one pass over the tokens: `kernels.pieces`, but for rounding.

All compute in float32, from numbers that lie anywhere but side by side in a token, and round where the functions of PyTorch do, or less.

Letters: B batch, S tokens, R rows of modulation (1, or one a token), D hidden size, H heads, K head dimension, M width of a layer.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from hunyuan_video.kernels.pieces import Pieces
from hunyuan_video.kernels.triton.jit import kernel
from hunyuan_video.models.rope import Rope

EPS = 1e-6
LARGEST = torch.finfo(torch.float8_e4m3fn).max
WARPS = 8  # for a token of 3,072 numbers 12 a thread


@kernel
@no_type_check  # of what only Triton's compiler reads
def modulate_token(
    x, shift, scale, out, x_batch, x_token, row_batch, row_token, width, out_batch, out_token, EPS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    token, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    at = tl.arange(0, BLOCK)
    there = at < width
    numbers = tl.load(x + batch * x_batch + token * x_token + at, there, 0.0).to(tl.float32)
    centred = tl.where(there, numbers - tl.sum(numbers) / width, 0.0)
    normal = centred * tl.rsqrt(tl.sum(centred * centred) / width + EPS)
    row = batch * row_batch + token * row_token + at
    moved = normal * (1 + tl.load(scale + row, there, 0.0).to(tl.float32)) + tl.load(shift + row, there, 0.0).to(tl.float32)
    tl.store(out + batch * out_batch + token * out_token + at, moved.to(out.dtype.element_ty), there)


@kernel
@no_type_check
def norm_rope_token(
    x, weight, cos, sin, out, x_batch, x_token, x_head, out_batch, out_token, out_head, heads,
    EPS: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, ROTATE: tl.constexpr,
):  # fmt: skip
    token, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    head, feature = tl.arange(0, HEADS)[:, None], tl.arange(0, DIM)[None, :]
    there = (head < heads) & (feature < DIM)
    numbers = tl.load(x + batch * x_batch + token * x_token + head * x_head + feature, there, 0.0).to(tl.float32)
    numbers *= tl.rsqrt(tl.sum(numbers * numbers, axis=1, keep_dims=True) / DIM + EPS)
    kind = out.dtype.element_ty
    numbers = (numbers.to(kind).to(tl.float32) * tl.load(weight + feature).to(tl.float32)).to(kind)
    if ROTATE:
        even, odd = tl.split(tl.reshape(numbers.to(tl.float32), [HEADS, DIM // 2, 2]))
        pair = token * (DIM // 2) + tl.arange(0, DIM // 2)[None, :]
        c, s = tl.load(cos + pair), tl.load(sin + pair)
        numbers = tl.reshape(tl.join(even * c - odd * s, odd * c + even * s), [HEADS, DIM]).to(kind)
    tl.store(out + batch * out_batch + token * out_token + head * out_head + feature, numbers, there)


@kernel
@no_type_check
def add_gated_token(
    x, gate, y, x_batch, x_token, gate_batch, gate_token, y_batch, y_token, width, BLOCK: tl.constexpr
):  # fmt: skip
    token, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    at = tl.arange(0, BLOCK)
    there = at < width
    place = x + batch * x_batch + token * x_token + at
    gates = tl.load(gate + batch * gate_batch + token * gate_token + at, there, 0.0).to(tl.float32)
    added = tl.load(y + batch * y_batch + token * y_token + at, there, 0.0).to(tl.float32)
    tl.store(place, (tl.load(place, there, 0.0).to(tl.float32) + gates * added).to(x.dtype.element_ty), there)


@kernel
@no_type_check
def round_token(x, out, scale, x_token, width, LARGEST: tl.constexpr, GELU: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    there = at < width
    numbers = tl.load(x + token * x_token + at, there, 0.0).to(tl.float32)
    if GELU:  # its tanh form, as a logistic function: tanh(z) = 2 / (1 + exp(-2 z)) - 1
        inner = 0.7978845608028654 * (numbers + 0.044715 * numbers * numbers * numbers)
        numbers = numbers / (1 + tl.exp(-2 * inner))
    largest = tl.maximum(tl.max(tl.abs(numbers)) / LARGEST, 1.1754943508222875e-38)  # a token of zeros stays one
    tl.store(out + token * width + at, (numbers / largest).to(out.dtype.element_ty), there)
    tl.store(scale + token, largest)


def modulate(x: Float[Tensor, "B S D"], shift: Float[Tensor, "B R D"], scale: Float[Tensor, "B R D"]) -> Float[Tensor, "B S D"]:
    """LayerNorm without parameters, then x * (1 + scale) + shift."""
    x, shift, scale = _side_by_side(x), _side_by_side(shift), _side_by_side(scale)
    if shift.stride() != scale.stride():
        shift, scale = shift.contiguous(), scale.contiguous()
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    batches, tokens, width = x.shape
    modulate_token[tokens, batches](
        x, shift, scale, out, *x.stride()[:2], *_rows(scale), width, *out.stride()[:2], EPS, triton.next_power_of_2(width), num_warps=WARPS
    )  # fmt: skip
    return out


def norm_rope(x: Float[Tensor, "B S H K"], weight: Float[Tensor, " K"], rope: Rope | None, out: Float[Tensor, "B S H K"]) -> None:
    """RMSNorm of each head's features, in float32; cast back, times the weight; then rotated, where there are positions. `x` may be a part
    of a projection to queries, keys and values, and `out` a part of all tokens' queries or keys."""
    x = _side_by_side(x)
    batches, tokens, heads, dim = x.shape
    cos, sin = (weight, weight) if rope is None else (rope.cos.contiguous(), rope.sin.contiguous())
    norm_rope_token[tokens, batches](
        x, weight, cos, sin, out, *x.stride()[:3], *out.stride()[:3], heads,
        EPS, triton.next_power_of_2(heads), dim, rope is not None, num_warps=4,
    )  # fmt: skip


def add_gated(x: Float[Tensor, "B S D"], gate: Float[Tensor, "B R D"], y: Float[Tensor, "B S D"]) -> None:
    """x += gate * y, in place."""
    gate, y = _side_by_side(gate), _side_by_side(y)
    batches, tokens, width = x.shape
    add_gated_token[tokens, batches](
        x, gate, y, *x.stride()[:2], *_rows(gate), *y.stride()[:2], width, triton.next_power_of_2(width), num_warps=WARPS
    )  # fmt: skip


def round_tokens(x: Float[Tensor, "T M"], *, gelu: bool = False) -> tuple[Float[Tensor, "T M"], Float[Tensor, "T 1"]]:
    """Tokens, or their GELU (its tanh form), in float8_e4m3fn, each with the float32 scale that maps its largest number to 448."""
    x = _side_by_side(x)
    out = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
    scale = torch.empty(len(x), 1, dtype=torch.float32, device=x.device)
    tokens, width = x.shape
    block = triton.next_power_of_2(width)
    round_token[(tokens,)](x, out, scale, x.stride(0), width, LARGEST, gelu, block, num_warps=16 if block > 4096 else WARPS)
    return out, scale


def _side_by_side(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _rows(modulation: Float[Tensor, "B R D"]) -> tuple[int, int]:
    """The steps from one batch to the next and from one token to the next, which is none where one row is for all."""
    batch, token, _ = modulation.stride()
    return batch, token if modulation.shape[1] > 1 else 0


FUSED = Pieces(modulate=modulate, norm_rope=norm_rope, add_gated=add_gated)
