"""Adapters: live equals merged, off equals on after removal, and every kind of linear layer carries them."""

from __future__ import annotations

import copy

import pytest
import torch
from adapters import forward, random_lora
from conftest import TINY, randomize
from torch import nn

from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.request import Strengths
from hunyuan_video.transforms import fp8
from hunyuan_video.transforms.lora import (
    Lora,
    LoraLinear,
    LowRank,
    add_lora,
    apply_lora,
    in_attention_and_mlp,
    linear_layers,
    lora_of,
    merge_lora,
    remove_lora,
    weight_of,
)


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-4)


def test_zero_lora_is_identity(tiny_transformer):
    expected = forward(tiny_transformer)
    add_lora(tiny_transformer, rank=4, alpha=4.0)
    assert torch.equal(forward(tiny_transformer), expected)


def test_training_reaches_the_factors_and_nothing_else(tiny_transformer):
    tiny_transformer.requires_grad_(True)
    add_lora(tiny_transformer, rank=4, alpha=4.0)
    trainable = {name for name, parameter in tiny_transformer.named_parameters() if parameter.requires_grad}
    layers = {name for name in linear_layers(tiny_transformer) if in_attention_and_mlp(name)}
    assert trainable == {f"{layer}.{factor}" for layer in layers for factor in ("lora_down", "lora_up")}
    assert len(layers) == 8 * TINY.num_double_blocks + 2 * TINY.num_single_blocks
    with torch.enable_grad():
        forward.__wrapped__(tiny_transformer).sum().backward()
    assert all(p.grad.any() for name, p in tiny_transformer.named_parameters() if name.endswith("img_attn_qkv.lora_up"))


def test_the_same_generator_gives_the_same_factors():
    models = [randomize(HunyuanVideoTransformer(TINY)) for _ in range(2)]
    for model in models:
        add_lora(model, 4, 4.0, generator=torch.Generator().manual_seed(5))
    first, second = (lora_of(model).layers["single_blocks.1.linear2"].down for model in models)
    assert torch.equal(first, second) and first.abs().max() <= first.shape[1] ** -0.5


@pytest.mark.parametrize(("rank", "where"), [(0, in_attention_and_mlp), (4, lambda _name: False)])
def test_a_lora_of_nothing_is_refused(tiny_transformer, rank, where):
    with pytest.raises(ValueError, match="both must be 1 or more"):
        add_lora(tiny_transformer, rank, 4.0, where)


@pytest.mark.parametrize("strength", [1.0, -0.5, lambda name: 0.7 if "single" in name else 0.0])
def test_merged_equals_live_on_every_layer(tiny_transformer, strength):
    lora, plain = random_lora(tiny_transformer), forward(tiny_transformer)
    merged = copy.deepcopy(tiny_transformer)
    merge_lora(merged, lora, strength)
    apply_lora(tiny_transformer, lora, strength)
    assert_close(forward(tiny_transformer), forward(merged))
    assert (forward(merged) - plain).abs().max() > 1e-2


@pytest.mark.parametrize("put", [apply_lora, merge_lora])
def test_a_layer_of_strength_zero_is_left_as_it_is(tiny_transformer, put):
    lora, before = random_lora(tiny_transformer), dict(tiny_transformer.named_modules())
    weights = {name: weight_of(layer).clone() for name, layer in linear_layers(tiny_transformer).items()}
    put(tiny_transformer, lora, Strengths.parse("single_blocks.1=0").at)
    for name, layer in linear_layers(tiny_transformer).items():
        untouched = layer is before[name] and torch.equal(weight_of(layer), weights[name])
        assert untouched == name.startswith("single_blocks.1."), name


def test_alpha_and_rank_and_strength_scale_the_update():
    linear = nn.Linear(2, 2)
    adapter = LowRank(torch.eye(2), torch.eye(2), 8.0)
    x = torch.randn(3, 2)
    torch.testing.assert_close(LoraLinear(linear, adapter, 0.25)(x), linear(x) + 8 / 2 * 0.25 * x)


