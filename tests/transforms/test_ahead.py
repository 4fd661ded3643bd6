"""What is computed ahead of a video's steps is what each step would have computed, and its weights are not needed after that."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import pytest
import torch
from conftest import TINY
from measure import randomize
from torch import nn

from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.transforms.ahead import ahead, early_parts, early_tensors
from hunyuan_video.transforms.fp8 import quantize
from hunyuan_video.transforms.lean import lean_blocks

TS = [torch.tensor([t]) for t in (1000.0, 622.5, 31.25)]


def not_moved(_module: nn.Module):
    return nullcontext()


@pytest.fixture
def model() -> HunyuanVideoTransformer:
    return randomize(HunyuanVideoTransformer(TINY), std=0.15)


def inputs(seed: int) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    states, pooled = torch.randn(1, 5 + seed, TINY.text_dim, generator=draw), torch.randn(1, TINY.pooled_dim, generator=draw)
    return states, torch.ones(1, 5 + seed, dtype=torch.bool), pooled, torch.full((1,), 4000.0)


X = torch.randn(1, TINY.in_channels, 3, 6, 4, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("clean_frames", [(), (0,)])
@torch.no_grad()
def test_every_step_of_both_branches_is_what_it_would_have_been(model, clean_frames):
    expected = [[model(X, t, model.condition(*inputs(branch)), clean_frames) for t in TS] for branch in range(2)]
    with ahead(model, TS, clean_frames, not_moved) as prepare:
        conditions = [prepare(branch, *inputs(branch)) for branch in range(2)]
        for step in (2, 0, 1):  # in any order
            for branch, condition in enumerate(conditions):
                torch.testing.assert_close(model(X, TS[step], condition, clean_frames), expected[branch][step], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_prompts_that_differ_only_in_text_are_told_apart(model):
    states, mask, pooled, guidance = inputs(0)
    with ahead(model, TS, (), not_moved) as prepare:
        one, other = (model(X, TS[0], prepare(branch, (1 - 2 * branch) * states, mask, pooled, guidance)) for branch in range(2))
    assert not torch.allclose(one, other)


@torch.no_grad()
def test_a_noise_level_that_was_not_told_before_is_refused(model):
    with ahead(model, TS, (), not_moved) as prepare, pytest.raises(ValueError, match="noise level 500, which was not among those"):
        model(X, torch.tensor([500.0]), prepare(0, *inputs(0)))


@torch.no_grad()
def test_the_model_is_whole_again_also_after_an_error(model):
    names = [*model.state_dict()]
    with pytest.raises(ValueError, match="no text token"), ahead(model, TS, (), not_moved) as prepare:
        prepare(0, inputs(0)[0], torch.zeros(1, 5, dtype=torch.bool), *inputs(0)[2:])
    assert [*model.state_dict()] == names
    assert "conditioning" not in vars(model)


@torch.no_grad()
def test_weights_visit_the_device_one_layer_at_a_time_and_before_the_first_step(model):
    here: list[nn.Module] = []
    most = []

    @contextmanager
    def bring(module: nn.Module):
        here.append(module)
        most.append(len(here))
        yield
        here.remove(module)

    with ahead(model, TS, (), bring) as prepare:
        condition = prepare(0, *inputs(0))
        visits = len(most)
        model(X, TS[0], condition)
    assert max(most) == 1
    assert visits == len(most) == len(early_parts(model)) - 3 + 1  # the embedders come together


@torch.no_grad()
def test_8_bit_modulation_is_read_once(model):
    quantize(model)
    expected = model(X, TS[1], model.condition(*inputs(0)))
    with ahead(model, TS, (), not_moved) as prepare:
        torch.testing.assert_close(model(X, TS[1], prepare(0, *inputs(0))), expected, atol=1e-5, rtol=1e-5)


def test_of_the_released_model_7_gigabytes_are_let_go():
    with torch.device("meta"):
        model = HunyuanVideoTransformer(TransformerConfig()).bfloat16()
    whole = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert whole / 1e9 == pytest.approx(25.64, abs=0.01)
    assert (whole - sum(tensor.nbytes for tensor in early_tensors(model).values())) / 1e9 == pytest.approx(18.15, abs=0.05)


@torch.no_grad()
def test_blocks_that_work_in_place_do_not_change_what_is_known(model):
    trunk = model.trunk
    lean_blocks(model)
    model.trunk = trunk  # which gives them the very text
    with ahead(model, TS, (), not_moved) as prepare:
        condition = prepare(0, *inputs(0))
        torch.testing.assert_close(model(X, TS[1], condition), model(X, TS[1], condition), atol=0, rtol=0)
