"""LoRA files as tools write them: small ones made by each tool's rules, and those that users sent in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file, save_file

from hunyuan_video import weights
from hunyuan_video.checkpoint import read_transformer
from hunyuan_video.checkpoint.lora import read_lora, save_lora
from hunyuan_video.checkpoint.lora_names import is_of_flux, looks_like, spellings
from hunyuan_video.checkpoint.stored import _official_name
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.transforms.lora import Lora

FIELD = Path(__file__).parents[1] / "data" / "field" / "lora"
QKV, MLP = "double_blocks.0.img_attn_qkv", "double_blocks.0.img_mlp.fc1"


def shapes_of(config: TransformerConfig) -> dict[str, torch.Size]:
    """Of weights, by their layers' official names."""
    with torch.device("meta"):
        parameters = HunyuanVideoTransformer(config).named_parameters()
    return {name.removesuffix(".weight"): parameter.shape for name, parameter in parameters if name.endswith(".weight")}


def saved(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> Path:
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, path, metadata)
    return path


# --- From users ---


@pytest.fixture(scope="module")
def config() -> TransformerConfig:
    return read_transformer(weights.locate(weights.EMBEDDED).transformer)[1]


@pytest.mark.parametrize(
    "name",
    [
        "12_model_diffusion_model.safetensors", "13_orig_mod_prefix.safetensors", "15_adapter_name_style.safetensors",
        "19_onetrainer_flat_official.safetensors", "20_onetrainer_flat_diffusers.safetensors", "23_lycoris_prefix.safetensors",
        "36_state_dict_wrapper.pt",
    ],
)  # fmt: skip
def test_a_file_of_another_tool_is_the_same_adapter_as_one_in_our_own_dialect(tmp_path, config, name):
    tensors = load_file(FIELD / "12_model_diffusion_model.safetensors")
    ours = {f"lora_unet_{_flat(key)}": tensor for key, tensor in tensors.items()}
    expected = read_lora(saved(ours, tmp_path / "ours.safetensors"), config)
    found = read_lora(FIELD / name, config)
    assert found.layers.keys() == expected.layers.keys() and len(found.layers) == 4
    for layer, adapter in found.layers.items():
        assert adapter.rank == 4
        torch.testing.assert_close(adapter.delta(), expected.layers[layer].delta(), atol=0, rtol=0)


def _flat(key: str) -> str:
    layer, _, factor = key.removeprefix("model.diffusion_model.").removesuffix(".weight").rpartition(".")
    return f"{layer.replace('.', '_')}.{ {'lora_A': 'lora_down', 'lora_B': 'lora_up'}[factor] }.weight"


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("26_nan_lora.safetensors", r"lora_unet_double_blocks_0_img_mod_linear\.lora_down\.weight"),
        ("27_inf_alpha.safetensors", r"lora_unet_double_blocks_0_img_attn_qkv\.alpha"),
    ],
)
def test_numbers_that_are_not_finite_are_refused_with_the_name_of_their_tensor(config, name, tensor):
    with pytest.raises(ValueError, match=rf"holds NaN or infinity in .*{tensor}"):
        read_lora(FIELD / name, config)


# --- As tools write them ---

FLAT = QKV.replace(".", "_")
DOWN_UP, A_B = ("lora_down.weight", "lora_up.weight"), ("lora_A.weight", "lora_B.weight")