def test_off_equals_on_after_removal_to_the_very_modules(tiny_transformer):
    before, expected = linear_layers(tiny_transformer), forward(tiny_transformer)
    apply_lora(tiny_transformer, random_lora(tiny_transformer))
    apply_lora(tiny_transformer, random_lora(tiny_transformer, seed=1))
    assert not torch.equal(forward(tiny_transformer), expected)
    remove_lora(tiny_transformer)
    assert linear_layers(tiny_transformer) == before
    assert torch.equal(forward(tiny_transformer), expected)


def test_stacked_adapters_add_up(tiny_transformer):
    first, second = random_lora(tiny_transformer), random_lora(tiny_transformer, rank=5, alpha=1.0, seed=1)
    merged = copy.deepcopy(tiny_transformer)
    for lora, strength in ((first, 1.0), (second, -0.4)):
        merge_lora(merged, lora, strength)
        apply_lora(tiny_transformer, lora, strength)
    assert_close(forward(tiny_transformer), forward(merged))
    together = lora_of(tiny_transformer)
    assert {adapter.rank for adapter in together.layers.values()} == {8}
    remove_lora(tiny_transformer)
    merge_lora(tiny_transformer, together)
    assert_close(forward(tiny_transformer), forward(merged))


BIAS, NORM, PATCHES = "double_blocks.0.img_attn_qkv.bias", "single_blocks.1.q_norm.weight", "img_in.proj.weight"


def with_offsets(model: nn.Module) -> Lora:
    """An adapter on every layer, one of whose biases changes, too; a norm and the patch convolution."""
    offsets = {name: torch.full(model.get_parameter(name).shape, 0.25) for name in (BIAS, NORM, PATCHES)}
    return Lora(random_lora(model).layers, {}, offsets)


def test_other_parameters_change_by_the_strength_merged_and_live(tiny_transformer):
    merged, before = copy.deepcopy(tiny_transformer), {n: tiny_transformer.get_parameter(n).clone() for n in (BIAS, NORM, PATCHES)}
    lora = with_offsets(tiny_transformer)
    merge_lora(merged, lora, 2.0)
    for name, parameter in before.items():
        torch.testing.assert_close(merged.get_parameter(name), parameter + 0.5)
    apply_lora(tiny_transformer, lora, 2.0)
    torch.testing.assert_close(forward(tiny_transformer), forward(merged), atol=2e-5, rtol=1e-4)


def test_other_parameters_are_the_very_ones_again_after_removal(tiny_transformer):
    before, expected = dict(tiny_transformer.named_parameters()), forward(tiny_transformer)
    lora = with_offsets(tiny_transformer)
    apply_lora(tiny_transformer, lora)
    apply_lora(tiny_transformer, lora)  # adds up, beneath the first one's adapters
    torch.testing.assert_close(tiny_transformer.get_parameter(NORM), before[NORM] + 0.5)
    remove_lora(tiny_transformer)
    after = dict(tiny_transformer.named_parameters())
    assert after.keys() == before.keys() and all(after[name] is parameter for name, parameter in before.items())
    assert torch.equal(forward(tiny_transformer), expected)


def test_other_parameters_have_strengths_by_block_and_stay_at_zero(tiny_transformer):
    before = {name: tiny_transformer.get_parameter(name).clone() for name in (BIAS, NORM, PATCHES)}
    merge_lora(tiny_transformer, with_offsets(tiny_transformer), Strengths.parse("0,double_blocks=1").at)
    changed = [name for name, parameter in before.items() if not torch.equal(tiny_transformer.get_parameter(name), parameter)]
    assert changed == [BIAS]


def test_a_bias_beside_8_bits_changes_as_any_other(tiny_transformer):
    fp8.quantize(tiny_transformer)
    before = tiny_transformer.get_parameter(BIAS).clone()
    merge_lora(tiny_transformer, with_offsets(tiny_transformer))
    merge_lora(tiny_transformer, Lora({}, {}, {BIAS: torch.ones(96)}))  # beneath the first one's adapter, which stays live
    layer = tiny_transformer.double_blocks[0].img_attn_qkv
    assert isinstance(layer, LoraLinear)
    torch.testing.assert_close(layer.base.bias, before + 1.25)


