"""Attention block by block, the scores never in memory (FlashAttention 2, arXiv 2307.08691), of all keys or of some blocks of them, in the
input's dtype or in 8 bits. Forward only.

Letters: B batch, L query tokens, S key tokens, H heads, D head dimension, b blocks of keys.
"""

from __future__ import annotations

import math
from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Shaped
from torch import Tensor

from hunyuan_video.kernels.blocks import BlockLists
from hunyuan_video.kernels.inference import refuse_gradient
from hunyuan_video.kernels.triton.jit import kernel, part
from hunyuan_video.kernels.triton.tiles import Tiles

# The largest share of a query's attention is 1, which 8 bits have as 2^8: below their largest number, 448, so that nothing is clipped, and
# far enough above their smallest, 2^-9, for shares of 2^-17. The same factor is in the sum that they are divided by.
HEADROOM = 8.0


class Rounded(NamedTuple):
    """Queries, keys and values in 8 bits, padded with zeros to whole blocks; or values as they are."""

    q: Shaped[Tensor, "B L H D"]
    k: Shaped[Tensor, "B S H D"]
    v: Shaped[Tensor, "B S H D"]
    q_scale: Float[Tensor, "B H L"]  # times log2(e) / sqrt(D)
    k_scale: Float[Tensor, "B H b"]
    v_scale: Float[Tensor, "B H D"]
    v_mean: Float[Tensor, "B H D"]  # which was taken off


