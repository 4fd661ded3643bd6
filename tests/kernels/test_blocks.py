"""Lists of blocks that kernels could not read by are refused in a sentence."""

from __future__ import annotations

import pytest
import torch

from hunyuan_video.kernels.blocks import BlockLists

GOOD = BlockLists(torch.tensor([[[0, 1], [1, 9]]], dtype=torch.int32), torch.tensor([[2, 1]], dtype=torch.int32), 64, 64)


def test_what_stands_behind_a_row_is_not_looked_at():
    GOOD.check(heads=3, queries=100, keys=128)


@pytest.mark.parametrize(("lists", "sentence"), [
    (GOOD._replace(indices=GOOD.indices.long()), "indices are torch.int64 and counts torch.int32; both are int32"),
    (GOOD._replace(query_block=256), "blocks are of 256 queries and 64 keys; they are of 64 or 128"),
    (GOOD._replace(query_block=128), r"100 queries of 3 heads need \[3 or 1, 1, most\]"),
    (GOOD._replace(indices=GOOD.indices.expand(2, -1, -1), counts=GOOD.counts.expand(2, -1)), "indices are .2, 2, 2. and counts .2, 2.;"),
    (GOOD._replace(counts=GOOD.counts + 1), "counts are 2 to 3; each is 1 to 2"),
    (GOOD._replace(counts=GOOD.counts - 1), "counts are 0 to 1; each is 1 to 2"),
    (GOOD._replace(indices=GOOD.indices + 1), "some indices are beyond the 2 blocks of keys"),
    (GOOD._replace(indices=GOOD.indices - 1), "some indices are beyond the 2 blocks of keys"),
])  # fmt: skip
def test_what_does_not_fit_is_said(lists, sentence):
    with pytest.raises(ValueError, match=f"These block lists do not fit: .*{sentence}"):
        lists.check(heads=3, queries=100, keys=128)
