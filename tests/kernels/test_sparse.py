"""Attention of blocks to lists of blocks equals attention with a mask."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hunyuan_video.kernels.blocks import BlockLists
from hunyuan_video.kernels.native import paths
from hunyuan_video.kernels.native.build import NotBuiltError
from hunyuan_video.kernels.sparse import attend_to_blocks, seen_pairs
from hunyuan_video.models.attention import chunked, matmul, sdpa

TOKENS, BLOCK = 150, 64  # the last of three blocks is shorter


def lists(heads: list[list[list[int]]]) -> BlockLists:
    """Of the blocks that each head's blocks of queries see; what stands behind them must not be read."""
    counts = torch.tensor([[len(row) for row in head] for head in heads], dtype=torch.int32)
    indices = torch.tensor([[row + [77] * (3 - len(row)) for row in head] for head in heads], dtype=torch.int32)
    return BlockLists(indices, counts, BLOCK, BLOCK)


ALIKE = [[[0, 2], [0, 2], [0, 1, 2]]]
APART = [[[2, 0], [1], [0, 1, 2]], [[0], [0, 1], [2]]]
KINDS = {"all heads alike": lists(ALIKE), "each its own": lists(APART)}


def masked(q: Tensor, k: Tensor, v: Tensor, given: BlockLists) -> Tensor:
    seen = torch.zeros(q.shape[2], TOKENS, TOKENS, dtype=torch.bool)
    for head in range(q.shape[2]):
        own = min(head, len(given.counts) - 1)
        for block, count in enumerate(given.counts[own].tolist()):
            for key in given.indices[own, block, :count].tolist():
                seen[head, block * BLOCK : (block + 1) * BLOCK, key * BLOCK : (key + 1) * BLOCK] = True
    return torch.cat([matmul(*(x[:, :, [head]] for x in (q, k, v)), seen[None, head]) for head in range(q.shape[2])], dim=2)


@pytest.mark.parametrize("kernel", [sdpa, chunked])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_attention_with_a_mask(kernel, kind):
    q, k, v = torch.randn(3, 1, TOKENS, 2, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(attend_to_blocks(kernel, q, k, v, KINDS[kind]), masked(q, k, v, KINDS[kind]), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "dtype"), [(name, dtype) for name, path in paths.PATHS.items() for dtype in path.dtypes])
def test_native_kernels_read_lists_where_keys_lie(name, dtype, kind):
    try:
        kernel = paths.load(name)
    except NotBuiltError as error:
        pytest.skip(str(error))
    q, k, v = torch.randn(3, 1, TOKENS, 2, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = masked(q.double(), k.double(), v.double(), KINDS[kind])
    far = (attend_to_blocks(kernel, q, k, v, KINDS[kind]) - expected).norm() / expected.norm()
    assert far < (1e-6 if dtype == torch.float32 else 3e-3)


def test_lists_of_all_blocks_are_the_kernel_itself_in_one_call():
    q, k, v = torch.randn(3, 1, TOKENS, 2, 16, generator=torch.Generator().manual_seed(0))
    calls = []

    def watched(*given):
        calls.append(tuple(given[1].shape))
        return sdpa(*given)

    assert torch.equal(attend_to_blocks(watched, q, k, v, lists([[[0, 1, 2]] * 3])), sdpa(q, k, v, None))
    assert calls == [(1, TOKENS, 2, 16)]


def test_pairs_are_counted_with_the_shorter_last_block():
    rest = TOKENS - 2 * BLOCK
    assert seen_pairs(lists(ALIKE), TOKENS) == pytest.approx((2 * BLOCK * (BLOCK + rest) + rest * TOKENS) / TOKENS**2)
    own = BLOCK * (BLOCK + rest) + BLOCK * BLOCK + rest * TOKENS, BLOCK * BLOCK + BLOCK * 2 * BLOCK + rest * rest
    assert seen_pairs(lists(APART), TOKENS) == pytest.approx(sum(own) / 2 / TOKENS**2)
