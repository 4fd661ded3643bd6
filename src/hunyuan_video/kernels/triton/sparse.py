"""Attention of each block of queries to a list of blocks of keys, on a GPU.

Letters: B batch, L query tokens, S key tokens, H heads, D head dimension.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hunyuan_video.kernels.blocks import BlockLists
from hunyuan_video.kernels.triton.attention import launch, side_by_side
from hunyuan_video.kernels.triton.eight_bits import Numbers, attend_in_8_bits
from hunyuan_video.kernels.triton.tiles import tiles_for


def block_sparse(
    q: Float[Tensor, "B L H D"],
    k: Float[Tensor, "B S H D"],
    v: Float[Tensor, "B S H D"],
    blocks: BlockLists,
    numbers: Numbers | None = None,
) -> Float[Tensor, "B L H D"]:
    """Attention with the keys of `blocks` alone, as if there were no others; in the input's dtype, or in 8 bits. In float32, which
    tensor cores do not multiply, it is slow."""
    blocks.check(q.shape[2], q.shape[1], k.shape[1])
    if numbers is not None:
        return attend_in_8_bits(q, k, v, numbers, blocks)
    q, k, v = side_by_side(q, k, v)
    out, tiles = torch.empty_like(q, memory_format=torch.contiguous_format), tiles_for(q.device, 8 * q.itemsize)
    return launch(q, k, v, out, k.shape[1], tiles, blocks=blocks)
