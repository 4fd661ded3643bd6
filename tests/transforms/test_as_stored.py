"""Weights used as they are stored: the same numbers as if they had been converted while loading."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import TINY, randomize
from safetensors.torch import save_file

from hunyuan_video import checkpoint, weights
from hunyuan_video.checkpoint import diffusers
from hunyuan_video.checkpoint.convert import write_safetensors
from hunyuan_video.checkpoint.lazy import lazy
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.transforms import fp8
from hunyuan_video.transforms.as_stored import StackedLinear, StoredEmbedding, StoredLinear
from hunyuan_video.transforms.lora import add_lora, apply_lora, lora_of

CPU = torch.device("cpu")


@pytest.fixture
def in_half(tmp_path: Path) -> Path:
    """A transformer stored in float16."""
    path = tmp_path / "model.safetensors"
    save_file(randomize(HunyuanVideoTransformer(TINY)).half().state_dict(), path)
    return path


@pytest.fixture
def in_pieces(tmp_path: Path) -> Path:
    """A transformer stored as Diffusers does, q, k and v apart, in bfloat16."""
    folder = tmp_path / "transformer"
    folder.mkdir()
    state = randomize(HunyuanVideoTransformer(TINY)).bfloat16().state_dict()
    write_safetensors(diffusers.from_official(lazy(state)), folder / "diffusion_pytorch_model.safetensors")
    return folder


@pytest.fixture
def all_are_large(monkeypatch) -> None:
    monkeypatch.setattr(weights, "LARGE", 0)


def step(model: HunyuanVideoTransformer) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x, states, pooled = (torch.randn(shape, generator=generator) for shape in ((1, 4, 2, 4, 4), (1, 5, 24), (1, 20)))
    dtype = model.img_in.proj.weight.dtype
    with torch.no_grad():
        mask, guidance = torch.ones(1, 5, dtype=torch.bool), torch.full((1,), 6000.0).to(dtype)
        condition = model.condition(states.to(dtype), mask, pooled.to(dtype), guidance)
        return model(x, torch.full((1,), 500.0), condition)


def kinds(model: torch.nn.Module) -> set[type]:
    return {type(module) for module in model.modules()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_converting_at_every_use_changes_no_bit(in_half, monkeypatch, dtype):
    converted = checkpoint.load_transformer(in_half, dtype, CPU)
    monkeypatch.setattr(weights, "LARGE", 0)
    stored = checkpoint.load_transformer(in_half, dtype, CPU)
    assert StoredLinear in kinds(stored) and StoredLinear not in kinds(converted)
    assert stored.double_blocks[0].img_attn_qkv.weight.dtype == torch.float16
    assert torch.equal(step(stored), step(converted))


def test_pieces_of_a_weight_give_what_the_whole_gives(in_pieces, monkeypatch):
    whole = checkpoint.load_transformer(in_pieces, torch.float32, CPU)
    monkeypatch.setattr(weights, "LARGE", 0)
    pieces = checkpoint.load_transformer(in_pieces, torch.float32, CPU)
    assert StackedLinear in kinds(pieces)
    assert torch.equal(pieces.single_blocks[0].linear1.weight.float(), whole.single_blocks[0].linear1.weight)
    torch.testing.assert_close(step(pieces), step(whole), atol=1e-5, rtol=1e-5)


def test_what_is_stored_as_it_is_computed_needs_no_other_layers(in_half, all_are_large):
    assert kinds(checkpoint.load_transformer(in_half, torch.float16, CPU)).isdisjoint({StoredLinear, StackedLinear, StoredEmbedding})


def test_elsewhere_than_on_a_cpu_weights_are_converted_once(in_half, all_are_large):
    assert checkpoint.stays_in_file(in_half, CPU) and not checkpoint.stays_in_file(in_half, torch.device("cuda"))


def test_the_language_model_stays_as_stored_too(official_tree, all_are_large):
    llm, state = checkpoint.read_llm(official_tree / "text_encoder")
    checkpoint.fill(llm, state, official_tree, torch.bfloat16, CPU, as_stored=True)  # it is stored in float32
    assert StoredEmbedding in kinds(llm)
    assert llm(input_ids=torch.tensor([[1, 2]])).last_hidden_state.dtype == torch.bfloat16


@pytest.mark.parametrize("stored", ["in_half", "in_pieces"])
def test_adapters_stand_beside_weights_as_they_are_stored(request, stored, all_are_large):
    path = request.getfixturevalue(stored)
    donor = HunyuanVideoTransformer(TINY)
    add_lora(donor, 2, 2.0)
    randomize(donor)
    model = checkpoint.load_transformer(path, torch.float32, CPU)
    before = step(model)
    apply_lora(model, lora_of(donor))
    assert not torch.allclose(step(model), before)


def test_8_bits_are_made_of_weights_as_they_are_stored(in_half, monkeypatch):
    converted = checkpoint.load_transformer(in_half, torch.float16, CPU).float()
    monkeypatch.setattr(weights, "LARGE", 0)
    stored = checkpoint.load_transformer(in_half, torch.float32, CPU)
    for model in (converted, stored):
        fp8.quantize(model)
    assert torch.equal(step(stored), step(converted))
