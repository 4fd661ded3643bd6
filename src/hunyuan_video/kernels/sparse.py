"""Attention of blocks of queries to some blocks of keys each, by a dense kernel: what it sees is copied together first.

Neighbouring blocks of queries that see the same keys go through the kernel together, for kernels are fast only where there are many
queries: on a CPU PyTorch's takes smaller steps, and is slower, below 768.

Letters: S tokens, H heads, D head dimension; h of lists (H, or 1 for all heads alike).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hunyuan_video.kernels import triton
from hunyuan_video.kernels.blocks import BlockLists
from hunyuan_video.kernels.native.paths import Native
from hunyuan_video.kernels.triton import by_name
from hunyuan_video.models.attention import AttentionFn

HEAD_DIMS = (64, 128)  # of the kernel in Triton


def attend_to_blocks(
    kernel: AttentionFn, q: Float[Tensor, "1 S H D"], k: Float[Tensor, "1 S H D"], v: Float[Tensor, "1 S H D"], lists: BlockLists
) -> Float[Tensor, "1 S H D"]:
    """Each block of queries sees the keys that `lists` name for it, and no others. On a GPU with Triton one kernel reads them where they
    lie, in the numbers of the kernel that is there; the native ones on a CPU take lists, too."""
    if isinstance(kernel, Native):
        return kernel.of_blocks(q, k, v, lists)
    if q.shape[-1] in HEAD_DIMS and triton.works(q.device):
        from hunyuan_video.kernels.triton.sparse import block_sparse  # which needs Triton

        return block_sparse(q, k, v, lists, next((name for name, each in by_name.BY_NAME.items() if each is kernel), None))
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    keys, values = (x[0].transpose(0, 1) for x in (k, v))  # heads first, so that what is copied of one lies together
    for first, last in _alike(lists):
        rows = slice(first * lists.query_block, last * lists.query_block)
        for count in lists.counts[:, first].unique().tolist():
            heads = (lists.counts[:, first] == count).nonzero()[:, 0]
            tokens = _tokens(lists.indices[heads, first, :count], lists.key_block, k.shape[1])
            if len(lists.counts) == 1:
                seen_k, seen_v = (x.index_select(1, tokens[0]) for x in (keys, values))
                seen_by = slice(None)
            else:
                of_each = list(zip(heads.tolist(), tokens, strict=True))
                seen_k, seen_v = (torch.stack([x[head].index_select(0, seen) for head, seen in of_each]) for x in (keys, values))
                seen_by = heads
            out[:, rows, seen_by] = kernel(q[:, rows, seen_by], seen_k.transpose(0, 1)[None], seen_v.transpose(0, 1)[None], None)
    return out


def seen_pairs(lists: BlockLists, num_tokens: int) -> float:
    """Of all pairs of a query and a key, the share that is computed, mean over the heads."""
    queries = _sizes(num_tokens, lists.query_block, lists.counts.shape[1]).to(lists.counts.device)
    is_read = torch.arange(lists.indices.shape[2], device=lists.indices.device) < lists.counts.unsqueeze(-1)
    keys = _sizes(num_tokens, lists.key_block, -(-num_tokens // lists.key_block)).to(lists.indices.device)
    seen = (keys[lists.indices.long().clamp(max=len(keys) - 1)] * is_read).sum(-1)
    return (seen * queries).sum().item() / len(lists.counts) / num_tokens**2


def _sizes(num_tokens: int, block: int, count: int) -> Int[Tensor, " count"]:
    return (num_tokens - block * torch.arange(count)).clamp(max=block)


def _alike(lists: BlockLists) -> list[tuple[int, int]]:
    """Neighbouring blocks of queries whose lists are the same in all heads: from, to."""
    is_read = torch.arange(lists.indices.shape[2], device=lists.indices.device) < lists.counts.unsqueeze(-1)
    read = lists.indices.masked_fill(~is_read, -1)
    begins = (read[:, 1:] != read[:, :-1]).any(dim=-1).any(dim=0).nonzero()[:, 0] + 1
    edges = [0, *begins.tolist(), lists.counts.shape[1]]
    return list(pairwise(edges))


def _tokens(blocks: Int[Tensor, "h n"], size: int, num_tokens: int) -> list[Int[Tensor, " m"]]:
    """The tokens of blocks, for each head; the last block may be shorter."""
    tokens = (blocks.long().unsqueeze(-1) * size + torch.arange(size, device=blocks.device)).flatten(1)
    return [row[row < num_tokens] for row in tokens]
