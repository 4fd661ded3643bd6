"""8-bit weights against the reference's tensors and the published layer list."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from adapters import forward, random_lora
from conftest import TINY, golden_config, manifest_layers, randomize
from torch import nn

from hunyuan_video import checkpoint
from hunyuan_video.kernels.pieces import Pieces, TakesGelu
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.transforms import fp8
from hunyuan_video.transforms.lora import apply_lora, remove_lora
from hunyuan_video.transforms.offload import offload_blocks
from hunyuan_video.transforms.swap import prepared


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [1.0, 0.00123, 100.0, 1e-10, 1e-30, 3e-38])
def test_expanding_by_bits_gives_every_number_of_the_format(dtype, scale):
    numbers = torch.arange(256, dtype=torch.uint8).view(fp8.FP8)[None]
    numbers, scales = numbers[~numbers.float().isnan()][None], torch.tensor([scale])
    bits = {torch.bfloat16: torch.int16, torch.float32: torch.int32}[dtype]  # which tell 0 from -0
    assert torch.equal(fp8._by_bits(numbers, scales, dtype).view(bits), (numbers.to(dtype) * scales.to(dtype)).view(bits))


@pytest.mark.parametrize("bits", [0x7F, 0xFF])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_nan_stays_nan_when_it_is_expanded(bits, dtype):
    weight = torch.tensor([[0x7E, bits, 0xFE, 0]], dtype=torch.uint8).view(fp8.FP8)
    expanded = fp8.expand(weight, torch.tensor([0.5]), dtype)
    assert torch.equal(expanded.nan_to_num(7), torch.tensor([[224, 7, -224, 0]], dtype=dtype))


def test_rounding_some_rows_at_a_time_rounds_all_alike(monkeypatch):
    weight = torch.randn(13, 24).bfloat16()
    scale = fp8.scale_of(weight)
    assert scale == weight.abs().max().float() / 448
    whole = (weight.float() / scale).to(fp8.FP8)
    monkeypatch.setattr(fp8, "NUMBERS", 100)
    assert torch.equal(fp8.in_8_bits(weight, scale).view(torch.uint8), whole.view(torch.uint8))


def test_a_scale_beyond_the_bits_is_multiplied_plainly():
    weight, scale = torch.tensor([[1.0, -448.0]]).to(fp8.FP8), torch.tensor([2.0**20])
    assert fp8.expand(weight, scale, torch.float32).tolist() == [[2.0**20, -448 * 2.0**20]]


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


# --- Both factors in 8 bits ---


def released_size(dtype: torch.dtype, in_features: int = 3072, out_features: int = 3072, bias: bool = True) -> fp8.Fp8Linear:
    torch.manual_seed(0)
    return fp8.Fp8Linear.from_linear(nn.Linear(in_features, out_features, bias=bias).to(dtype))


def tokens(shape: tuple[int, ...], dtype: torch.dtype, outliers: bool) -> torch.Tensor:
    """Normal ones; or some features and one whole token far larger than the rest, as transformers have them."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    if outliers:
        x[..., ::97] *= 50
        x[..., 0, :] *= 300
    return x.to(dtype)


