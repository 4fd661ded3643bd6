"""8-bit weights against the reference's tensors and the published layer list."""

from __future__ import annotations

import pytest
import torch
from conftest import TINY, golden_config, manifest_layers, randomize
from torch import nn

from hunyuan_video import checkpoint
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.transforms import fp8


def reference_linear(golden) -> tuple[nn.Linear, fp8.Fp8Linear]:
    linear = nn.Linear(16, 24)
    linear.weight.data, linear.bias.data = golden["in.weight"].clone(), golden["in.bias"].clone()
    return linear, fp8.Fp8Linear.from_linear(linear)


def test_quantized_weight_and_scale_equal_the_reference_bit_for_bit(golden):
    reference = golden("fp8_linear")
    _, quantized = reference_linear(reference)
    assert torch.equal(quantized.weight.view(torch.uint8), reference["out.weight_fp8_u8"])
    torch.testing.assert_close(quantized.scale, reference["out.scale"], atol=0, rtol=0)


@pytest.mark.parametrize(("dtype", "suffix", "tolerance"), [(torch.float32, "fp32", "out"), (torch.bfloat16, "bf16", "bf16")])
@pytest.mark.parametrize("shape", ["2d", "3d"])
def test_forward_equals_the_reference(golden, dtype, suffix, tolerance, shape):
    reference = golden("fp8_linear")
    _, quantized = reference_linear(reference)
    quantized.bias = nn.Parameter(quantized.bias.to(dtype), requires_grad=False)
    reference.check(quantized(reference[f"in.x{shape}"].to(dtype)), f"out.y{shape}_{suffix}", tolerance)


def test_an_all_zero_weight_stays_zero():
    linear = nn.Linear(4, 4)
    nn.init.zeros_(linear.weight)
    assert torch.equal(fp8.Fp8Linear.from_linear(linear)(torch.ones(1, 4)), linear(torch.ones(1, 4)))


def test_exactly_the_published_layers_are_quantized():
    with torch.device("meta"):
        model = HunyuanVideoTransformer(TransformerConfig())
    names = {name for name, module in model.named_modules() if isinstance(module, nn.Linear) and fp8.in_blocks(name)}
    assert names == manifest_layers("fp8_layers")


def save_official(golden, folder):
    path = folder / "model_fp8.pt"
    torch.save({"module": golden.state_dict()}, path)
    torch.save(
        {name.removeprefix("map."): value for name, value in golden.tensors.items() if name.startswith("map.")}, folder / "model_fp8_map.pt"
    )
    return path


@torch.no_grad()
def test_an_official_fp8_file_loads_in_8_bits_and_equals_the_reference(golden, tmp_path):
    reference = golden("fp8_dit_forward")
    model = checkpoint.load_transformer(save_official(reference, tmp_path), torch.float32, torch.device("cpu"))
    assert model.double_blocks[0].img_attn_qkv.weight.dtype == torch.float8_e4m3fn
    assert model.config == golden_config(reference.info["config"])
    condition = model.condition(reference["in.text_states"], reference["in.text_mask"].bool(), reference["in.text_states_2"])
    reference.check(model(reference["in.x"], reference["in.t"], condition), "out.x")


def test_a_missing_scale_file_is_named(golden, tmp_path):
    path = save_official(golden("fp8_dit_forward"), tmp_path)
    (tmp_path / "model_fp8_map.pt").unlink()
    with pytest.raises(FileNotFoundError, match=r"model_fp8_map\.pt"):
        checkpoint.load_transformer(path, torch.float32, torch.device("cpu"))


def test_scales_of_another_model_are_refused(golden, tmp_path):
    path = save_official(golden("fp8_dit_forward"), tmp_path)
    torch.save({"double_blocks.7.img_mod.linear": torch.ones(1)}, tmp_path / "model_fp8_map.pt")
    with pytest.raises(ValueError, match="do not belong together"):
        checkpoint.load_transformer(path, torch.float32, torch.device("cpu"))


def test_quantizing_twice_changes_nothing_more():
    model = randomize(HunyuanVideoTransformer(TINY))
    fp8.quantize(model)
    before = model.double_blocks[0].img_attn_qkv
    fp8.quantize(model)
    assert model.double_blocks[0].img_attn_qkv is before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_backward_pass_keeps_8_bits_and_has_autograds_gradient(golden, dtype):
    _, quantized = reference_linear(golden("fp8_linear"))
    quantized.bias = nn.Parameter(quantized.bias.to(dtype), requires_grad=False)
    x, direction = torch.randn(2, 3, 16, dtype=dtype, requires_grad=True), torch.randn(2, 3, 24, dtype=dtype)
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        out = quantized(x)
    assert sum(tensor.nbytes for tensor in saved) == quantized.weight.nbytes + quantized.scale.nbytes
    expected = nn.functional.linear(x, fp8.expand(quantized.weight, quantized.scale, dtype), quantized.bias)
    assert torch.equal(out, expected)
    (gradient,), (autograds,) = (torch.autograd.grad(y, x, direction) for y in (out, expected))
    torch.testing.assert_close(gradient, autograds)
