"""Which blocks of keys each block of queries sees: what a sparse attention is told, whoever chose it and whatever computes it.

Letters: h heads (or 1, the same for all), q blocks of queries, most: the most blocks of keys that any of them sees.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor


class BlockLists(NamedTuple):
    """For each head and each block of queries the numbers of the blocks of keys that it sees, none twice, at least one, in any order.

    The last block of queries and of keys may be shorter than the others. Both sizes are 64 or 128. Of `indices` only the first `counts`
    of a row are read; whatever stands behind them.
    """

    indices: Int[Tensor, "h q most"]  # int32
    counts: Int[Tensor, "h q"]  # int32
    query_block: int
    key_block: int

    def check(self, heads: int, queries: int, keys: int) -> None:
        """Kernels read by these numbers, so they must be right: raises a ValueError that says what is not. On a GPU their values are not
        looked at, for that would wait for it."""
        indices, counts, query_block, key_block = self
        rows, blocks = (-(-length // size) if size else 0 for length, size in ((queries, query_block), (keys, key_block)))
        if not {query_block, key_block} <= {64, 128}:
            wrong = f"blocks are of {query_block} queries and {key_block} keys; they are of 64 or 128"
        elif not indices.dtype == counts.dtype == torch.int32:
            wrong = f"indices are {indices.dtype} and counts {counts.dtype}; both are int32"
        elif indices.dim() != 3 or indices.shape[:2] != counts.shape or counts.shape[1] != rows or len(counts) not in (1, heads):
            wrong = (
                f"indices are {list(indices.shape)} and counts {list(counts.shape)}; {queries} queries of {heads} heads need "
                f"[{heads} or 1, {rows}, most] and [{heads} or 1, {rows}]"
            )
        elif counts.is_cpu and not _all_between(counts, 1, indices.shape[2]):
            wrong = f"counts are {counts.min()} to {counts.max()}; each is 1 to {indices.shape[2]}, as many as there are indices"
        elif indices.is_cpu and not _all_between(indices[torch.arange(indices.shape[2]) < counts.unsqueeze(-1)], 0, blocks - 1):
            wrong = f"some indices are beyond the {blocks} blocks of keys"
        else:
            return
        raise ValueError(f"These block lists do not fit: {wrong}.")


def _all_between(x: Tensor, least: int, most: int) -> bool:
    return bool((x >= least).all() and (x <= most).all())