def deviation(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Of the worst token, beside its length."""
    return ((actual.float() - expected.float()).norm(dim=-1) / expected.float().norm(dim=-1)).max().item()


def in_float32(x: torch.Tensor, layer: fp8.Fp8Linear) -> torch.Tensor:
    """Activations rounded with one scale a token, then everything in float32."""
    flat = x.reshape(-1, x.shape[-1])
    scale = (flat.abs().amax(dim=1, keepdim=True) / 448).float()
    rounded = (flat / scale.to(x.dtype)).to(torch.float8_e4m3fn).float() * scale
    weight = layer.weight.float() * layer.scale.to(x.dtype).float()
    bias = None if layer.bias is None else layer.bias.float()
    return nn.functional.linear(rounded, weight, bias).view(*x.shape[:-1], -1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("shape", "bias"), [((40, 3072), True), ((2, 20, 3072), False), ((1, 3072), True)])
@torch.no_grad()
def test_the_product_of_8_bits_is_that_of_the_rounded_numbers(dtype, shape, bias):
    layer, x = released_size(dtype, bias=bias), tokens(shape, dtype, outliers=True)
    out = fp8.scaled(x, layer.weight, layer.scale, layer.bias)
    assert out.shape == (*shape[:-1], 3072) and out.dtype == dtype
    assert deviation(out, in_float32(x, layer)) < 2**-8  # it is rounded to bfloat16


@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [((3072, 3072), torch.bfloat16), ((3072, 3072), torch.float16), ((3072, 3072), torch.float32), ((15360, 3072), torch.bfloat16)],
)
@pytest.mark.parametrize("outliers", [False, True])
@torch.no_grad()
def test_rounding_activations_costs_what_three_bits_cost(dtype, outliers, sizes):
    """Rounding to a mantissa of three bits leaves an error of at most 2^-3 / sqrt(12) = 3.6 % root mean square, 2.65 % for normal numbers.
    That is as much as the 8-bit weights' own."""
    layer, x = released_size(dtype, *sizes), tokens((32, sizes[0]), dtype, outliers)
    assert deviation(fp8.scaled(x, layer.weight, layer.scale, layer.bias), layer(x)) < (0.036 if outliers else 0.029)


@torch.no_grad()
def test_a_token_does_not_depend_on_the_others(monkeypatch):
    layer, x = released_size(torch.bfloat16, 64, 48), tokens((50, 64), torch.bfloat16, outliers=True)
    whole = fp8.scaled(x, layer.weight, layer.scale, layer.bias)
    assert torch.equal(torch.cat([fp8.scaled(part, layer.weight, layer.scale, layer.bias) for part in x.split(7)]), whole)
    monkeypatch.setattr(fp8, "PIECE", 16)
    assert torch.equal(fp8.scaled(x, layer.weight, layer.scale, layer.bias), whole)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@torch.no_grad()
def test_tokens_of_any_size_stay_finite(dtype):
    layer = released_size(dtype, 64, 48, bias=False)
    x = torch.ones(4, 64, dtype=dtype) * torch.tensor([0, 1e-7, 1, 1e4], dtype=dtype)[:, None]
    out = fp8.scaled(x.t().contiguous().t(), layer.weight, layer.scale, None)  # also if they lie in memory the other way round
    assert out.isfinite().all() and torch.equal(out[0], torch.zeros_like(out[0]))
    assert deviation(out[2:], layer(x)[2:]) < 2**-7


def multiplying(model: nn.Module, product: Callable) -> set[str]:
    return {name for name, layer in model.named_modules() if isinstance(layer, fp8.Fp8Linear) and layer.product is product}


def test_of_the_released_model_all_but_the_modulation_multiplies_in_8_bits():
    with torch.device("meta"):
        model = HunyuanVideoTransformer(TransformerConfig())
    fp8.quantize(model)
    fp8.multiply_in_8_bits(model)
    assert len(multiplying(model, fp8.scaled)) == 20 * 8 + 40 * 2
    assert {name.split(".", 2)[2] for name in multiplying(model, fp8.expanded)} == {"img_mod.linear", "txt_mod.linear", "modulation.linear"}


def test_layers_whose_sizes_no_kernel_takes_stay_expanded():
    model = nn.ModuleDict({name: nn.Linear(*sizes) for name, sizes in {"fits": (32, 48), "narrow": (32, 40), "short": (24, 48)}.items()})
    fp8.quantize(model, bool)
    fp8.multiply_in_8_bits(model)
    assert multiplying(model, fp8.scaled) == {"fits"}


def test_a_whole_model_stays_close_also_streamed_and_with_adapters(tiny_transformer):
    lora = random_lora(tiny_transformer)
    fp8.quantize(tiny_transformer)
    expanded = forward(tiny_transformer)
    fp8.multiply_in_8_bits(tiny_transformer)
    assert len(multiplying(tiny_transformer, fp8.scaled)) == 8 * TINY.num_double_blocks + 2 * TINY.num_single_blocks
    scaled = forward(tiny_transformer)
    assert 0 < deviation(scaled.flatten(), expanded.flatten()) < 0.1
    offload_blocks([*tiny_transformer.double_blocks, *tiny_transformer.single_blocks], torch.device("cpu:0"))
    assert torch.equal(forward(tiny_transformer), scaled)

    apply_lora(tiny_transformer, lora)
    adapted = forward(tiny_transformer)
    for name in multiplying(tiny_transformer, fp8.scaled):
        tiny_transformer.get_submodule(name).product = fp8.expanded
    expected = forward(tiny_transformer)
    fp8.multiply_in_8_bits(tiny_transformer)  # finds the layers under the adapters
    assert torch.equal(forward(tiny_transformer), adapted) and not torch.equal(adapted, scaled)
    assert 0 < deviation(adapted.flatten(), expected.flatten()) < 0.1
    remove_lora(tiny_transformer)
    assert torch.equal(forward(tiny_transformer), scaled)


@pytest.mark.parametrize("kind", ["a plain linear", "expanded", "in 8 bits"])
@torch.no_grad()
def test_gelu_between_two_layers_equals_all_in_turn(kind):
    layer, x = released_size(torch.float32, 64, 48), tokens((2, 5, 64), torch.float32, outliers=False)
    if kind == "a plain linear":
        layer = nn.Linear(64, 48)
    if kind == "in 8 bits":
        layer.product = fp8.scaled
    found = Pieces().mlp(lambda x: 2 * x, prepared(layer, x.dtype), x)
    assert torch.equal(found, layer(nn.functional.gelu(2 * x, approximate="tanh")))
    assert isinstance(prepared(layer, x.dtype), TakesGelu) == (kind == "in 8 bits")


def test_a_pass_that_will_go_backward_expands():
    layer = released_size(torch.float32, 64, 48)
    x = torch.randn(3, 64, requires_grad=True)
    expected = layer(x)
    fp8.multiply_in_8_bits(nn.ModuleDict({"layer": layer}))
    assert layer.product is fp8.scaled and torch.equal(layer(x), expected)


@pytest.mark.parametrize(
    ("device", "capability", "what"),
    [("cpu", None, "this is cpu"), ("cuda", (8, 0), r"NVIDIA A100 of compute capability 8\.0 with PyTorch 2")],
)
def test_a_device_that_does_not_multiply_in_8_bits_is_refused(monkeypatch, device, capability, what):
    def refuses(*_args, **_options):
        raise RuntimeError("torch._scaled_mm is only supported on CUDA devices with compute capability >= 9.0 or 8.9, or ROCm MI300+")

    monkeypatch.setattr(fp8, "scaled", refuses)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "NVIDIA A100")
    monkeypatch.setattr(torch, "ones", lambda *size, **_options: torch.zeros(size))  # there is no such device here
    with pytest.raises(ValueError, match=f"compute capability 8.9 or more, .*{what}"):
        fp8.check_multiplies(torch.device(device))


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9), reason="needs a GPU of compute capability 8.9 or more"
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@torch.no_grad()
def test_a_gpu_multiplies_in_8_bits_as_the_cpu_does(dtype):
    device = torch.device("cuda")
    fp8.check_multiplies(device)
    for shape, sizes, bias in (((1, 50, 3072), (3072, 9216), True), ((9000, 3072), (3072, 3072), False)):
        layer, x = released_size(dtype, *sizes, bias=bias), tokens(shape, dtype, outliers=True)
        expected = in_float32(x, layer)
        layer.to(device).product = fp8.scaled
        assert deviation(layer(x.to(device)).cpu(), expected) < 2**-7