@pytest.mark.parametrize(
    ("layer", "factors"),
    [
        pytest.param(f"lora_unet_{FLAT}", DOWN_UP, id="kohya, musubi-tuner"),
        pytest.param(f"diffusion_model.{QKV}", A_B, id="musubi-tuner converted, diffusion-pipe, ComfyUI"),
        pytest.param("diffusion_model.double_blocks.0.img_attn.qkv", A_B, id="ComfyUI's own layers"),
        pytest.param("diffusion_model.double_blocks.0.img_attn.qkv", DOWN_UP, id="ComfyUI, Kijai: extracted"),
        pytest.param(f"model.diffusion_model.{QKV}", A_B, id="whole checkpoint's prefix"),
        pytest.param(f"transformer.{QKV}", A_B, id="diffusion-pipe, early"),
        pytest.param(f"base_model.model.{QKV}", A_B, id="PEFT"),
        pytest.param(f"base_model.model.{QKV}", ("lora_A.style.weight", "lora_B.style.weight"), id="PEFT with the adapter's name"),
        pytest.param(f"base_model.model.transformer.{QKV}", A_B, id="PEFT around a pipeline"),
        pytest.param(f"module.{QKV}", A_B, id="DDP, DeepSpeed"),
        pytest.param(f"_orig_mod.{QKV}", A_B, id="compiled"),
        pytest.param("double_blocks.0._orig_mod.img_attn_qkv", A_B, id="compiled by blocks"),
        pytest.param("double_blocks.0._fsdp_wrapped_module._checkpoint_wrapped_module.img_attn_qkv", A_B, id="FSDP"),
        pytest.param(f"lora_transformer_{FLAT}", DOWN_UP, id="OneTrainer"),
        pytest.param(f"lycoris_{FLAT}", DOWN_UP, id="LyCORIS"),
        pytest.param(f"Hunyuan_video_I2V_lora_{FLAT}", DOWN_UP, id="Tencent"),
        pytest.param(f"lora_unet__{FLAT}", DOWN_UP, id="VideoX-Fun"),
        pytest.param(f"unet.{QKV}", ("lora.down.weight", "lora.up.weight"), id="Diffusers, early"),
        pytest.param(QKV, ("lora_A", "lora_B"), id="factors as bare parameters"),
    ],
)
def test_a_whole_layer_is_known_in_every_spelling(tmp_path, layer, factors):
    tensors = {f"{layer}.{factors[0]}": torch.randn(2, 32), f"{layer}.{factors[1]}": torch.randn(96, 2)}
    lora = read_lora(saved(tensors, tmp_path / "a.safetensors"), TINY)
    down, up = tensors.values()
    assert lora.layers.keys() == {QKV}
    torch.testing.assert_close(lora.layers[QKV].delta(), up @ down)


@pytest.mark.parametrize(
    ("layer", "first_row"),
    [
        pytest.param("transformer.transformer_blocks.0.attn.to_k", 32, id="Diffusers, FastVideo, finetrainers"),
        pytest.param("base_model.model.transformer_blocks.0.attn.to_k", 32, id="PEFT around Diffusers"),
        pytest.param("lora_unet__transformer_blocks_0_attn_to_k", 32, id="VideoX-Fun"),
        pytest.param("lora_transformer_transformer_blocks_0_attn_to_v", 64, id="OneTrainer"),
        pytest.param(f"transformer.{QKV}.2", 64, id="OneTrainer's OMI"),
    ],
)
def test_a_piece_of_a_fused_layer_is_known_in_every_spelling(tmp_path, layer, first_row):
    down, up = torch.randn(2, 32), torch.randn(32, 2)
    tensors = {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up}
    delta = read_lora(saved(tensors, tmp_path / "a.safetensors"), TINY).layers[QKV].delta()
    expected = torch.zeros(96, 32)
    expected[first_row : first_row + 32] = up @ down
    torch.testing.assert_close(delta, expected)


