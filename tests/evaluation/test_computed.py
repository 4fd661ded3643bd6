"""What is counted is what the plan's arithmetic says, and follows what skips, cuts or thins out work."""

from __future__ import annotations

import math

import pytest
import torch

from hunyuan_video.distributed.cost import Step
from hunyuan_video.distributed.pipefusion import one_step_old
from hunyuan_video.evaluation.computed import counting
from hunyuan_video.kernels.choice import use_attention
from hunyuan_video.models.attention import sdpa

GRID, TEXT = (2, 4, 6), 7
TOKENS = math.prod(GRID)


@pytest.fixture
def step(tiny_transformer):
    """One step of a tiny model, as a function, and what the plan's arithmetic says of its blocks."""
    config = tiny_transformer.config
    states, mask = torch.randn(1, TEXT, config.text_dim), torch.ones(1, TEXT, dtype=torch.bool)
    condition = tiny_transformer.condition(states, mask, torch.randn(1, config.pooled_dim), torch.full((1,), 6000.0))
    x = torch.randn(1, config.in_channels, GRID[0], 2 * GRID[1], 2 * GRID[2])

    def run() -> torch.Tensor:
        return tiny_transformer(x, torch.full((1,), 500.0), condition)

    return run


def by_the_plan(config) -> float:
    work = Step(TOKENS, TEXT, config=config).work(0)
    final = 2 * config.hidden_size * math.prod(config.patch_size) * config.out_channels * TOKENS  # in no block
    return work.tokens - final + work.attention


def test_a_step_counts_as_the_plan_does(tiny_transformer, step):
    with counting(tiny_transformer) as computed:
        step()
        step()
    assert computed.operations == pytest.approx(2 * by_the_plan(tiny_transformer.config))
    assert computed.passes == pytest.approx(2) and computed.density == 1


def test_counting_changes_nothing_and_ends_with_its_block(tiny_transformer, step):
    before = step()
    with counting(tiny_transformer) as computed:
        inside = step()
    counted = computed.operations
    step()
    assert torch.equal(before, inside) and computed.operations == counted


def test_patches_of_a_pass_are_one_pass(tiny_transformer, step):
    with counting(tiny_transformer) as computed, one_step_old(tiny_transformer, 4, 1):
        step()
        step()
    assert computed.passes == pytest.approx(2)
    assert computed.operations == pytest.approx(2 * by_the_plan(tiny_transformer.config))


def test_a_trunk_that_is_skipped_computes_nothing(tiny_transformer, step):
    tiny_transformer.trunk = lambda model, img, txt, ctx: img
    with counting(tiny_transformer) as computed:
        step()
    assert computed.passes == computed.operations == 0 and computed.density == 1


def test_a_kernel_that_leaves_pairs_out_says_so(tiny_transformer, step):
    def sparse(q, k, v, mask):
        return sdpa(q, k, v, mask)

    sparse.density = 0.25
    use_attention(tiny_transformer, sparse)
    with counting(tiny_transformer) as computed:
        step()
    attention = Step(TOKENS, TEXT, config=tiny_transformer.config).work(0).attention
    assert computed.density == 0.25
    assert computed.operations == pytest.approx(by_the_plan(tiny_transformer.config) - 0.75 * attention)
