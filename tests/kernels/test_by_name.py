"""Kernels that are chosen by name alone: where they are PyTorch's, and what a plan counts of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hunyuan_video.kernels.triton.by_name import BY_NAME, FEW
from hunyuan_video.models.attention import sdpa
from hunyuan_video.plan import count


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("masked", [False, True])
def test_few_queries_and_masks_are_computed_exactly(name, masked):
    tokens = FEW + 1 if masked else 50
    q, k, v = torch.randn(3, 1, tokens, 1, 64, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 1, tokens, dtype=torch.bool) if masked else None
    assert torch.equal(BY_NAME[name](q, k, v, mask), sdpa(q, k, v, mask))


@pytest.mark.parametrize("name", BY_NAME)
def test_a_plan_counts_the_copies_in_8_bits(name):
    x = torch.empty(1, 2 * FEW, 2, 64, dtype=torch.bfloat16, device="meta")
    exact, rounded = (count(nn.Module(), lambda kernel=kernel: kernel(x, x, x, None)) for kernel in (sdpa, BY_NAME[name]))
    assert rounded.operations == exact.operations and rounded.most == exact.most + 3 * x.numel()
