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


def as_stored(path: Path, dtype: torch.dtype) -> HunyuanVideoTransformer:
    return checkpoint.load_transformer(path, dtype, CPU, as_stored=True)


def converted(path: Path, dtype: torch.dtype) -> HunyuanVideoTransformer:
    return checkpoint.load_transformer(path, dtype, CPU)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_converting_at_every_use_changes_no_bit(in_half, dtype):
    model, other = as_stored(in_half, dtype), converted(in_half, dtype)
    assert StoredLinear in kinds(model) and StoredLinear not in kinds(other)
    assert model.double_blocks[0].img_attn_qkv.weight.dtype == torch.float16
    assert torch.equal(step(model), step(other))


def test_the_pieces_of_a_weight_are_its_rows(in_pieces):
    pieces, whole = as_stored(in_pieces, torch.float32), converted(in_pieces, torch.float32)
    assert StackedLinear in kinds(pieces)
    assert torch.equal(pieces.single_blocks[0].linear1.weight.float(), whole.single_blocks[0].linear1.weight)
    torch.testing.assert_close(step(pieces), step(whole), atol=1e-5, rtol=1e-5)  # sums of another width have other last bits


def test_pieces_round_once_in_bfloat16():
    weight, bias, x = torch.randn(64, 32).bfloat16(), torch.randn(64).bfloat16(), torch.randn(9, 32).bfloat16()
    pieces = StackedLinear(list(weight.split([16, 48])), bias)
    exact = torch.nn.functional.linear(x.double(), weight.double(), bias.double())
    assert (pieces(x) == exact.bfloat16()).float().mean() > 0.99  # a second rounding would move one in four


def test_what_is_stored_as_it_is_computed_needs_no_other_layers(in_half):
    assert kinds(as_stored(in_half, torch.float16)).isdisjoint({StoredLinear, StackedLinear, StoredEmbedding})


def test_only_large_parts_on_a_cpu_stay_in_their_files(in_half, monkeypatch):
    assert not checkpoint.stays_in_file(in_half, CPU)
    monkeypatch.setattr(weights, "LARGE", 0)
    assert checkpoint.stays_in_file(in_half, CPU) and not checkpoint.stays_in_file(in_half, torch.device("cuda"))


def test_the_language_model_stays_as_stored_too(official_tree):
    llm, state = checkpoint.read_llm(official_tree / "text_encoder")
    checkpoint.fill(llm, state, official_tree, torch.bfloat16, CPU, as_stored=True)  # it is stored in float32
    assert StoredEmbedding in kinds(llm)
    assert llm(torch.tensor([[1, 2]])).dtype == torch.bfloat16


@pytest.mark.parametrize("stored", ["in_half", "in_pieces"])
def test_adapters_stand_beside_weights_as_they_are_stored(request, stored, monkeypatch):
    path = request.getfixturevalue(stored)
    donor = HunyuanVideoTransformer(TINY)
    add_lora(donor, 2, 2.0)
    randomize(donor)
    model, other = as_stored(path, torch.float32), converted(path, torch.float32)
    before = step(other)
    with monkeypatch.context() as patch:  # which reads no weight: at full size they are gigabytes
        patch.setattr(StackedLinear, "weight", property(lambda self: pytest.fail("made a copy of a weight")))
        apply_lora(model, lora_of(donor))
    apply_lora(other, lora_of(donor))
    torch.testing.assert_close(step(model), step(other), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(step(other), before)


@pytest.mark.parametrize("stored", ["in_half", "in_pieces"])
def test_8_bits_are_made_of_weights_as_they_are_stored(request, stored):
    path = request.getfixturevalue(stored)
    model, other = as_stored(path, torch.float32), converted(path, torch.float32)
    for each in (model, other):
        fp8.quantize(each)
    eight_bits = [name for name, layer in other.named_modules() if isinstance(layer, fp8.Fp8Linear)]
    assert len(eight_bits) == 16
    for name in eight_bits:
        made, expected = (each.get_submodule(name).weight.view(torch.uint8) for each in (model, other))
        assert torch.equal(made, expected)
    assert torch.equal(step(model), step(other))
