"""Any latent frames may hold data without noise, however tokens are cut, moved and shared out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from unittest.mock import patch

import pytest
import torch
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from measure import randomize
from torch import Tensor

from hunyuan_video.models.rope import Rope
from hunyuan_video.models.transformer import Context, HunyuanVideoTransformer, Modulation, stretches
from hunyuan_video.transforms import lean
from hunyuan_video.transforms.sparse import boxes_order, in_boxes

FRAMES, OF_ONE = 5, 6
SUBSETS = st.sets(st.integers(0, FRAMES - 1))


@pytest.fixture(scope="module")
def model() -> HunyuanVideoTransformer:
    return randomize(HunyuanVideoTransformer(TINY), std=0.15)


def calls(model: HunyuanVideoTransformer, x: Tensor, clean_frames: Sequence[int], t: float = 700.0) -> Tensor:
    states, pooled = torch.ones(1, 3, TINY.text_dim), torch.ones(1, TINY.pooled_dim)
    condition = model.condition(states, torch.ones(1, 3, dtype=torch.bool), pooled, torch.full((1,), 4000.0))
    with torch.no_grad():
        return model(x, torch.full((1,), t), condition, clean_frames)


def latents() -> Tensor:
    return torch.randn(1, TINY.in_channels, FRAMES, 4, 6, generator=torch.Generator().manual_seed(3))


@given(SUBSETS)
@settings(max_examples=12, deadline=None)
def test_marks_and_stretches_are_the_same(marked):
    found = stretches([place in marked for place in range(FRAMES)])
    assert {place for start, stop in found for place in range(start, stop)} == marked
    assert all(before[1] < after[0] for before, after in pairwise(found))


@given(SUBSETS, st.data())
@settings(max_examples=25, deadline=None)
def test_a_part_of_the_tokens_is_modulated_as_in_the_whole(marked, data):
    """As in the shares of ranks and the patches of a pipeline."""
    total = FRAMES * OF_ONE
    start = data.draw(st.integers(0, total - 1))
    num_tokens = data.draw(st.integers(1, total - start))
    table, clean = torch.zeros(total, 1, 2), tuple((a * OF_ONE, b * OF_ONE) for a, b in stretches([n in marked for n in range(FRAMES)]))
    modulation = randomize(Modulation(4, 2))
    ctx = Context(torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(0)), clean, Rope(table, table), None)
    whole, part = modulation.per_token(ctx, total), modulation.per_token(ctx.of_part(start, num_tokens), num_tokens)
    for of_whole, of_part in zip(whole, part, strict=True):
        expected = of_whole.expand(-1, total, -1)[:, start : start + num_tokens]
        torch.testing.assert_close(of_part.expand(-1, num_tokens, -1), expected)


@given(SUBSETS, st.integers(1, 40), st.booleans())
@settings(max_examples=20, deadline=None)
def test_the_velocity_is_the_same_in_chunks_and_in_boxes(model, marked, chunk, together):
    """Boxes may keep the frames together or not."""
    x, clean = latents(), tuple(sorted(marked))
    expected = calls(model, x, clean)
    given_predict, given_trunk = model.predict, model.trunk
    kinds = [type(block) for block in model.blocks]
    try:
        model.predict = in_boxes(given_predict, boxes_order((FRAMES, 2, 3), clean if together else ()))
        lean.lean_blocks(model)
        with patch.dict(lean.CHUNK, cpu=chunk):
            found = calls(model, x, clean)
    finally:
        model.predict, model.trunk = given_predict, given_trunk
        for block, kind in zip(model.blocks, kinds, strict=True):
            block.__class__ = kind
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_each_frame_that_is_given_counts(model):
    """Its tokens are modulated otherwise than noisy ones, and others than its own are not."""
    x = latents()
    found = [calls(model, x, clean) for clean in ((), (0,), (4,), (0, 4))]
    assert all(not torch.allclose(a, b, atol=1e-4) for place, a in enumerate(found) for b in found[:place])


def test_order_and_kind_of_the_numbers_do_not_matter(model):
    x = latents()
    assert torch.equal(calls(model, x, (4, 0)), calls(model, x, [0, 4]))