@part
@no_type_check  # of what only Triton's compiler reads
def see_keys(
    q, q_scale, k, v, k_scale, block, most, total, seen, keys, scale, k_token, v_token, v_dim,
    DIM: tl.constexpr, KEYS: tl.constexpr, IN_8_BITS: tl.constexpr, HEADROOM: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    start = tl.zeros([], tl.int64) + block * KEYS  # which is a plain number in Triton's interpreter
    row, feature = tl.arange(0, KEYS), tl.arange(0, DIM)
    key = block * KEYS + row
    place_k = k + start * k_token + (row[:, None] * k_token + feature[None, :])  # few of 64 bits, which take two registers each
    place_v = v + start * v_token + (row[:, None] * v_token + feature[None, :] * v_dim)
    # What is in 8 bits is padded.
    k_block = tl.load(place_k, key[:, None] < keys, 0.0) if MASKED and not IN_8_BITS else tl.load(place_k)
    v_block = tl.load(place_v, key[:, None] < keys, 0.0) if MASKED and HEADROOM == 0 else tl.load(place_v)
    scores = tl.dot(q, tl.trans(k_block), input_precision="ieee").to(tl.float32)
    if MASKED:
        scores = tl.where(key[None, :] < keys, scores, float("-inf"))
    factor = q_scale * tl.load(k_scale + block) if IN_8_BITS else q_scale * scale
    largest = tl.maximum(most, tl.max(scores, axis=1) * factor)
    shares = tl.exp2(scores * factor[:, None] - (largest - HEADROOM)[:, None])
    before = tl.exp2(most - largest)
    total = total * before + tl.sum(shares, axis=1)
    seen = seen * before[:, None]
    if HEADROOM > 0:  # tensor cores add 8-bit products with few bits: not beyond a block of keys
        seen = tl.dot(shares.to(v.dtype.element_ty), v_block, seen, max_num_imprecise_acc=KEYS)
    else:
        seen = tl.dot(shares.to(v.dtype.element_ty), v_block, seen, input_precision="ieee")
    return largest, total, seen


@kernel
@no_type_check
def attend(
    q, k, v, out, q_scale, k_scale, v_scale, v_mean, indices, counts, list_head, list_query, count_head,
    q_batch, q_token, q_head, k_batch, k_token, k_head, v_batch, v_token, v_head, v_dim, out_batch, out_token, out_head,
    q_scale_head, k_scale_head, scale, heads, queries, keys,
    DIM: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, IN_8_BITS: tl.constexpr, HEADROOM: tl.constexpr,
    QUERY_BLOCK: tl.constexpr, KEY_BLOCK: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    start, both = tl.program_id(0), tl.program_id(1)
    batch, head = (both // heads).to(tl.int64), (both % heads).to(tl.int64)
    query, feature = start * QUERIES + tl.arange(0, QUERIES), tl.arange(0, DIM)
    there = query[:, None] < queries
    first = (start * QUERIES).to(tl.int64)
    row = tl.arange(0, QUERIES)[:, None]
    q_block = tl.load(q + batch * q_batch + head * q_head + first * q_token + (row * q_token + feature[None, :]), there, 0.0)
    k += batch * k_batch + head * k_head
    v += batch * v_batch + head * v_head
    of_queries = tl.full([QUERIES], 1.0, tl.float32)
    if IN_8_BITS:
        of_queries = tl.load(q_scale + both.to(tl.int64) * q_scale_head + query, query < queries, 1.0)
        k_scale += both.to(tl.int64) * k_scale_head

    most = tl.full([QUERIES], -1.0e30, tl.float32)  # not infinity, from which a block without keys would make NaN
    total = tl.zeros([QUERIES], tl.float32)
    seen = tl.zeros([QUERIES, DIM], tl.float32)
    if KEY_BLOCK > 0:
        PARTS: tl.constexpr = KEY_BLOCK // KEYS
        listed = start * QUERIES // QUERY_BLOCK
        indices += head * list_head + listed.to(tl.int64) * list_query
        for i in range(0, tl.load(counts + head * count_head + listed) * PARTS):
            block = tl.load(indices + i // PARTS) * PARTS + i % PARTS
            most, total, seen = see_keys(
                q_block, of_queries, k, v, k_scale, block, most, total, seen, keys, scale, k_token, v_token, v_dim,
                DIM, KEYS, IN_8_BITS, HEADROOM, RAGGED,
            )  # fmt: skip
    else:
        for block in range(0, keys // KEYS):
            most, total, seen = see_keys(
                q_block, of_queries, k, v, k_scale, block, most, total, seen, keys, scale, k_token, v_token, v_dim,
                DIM, KEYS, IN_8_BITS, HEADROOM, False,
            )  # fmt: skip
        if RAGGED:
            most, total, seen = see_keys(
                q_block, of_queries, k, v, k_scale, keys // KEYS, most, total, seen, keys, scale, k_token, v_token, v_dim,
                DIM, KEYS, IN_8_BITS, HEADROOM, True,
            )  # fmt: skip

    seen = seen / total[:, None]
    if IN_8_BITS:
        channel = both.to(tl.int64) * DIM + feature
        seen = seen * tl.load(v_scale + channel)[None, :] + tl.load(v_mean + channel)[None, :]
    place = out + batch * out_batch + head * out_head + first * out_token + (row * out_token + feature[None, :])
    tl.store(place, seen.to(out.dtype.element_ty), there)


def side_by_side(*tensors: Tensor) -> list[Tensor]:
    """With the features of a token behind each other in memory, as the kernels expect them; tokens and heads may lie anywhere."""
    return [x if x.stride(-1) == 1 else x.contiguous() for x in tensors]


def launch(
    q: Shaped[Tensor, "B L H D"],
    k: Shaped[Tensor, "B S H D"],
    v: Shaped[Tensor, "B S0 H D"],
    out: Float[Tensor, "B L0 H D"],
    keys: int,
    tiles: Tiles,
    rounded: Rounded | None = None,
    blocks: BlockLists | None = None,
) -> Float[Tensor, "B L0 H D"]:
    """Fill `out`, whose tokens and `keys` may be fewer than padded ones.

    Raises:
        ValueError: heads of another size than the kernels are written for.
    """
    refuse_gradient(q, k, v)
    batches, queries, heads, dim = out.shape
    if dim not in (64, 128):
        raise ValueError(f"Heads have {dim} features, but attention in Triton is written for 64 and 128; use --attention sdpa.")
    query_block, key_block, *lists = (0, 0, out, out, 0, 0, 0) if blocks is None else _lists(blocks)
    rows, columns = min(tiles.queries, query_block or tiles.queries), min(tiles.keys, key_block or tiles.keys)
    scales = (out,) * 4 if rounded is None else rounded[3:]
    scale_heads = (0, 0) if rounded is None else (rounded.q_scale.shape[-1], rounded.k_scale.shape[-1])
    attend[triton.cdiv(queries, rows), batches * heads](
        q, k, v, out, *scales, *lists,
        *q.stride()[:3], *k.stride()[:3], *v.stride(), *out.stride()[:3],
        *scale_heads, dim**-0.5 * math.log2(math.e), heads, queries, keys,
        dim, rows, columns, rounded is not None, HEADROOM if v.dtype == torch.float8_e4m3fn else 0.0,
        query_block, key_block, keys % columns > 0, num_warps=tiles.warps * rows // tiles.queries, num_stages=tiles.stages,
    )  # fmt: skip
    return out


def _lists(blocks: BlockLists) -> tuple[int, int, Tensor, Tensor, int, int, int]:
    """The sizes of blocks, their lists and counts, and the steps in memory from head to head, from list to list, and of counts."""
    indices, counts = blocks.indices.contiguous(), blocks.counts.contiguous()
    heads, lists, most = indices.shape
    by_head = heads > 1
    return blocks.query_block, blocks.key_block, indices, counts, by_head * lists * most, most, by_head * lists