def named_in_the_documents() -> list[str]:
    """The whole tensor names in the table of docs/lora.md."""
    page = (Path(__file__).parents[2] / "docs" / "lora.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"\| written by .*?\n\n", page, flags=re.DOTALL)
    return re.findall(r"`([^`…]+\.weight)`", table)


@pytest.mark.parametrize("name", named_in_the_documents())
def test_a_name_in_the_documents_table_is_known(tmp_path, name):
    rows = 32 if re.search(r"to_q|qkv\.0", name) else 96
    up = name.replace("lora_down", "lora_up").replace("lora_A", "lora_B")
    lora = read_lora(saved({name: torch.randn(2, 32), up: torch.randn(rows, 2)}, tmp_path / "a.safetensors"), TINY)
    assert lora.layers.keys() == {QKV}


def test_every_tool_of_the_documents_table_has_a_name_there():
    assert len(named_in_the_documents()) >= 11


def test_no_spelling_means_two_places():
    """Each way of naming gives every layer its own name, so that nothing is lost where one is written over another."""
    places = spellings(shapes_of(TINY))
    assert "img_in.proj" in shapes_of(TINY) and "double_blocks.0.img_attn_q_norm" in shapes_of(TINY)
    for name in shapes_of(TINY):
        assert places[name][0] == places[name.replace(".", "_")][0] == name
    assert places["double_blocks.0.img_mlp.0"] == places["double_blocks.0.img_mlp.fc0"] == places[MLP]
    assert places["txt_in.t_embedder.in_layer"] == places["txt_in.t_embedder.linear_1"] == places["txt_in.t_embedder.mlp.0"]
    assert places["single_blocks.0.linear1.3"] == places["single_transformer_blocks.0.proj_mlp"]


def test_layers_have_the_names_under_which_comfyui_saves_whole_weights():
    """The reader of whole weights knows them, too, and the other way round."""
    places = spellings(shapes_of(TINY))
    renamed = [name for name in places if _official_name(f"{name}.") != f"{name}."]
    assert len(renamed) > 20
    for name in renamed:
        assert places[name][0] == _official_name(f"{name}.").removesuffix(".")


@pytest.mark.parametrize("wrapper", ["state_dict", "lora_state_dict", "lora", "module", "model", "transformer"])
def test_tensors_are_taken_out_of_what_wraps_them(tmp_path, wrapper):
    tensors = {f"{QKV}.lora_A.weight": torch.ones(2, 32), f"{QKV}.lora_B.weight": torch.ones(96, 2)}
    torch.save({wrapper: tensors, "step": 300, "optimizer": {"state": {}, "scale": 65536.0}}, tmp_path / "a.pt")
    assert read_lora(tmp_path / "a.pt", TINY).layers[QKV].scale == 1


# --- Biases, norms, the patch convolution ---

Q_NORM = "double_blocks.0.img_attn_q_norm"


@pytest.mark.parametrize(
    ("key", "parameter", "shape"),
    [
        pytest.param(f"diffusion_model.{QKV}.diff_b", f"{QKV}.bias", (96,), id="ComfyUI, Kijai: extracted"),
        pytest.param(f"lora_unet_{FLAT}.diff_b", f"{QKV}.bias", (96,), id="flat"),
        pytest.param(f"diffusion_model.{Q_NORM}.diff", f"{Q_NORM}.weight", (16,), id="a norm"),
        pytest.param("diffusion_model.double_blocks.0.img_attn.norm.query_norm.diff", f"{Q_NORM}.weight", (16,), id="ComfyUI's own layers"),
        pytest.param("transformer.transformer_blocks.0.attn.norm_q.diff", f"{Q_NORM}.weight", (16,), id="Diffusers"),
        pytest.param(f"lycoris_{Q_NORM.replace('.', '_')}.w_norm", f"{Q_NORM}.weight", (16,), id="LyCORIS"),
        pytest.param("diffusion_model.img_in.proj.diff", "img_in.proj.weight", (32, 4, 1, 2, 2), id="the patch convolution"),
    ],
)
def test_a_difference_of_any_parameter_is_read(tmp_path, key, parameter, shape):
    difference = torch.randn(shape)
    lora = read_lora(saved({key: difference}, tmp_path / "a.safetensors"), TINY)
    assert not lora.layers and lora.offsets.keys() == {parameter}
    assert torch.equal(lora.offsets[parameter], difference)


def test_a_bias_of_pefts_second_factor_is_scaled_like_their_product(tmp_path):
    layer, bias = "transformer.transformer_blocks.0.attn.to_k", torch.randn(32)
    tensors = ab(layer, rows=32) | {f"{layer}.lora_B.bias": bias, f"{layer}.alpha": torch.tensor(1.0)}
    offset = read_lora(saved(tensors, tmp_path / "a.safetensors"), TINY).offsets[f"{QKV}.bias"]
    assert torch.equal(offset, torch.cat([torch.zeros(32), bias / 2, torch.zeros(32)]))


@pytest.mark.parametrize("dialect", ["kohya", "original"])
def test_differences_survive_the_files_that_can_say_them(tmp_path, dialect):
    offsets = {f"{QKV}.bias": torch.randn(96), f"{Q_NORM}.weight": torch.randn(16)}
    save_lora(Lora({}, {}, offsets), tmp_path / "a.safetensors", dialect, torch.float32)
    again = read_lora(tmp_path / "a.safetensors", TINY).offsets
    assert again.keys() == offsets.keys() and all(torch.equal(again[name], offset) for name, offset in offsets.items())


@pytest.mark.parametrize("dialect", ["tencent", "diffusers"])
def test_differences_are_not_left_out_of_the_others(tmp_path, dialect):
    with pytest.raises(ValueError, match=r"img_attn_qkv\.bias is changed by this LoRA, which a file of dialect .* cannot say"):
        save_lora(Lora({}, {}, {f"{QKV}.bias": torch.ones(96)}), tmp_path / "a.safetensors", dialect)


# --- What is refused ---


def ab(layer: str, adapter: str = "", columns: int = 32, rows: int = 96) -> dict[str, torch.Tensor]:
    return {f"{layer}.lora_A{adapter}.weight": torch.ones(2, columns), f"{layer}.lora_B{adapter}.weight": torch.ones(rows, 2)}


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (ab(QKV, ".style") | ab(MLP, ".motion", rows=128), r"holds several adapters \(motion, style\); save the one that is wanted"),
        (ab(QKV, ".style") | ab(MLP, rows=128), r"holds several adapters \(one without a name, style\)"),
        (ab(QKV) | ab(f"diffusion_model.{QKV}"), r"img_attn_qkv\.lora_A\.weight is there twice"),
        (ab(QKV) | ab(f"lora_unet_{FLAT}"), "img_attn_qkv is there twice, under two names"),
        (ab(QKV) | ab("transformer_blocks.0.attn.to_q", rows=32), "img_attn_qkv is there twice, under two names"),
        (ab(QKV) | {f"{QKV}.lora_magnitude_vector": torch.ones(96)}, "lora_magnitude_vector is of DoRA, which scales the rows"),
        (ab("text_encoder.layers.0.q") | ab(QKV), r"text_encoder\.layers\.0\.q\.lora_A\.weight is of a text encoder"),
        ({"diffusion_model.double_blocks.0.img_attn_q_norm.diff": torch.ones(4)}, r"q_norm is for a weight of shape \[4\], not \[16\]"),
        ({f"{QKV}.diff_b": torch.ones(32)}, r"img_attn_qkv is for a bias of shape \[32\], not \[96\]"),
        ({"double_blocks.0.img_attn_q_norm.diff_b": torch.ones(16)}, r"q_norm is for a bias of shape \[16\], not for none"),
        ({f"{QKV}.lora_B.bias": torch.ones(96)}, "img_attn_qkv has only lora_bias"),
        (ab("img_in.proj"), "img_in.proj is no linear layer, and only those can have an adapter"),
        ({f"{QKV}.oft_blocks": torch.ones(2, 2, 2)}, "is of another kind of adapter"),
        ({f"{QKV}.lora_A.weight": torch.ones(2, 32, dtype=torch.int8), f"{QKV}.lora_B.weight": torch.ones(96, 2)}, "factors of torch.int8"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_with_the_reason(tmp_path, tensors, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_lora(saved(tensors, tmp_path / "a.safetensors"), TINY)


def test_several_loras_in_a_pickle_are_refused(tmp_path):
    torch.save({"module": ab(QKV), "ema": ab(QKV)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"holds several LoRAs \(module, ema\)"):
        read_lora(tmp_path / "a.pt", TINY)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"], "a LoRA of Stable Diffusion"),
        (["unet.up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"], "a LoRA of Stable Diffusion"),
        (["diffusion_model.blocks.0.self_attn.q.lora_A.weight", "lora_unet_blocks_0_cross_attn_k.lora_down.weight"], "a LoRA of Wan"),
        (["transformer.transformer_blocks.0.attn1.to_q.lora_A.weight"], "a LoRA of LTX-Video or CogVideoX"),
        (["transformer.transformer_blocks.0.img_mlp.net.2.lora_A.weight"], "a LoRA of Qwen-Image"),
        (["lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"], "a LoRA of a text encoder"),
        (["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"], "a LoRA of a text encoder"),
        (["model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.up_proj.weight"], "weights of a text encoder"),
        (["decoder.conv_in.conv.weight", "encoder.down_blocks.0.resnets.0.conv1.conv.weight"], "weights of a VAE"),
        (["blocks.0.cross_attn.k.weight"], "weights of Wan"),
        (["double_blocks.0.img_attn_qkv.weight", "img_in.proj.weight"], "whole weights of HunyuanVideo"),
        (["transformer_blocks.0.attn.to_q.weight"], "whole weights of HunyuanVideo"),
        (["txt_in.individual_token_refiner.blocks.0.self_attn_qkv.lora_A.weight"], "a PEFT LoRA with original names"),
        (["lora_transformer_double_blocks_0_img_attn_qkv.lora_down.weight"], "a LoRA of OneTrainer"),
        (["lycoris_double_blocks_0_img_attn_qkv.lora_down.weight"], "a LoRA of LyCORIS"),
        (["lora_unet__transformer_blocks_0_attn_to_q.lora_down.weight"], "a LoRA of VideoX-Fun"),
        (["emb_params"], "something else"),
    ],
)  # fmt: skip
def test_a_healthy_file_of_another_kind_is_called_what_it_is(tmp_path, names, what):
    assert looks_like(names) == what
    with pytest.raises(ValueError, match=rf"^(?!.*damaged).* is no LoRA for this transformer: .*\. It looks like {re.escape(what)}\.$"):
        read_lora(saved({name: torch.ones(2, 2) for name in names}, tmp_path / "a.safetensors"), TINY)


# --- FLUX, whose layers have the same names and shapes ---


def flux(double: int, single: int) -> list[str]:
    return [f"double_blocks.{i}.img_attn_qkv" for i in range(double)] + [f"single_blocks.{i}.linear1" for i in range(single)]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [(flux(19, 38), True), (flux(0, 38), True), (flux(19, 0), True), (flux(20, 40), False), (flux(20, 0), False), (flux(3, 7), False)],
)
def test_a_lora_that_covers_just_the_blocks_of_flux_is_one_of_flux(layers, expected):
    assert is_of_flux(layers, (20, 40)) is expected
    assert not is_of_flux(layers, (1, 2))


def test_a_lora_of_flux_is_refused_though_all_would_fit(tmp_path):
    small = TransformerConfig(hidden_size=32, num_heads=2, rope_dims=(4, 6, 6), text_dim=24, pooled_dim=20)
    pieces = {}
    for i in range(38):
        pieces |= ab(f"transformer.single_transformer_blocks.{i}.attn.to_q", rows=32)
    with pytest.raises(ValueError, match=r"a\.safetensors is a LoRA of FLUX"):
        read_lora(saved(pieces, tmp_path / "a.safetensors"), small)
    with pytest.raises(ValueError, match=r"b\.safetensors is a LoRA of FLUX"):
        read_lora(saved(ab(QKV), tmp_path / "b.safetensors", {"modelspec.architecture": "flux-1-dev/lora"}), TINY)
