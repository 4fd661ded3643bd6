"""Lean blocks compute what the model's own do, of every kind of layer and token, and little beside the tokens is alive."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from adapters import random_lora
from conftest import TINY
from measure import randomize
from torch import nn

from hunyuan_video import plan
from hunyuan_video.config import FullSampling
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.models.vae import VAEConfig
from hunyuan_video.transforms import lean
from hunyuan_video.transforms.as_stored import StackedLinear, StoredLinear
from hunyuan_video.transforms.fp8 import Fp8Linear, multiply_in_8_bits
from hunyuan_video.transforms.lora import LoraLinear, apply_lora
from hunyuan_video.transforms.swap import prepared

GIB = 2**30


@contextmanager
def pieces(tokens: int, group_bytes: int):
    with patch.dict(lean.CHUNK, cpu=tokens), patch.object(lean, "GROUP_BYTES", group_bytes):
        yield


@torch.no_grad()
def velocities(model: HunyuanVideoTransformer, batch: int = 1, clean_frames: tuple[int, ...] = ()) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the model, and of a lean copy."""
    draw = torch.Generator().manual_seed(3)
    shape = (batch, TINY.in_channels, 3, 6, 4)
    x, states, pooled = (torch.randn(size, generator=draw) for size in (shape, (batch, 5, TINY.text_dim), (batch, TINY.pooled_dim)))
    mask = torch.arange(5)[None] < torch.tensor([[5], [3]])[:batch]  # a batch of prompts that differ in length
    t = torch.full((batch,), 400.0)
    thin = copy.deepcopy(model)
    lean.lean_blocks(thin)

    def velocity(each: HunyuanVideoTransformer) -> torch.Tensor:
        return each(x, t, each.condition(states, mask, pooled, torch.full((batch,), 4000.0)), clean_frames)

    return velocity(model), velocity(thin)


@pytest.fixture
def model() -> HunyuanVideoTransformer:
    return randomize(HunyuanVideoTransformer(TINY), std=0.15)


@pytest.mark.parametrize("tokens", [1, 7, 1000])
@pytest.mark.parametrize("group_bytes", [1, 10**9])
def test_a_lean_model_is_the_model(model, tokens, group_bytes):
    with pieces(tokens, group_bytes):
        plain, thin = velocities(model)
    torch.testing.assert_close(thin, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("clean_frames", [(), (0,), (0, 1), (0, 2), (1,)])
def test_clean_frames_have_modulation_of_their_own(model, clean_frames):
    with pieces(7, 1):
        plain, thin = velocities(model, clean_frames=clean_frames)
    torch.testing.assert_close(thin, plain, atol=1e-5, rtol=1e-5)


def test_prompts_of_different_length_share_a_batch(model):
    with pieces(7, 1):
        plain, thin = velocities(model, batch=2)
    torch.testing.assert_close(thin, plain, atol=1e-5, rtol=1e-5)


def test_layers_of_other_kinds_stay_what_they_are(model):
    apply_lora(model, random_lora(model, seed=1), 0.7)
    with pieces(7, 1):
        plain, thin = velocities(model)
    torch.testing.assert_close(thin, plain, atol=1e-5, rtol=1e-5)


def kinds() -> dict[str, nn.Module]:
    """A linear layer of 12 outputs of each kind."""
    plain = randomize(nn.Linear(16, 12), std=0.3)
    adapter = next(iter(random_lora(nn.ModuleDict({"double_blocks": plain}), seed=1).layers.values()))
    stored = StoredLinear(16, 12)
    stored.load_state_dict(plain.state_dict())
    return {
        "plain": plain,
        "without a bias": randomize(nn.Linear(16, 12, bias=False), std=0.3),
        "stored": stored.bfloat16(),
        "in pieces": StackedLinear([plain.weight[:5].bfloat16(), plain.weight[5:6].bfloat16(), plain.weight[6:].bfloat16()], plain.bias),
        "8 bits": Fp8Linear.from_linear(plain),
        "adapted": LoraLinear(plain, adapter, 0.5),
        "adapted 8 bits": LoraLinear(Fp8Linear.from_linear(plain), adapter, 0.5),
    }


@pytest.mark.parametrize("name", kinds())
@pytest.mark.parametrize("rows", [None, [slice(3, 9)], [slice(0, 2), slice(4, 6), slice(10, 12)]])
@torch.no_grad()
def test_a_layer_that_is_prepared_gives_the_outputs_that_are_asked_for(name, rows):
    layer, x = kinds()[name], torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    if name == "stored":  # its bias is converted when it is loaded
        layer.bias = nn.Parameter(layer.bias.float(), requires_grad=False)
    expected = layer(x) if rows is None else torch.cat([layer(x)[:, each] for each in rows], dim=1)
    torch.testing.assert_close(prepared(layer, x.dtype, rows)(x), expected)


def test_what_is_expanded_is_expanded_once_a_block(model, monkeypatch):
    from hunyuan_video.transforms import fp8

    fp8.quantize(model)
    lean.lean_blocks(model)
    times = []
    monkeypatch.setattr(fp8, "expand", lambda weight, *rest, do=fp8.expand: times.append(weight) or do(weight, *rest))
    with pieces(1000, 10**9):
        velocities(model)
    at_once = len(times)
    times.clear()
    with pieces(3, 10**9):
        velocities(model)
    assert len(times) == at_once


def test_products_in_8_bits_are_asked_for_through_the_layer(model):
    from hunyuan_video.transforms import fp8

    fp8.quantize(model)
    multiply_in_8_bits(model)
    layer = next(module for module in model.modules() if isinstance(module, Fp8Linear) and module.product is fp8.scaled)
    seen = []
    layer.product = lambda x, weight, *_: seen.append(weight.dtype) or x.new_zeros(*x.shape[:-1], len(weight))
    prepared(layer, torch.float32, [slice(0, 8)])(torch.zeros(2, layer.weight.shape[1]))
    assert seen == [fp8.FP8]


def test_activations_of_129_frames_in_720p_take_less_than_2_3_gib():
    """Of one block of each kind: in all others it is the same memory."""
    config = replace(TransformerConfig(), num_double_blocks=1, num_single_blocks=1)
    with torch.device("meta"):
        model = HunyuanVideoTransformer(config).bfloat16()
    video = FullSampling()
    shape = VAEConfig().latent_shape(video.num_frames, video.height, video.width)
    before = plan.count(model, lambda: plan.denoise(model, shape)).most
    lean.lean_blocks(model)
    after = plan.count(model, lambda: plan.denoise(model, shape)).most
    assert before > 8 * GIB
    assert after < 2.3 * GIB, after / GIB
