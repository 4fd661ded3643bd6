"""Which blocks of keys each block of queries sees: what a sparse attention is told, whoever chose it and whatever computes it.

Letters: h heads (or 1, the same for all), q blocks of queries, most: the most blocks of keys that any of them sees.
"""

from __future__ import annotations

from typing import NamedTuple

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