def test_other_parameters_that_do_not_fit_are_refused(tiny_transformer):
    lora = Lora({}, {}, {BIAS: torch.ones(1), "double_blocks.7.img_attn_qkv.bias": torch.ones(96)})
    with pytest.raises(
        ValueError, match=r"img_attn_qkv\.bias has shape \[96\], not \[1\]; double_blocks\.7\.img_attn_qkv\.bias is unknown"
    ):
        merge_lora(tiny_transformer, lora)


def test_over_8_bits_the_adapter_stays_live(tiny_transformer):
    """Merged into 8 bits, most of a small update would be rounded away; what stays is the rounding of the base alone."""
    lora = random_lora(tiny_transformer, where=in_attention_and_mlp)
    fp8.quantize(tiny_transformer)
    base = {
        name: weight_of(layer).to(torch.float32) * layer.scale
        for name, layer in linear_layers(tiny_transformer).items()
        if fp8.in_blocks(name)
    }
    expanded = copy.deepcopy(tiny_transformer)
    for name, weight in base.items():
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias = weight, expanded.get_submodule(name).bias
        expanded.set_submodule(name, linear)
    merge_lora(expanded, lora)
    merge_lora(tiny_transformer, lora)
    assert isinstance(tiny_transformer.double_blocks[0].img_attn_qkv, LoraLinear)
    assert_close(forward(tiny_transformer), forward(expanded))


def test_merging_before_8_bits_leaves_8_bit_layers(tiny_transformer):
    merge_lora(tiny_transformer, random_lora(tiny_transformer))
    fp8.quantize(tiny_transformer)
    assert isinstance(tiny_transformer.double_blocks[0].img_attn_qkv, fp8.Fp8Linear)


def test_quantizing_under_a_live_adapter_works(tiny_transformer):
    apply_lora(tiny_transformer, random_lora(tiny_transformer))
    before = forward(tiny_transformer)
    fp8.quantize(tiny_transformer)
    assert isinstance(tiny_transformer.double_blocks[0].img_attn_qkv.base, fp8.Fp8Linear)
    assert 0 < (forward(tiny_transformer) - before).norm() / before.norm() < 0.2


def test_live_adapters_on_every_layer_of_a_bfloat16_model(tiny_transformer):
    lora = random_lora(tiny_transformer)
    merged = copy.deepcopy(tiny_transformer)
    merge_lora(merged, lora)
    apply_lora(tiny_transformer.bfloat16(), lora)
    expected = forward(merged)
    assert tiny_transformer.time_in.mlp[0].lora_down.dtype == torch.float32
    assert (forward(tiny_transformer, torch.bfloat16) - expected).norm() / expected.norm() < 0.05


def test_what_does_not_fit_is_listed_up_to_ten(tiny_transformer):
    lora = random_lora(tiny_transformer)
    wrong = Lora({name: LowRank(adapter.down[:, 1:], adapter.up, 1.0) for name, adapter in lora.layers.items()})
    wrong.layers["blocks.0.nothing"] = LowRank(torch.ones(1, 2), torch.ones(2, 1), 1.0)
    count = len(wrong.layers) - 10
    for use in (apply_lora, merge_lora):
        with pytest.raises(ValueError, match=rf"embedder is for a weight of shape \[32, 23\], not \[32, 24\].*and {count} more"):
            use(tiny_transformer, wrong)
    with pytest.raises(ValueError, match=r"blocks\.0\.nothing is unknown"):
        apply_lora(tiny_transformer, Lora({"blocks.0.nothing": wrong.layers["blocks.0.nothing"]}))
    assert not any(isinstance(module, LoraLinear) for module in tiny_transformer.modules())
