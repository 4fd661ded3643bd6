"""The transformer in every layout that is in circulation, on small files with the real names: all load as the same model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import TINY, manifest, randomize
from diffusers_peer import KEYMAP, transformer_peer
from safetensors.torch import save_file

from hunyuan_video import checkpoint
from hunyuan_video.checkpoint import diffusers
from hunyuan_video.checkpoint.lazy import Lazy
from hunyuan_video.checkpoint.stored import open_transformer
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.transforms import fp8

State = dict[str, torch.Tensor]
COMFYUI = [  # ComfyUI renames in this order when it saves a model
    ("txt_in.t_embedder.mlp.0.", "txt_in.t_embedder.in_layer."), ("txt_in.t_embedder.mlp.2.", "txt_in.t_embedder.out_layer."),
    ("txt_in.c_embedder.linear_1.", "txt_in.c_embedder.in_layer."), ("txt_in.c_embedder.linear_2.", "txt_in.c_embedder.out_layer."),
    ("_mod.linear.", "_mod.lin."), ("_attn_qkv.", "_attn.qkv."), ("mlp.fc1.", "mlp.0."), ("mlp.fc2.", "mlp.2."),
    ("_attn_q_norm.weight", "_attn.norm.query_norm.scale"), ("_attn_k_norm.weight", "_attn.norm.key_norm.scale"),
    (".q_norm.weight", ".norm.query_norm.scale"), (".k_norm.weight", ".norm.key_norm.scale"), ("_attn_proj.", "_attn.proj."),
    (".modulation.linear.", ".modulation.lin."), ("_in.mlp.2.", "_in.out_layer."), ("_in.mlp.0.", "_in.in_layer."),
]  # fmt: skip


@pytest.fixture
def model() -> HunyuanVideoTransformer:
    return randomize(HunyuanVideoTransformer(TINY)).bfloat16()


@pytest.fixture
def state(model) -> State:
    return model.state_dict()


def load(path: Path) -> HunyuanVideoTransformer:
    return checkpoint.load_transformer(path, torch.bfloat16, torch.device("cpu"))


def comfyui_names(state: State) -> State:
    renamed = {}
    for name, tensor in state.items():
        for official, theirs in COMFYUI:
            name = name.replace(official, theirs)
        renamed[name] = tensor
    return renamed


def assert_is(loaded: HunyuanVideoTransformer, state: State) -> None:
    assert loaded.config == TINY
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "model.model.", "transformer."])
@pytest.mark.parametrize("rename", [dict, comfyui_names], ids=["official names", "ComfyUI's names"])
def test_single_files_load(tmp_path, state, prefix, rename):
    save_file({prefix + name: tensor for name, tensor in rename(state).items()}, tmp_path / "a.safetensors")
    assert_is(load(tmp_path / "a.safetensors"), state)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module.", "_orig_mod.model.diffusion_model."])
def test_files_of_trainers_load_from_behind_their_prefixes(tmp_path, state, prefix):
    save_file({prefix + name: tensor for name, tensor in state.items()}, tmp_path / "a.safetensors")
    assert_is(load(tmp_path / "a.safetensors"), state)


def test_blocks_that_were_compiled_one_by_one_load(tmp_path, state):
    torch.save(
        {"state_dict": {re.sub(r"(blocks\.\d+\.)", r"\1_orig_mod.", name): tensor for name, tensor in state.items()}}, tmp_path / "a.pt"
    )
    assert_is(load(tmp_path / "a.pt"), state)


def test_of_an_all_in_one_file_the_transformer_is_taken(tmp_path, state):
    others = {"vae.decoder.conv_in.conv.weight": torch.ones(1), "text_encoders.llama.model.norm.weight": torch.ones(1)}
    save_file({f"model.diffusion_model.{name}": tensor for name, tensor in state.items()} | others, tmp_path / "a.safetensors")
    assert_is(load(tmp_path / "a.safetensors"), state)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt", "weights"])
def test_contents_tell_the_format_and_not_names(tmp_path, state, name):
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    for real in ("a.safetensors", "a.pt"):
        assert_is(load((tmp_path / real).rename(tmp_path / name)), state)


def test_every_official_name_comes_back_from_comfyuis():
    names = manifest("dit_hyvideo_t2_cfgdistill")
    from hunyuan_video.checkpoint.stored import _official_name

    assert [_official_name(name) for name in comfyui_names(dict.fromkeys(names, torch.empty(0)))] == list(names)
    assert [_official_name(name) for name in names] == list(names)


# --- 8 bits ---


def quantized(state: State) -> tuple[State, State]:
    """Weights of the blocks in 8 bits, and their scales."""
    layers = [name for name, tensor in state.items() if fp8.in_blocks(name) and tensor.ndim == 2]
    scales = {name: fp8.scale_of(state[name]) for name in layers}
    return state | {name: fp8.in_8_bits(state[name], scales[name]) for name in layers}, scales


def test_a_plain_8_bit_cast_is_used_as_it_is(tmp_path, state):
    kept = ("norm", "bias", "time_in", "img_in", "txt_in")  # by those who publish such files
    cast = {name: tensor if any(part in name for part in kept) else tensor.to(fp8.FP8) for name, tensor in state.items()}
    save_file(cast, tmp_path / "a.safetensors")
    model = load(tmp_path / "a.safetensors")
    assert model.double_blocks[0].img_attn_qkv.weight.dtype == fp8.FP8
    assert model.double_blocks[0].img_attn_qkv.scale.item() == 1
    assert torch.equal(model.final_layer.linear.weight, cast["final_layer.linear.weight"].bfloat16())


@pytest.mark.parametrize("ending", ["scale_weight", "weight_scale"])
def test_scales_beside_the_weights_are_used(tmp_path, state, ending):
    weights, scales = quantized(state)
    outside = "final_layer.linear.weight"
    scales[outside] = fp8.scale_of(state[outside])
    weights[outside] = fp8.in_8_bits(state[outside], scales[outside])
    beside = {name.removesuffix("weight") + ending: scale.squeeze() for name, scale in scales.items()}
    beside |= {"scaled_fp8": torch.zeros(2).to(fp8.FP8), "double_blocks.0.img_attn_qkv.scale_input": torch.ones(())}
    save_file(comfyui_names(weights | beside), tmp_path / "a.safetensors")
    model = load(tmp_path / "a.safetensors")
    assert model.double_blocks[0].img_attn_qkv.scale == scales["double_blocks.0.img_attn_qkv.weight"]
    assert model.final_layer.linear.weight.dtype == torch.bfloat16
    torch.testing.assert_close(model.final_layer.linear.weight, state[outside], rtol=0.08, atol=0.001)


def test_scaled_weights_without_their_scales_are_refused(tmp_path, state):
    save_file(quantized(state)[0], tmp_path / "a.safetensors")
    with pytest.raises(FileNotFoundError, match=r"scales must be in .*a_map\.safetensors"):
        load(tmp_path / "a.safetensors")


def test_scales_for_some_layers_only_are_refused(tmp_path, state):
    weights, scales = quantized(state)
    name, scale = scales.popitem()
    save_file(weights | {name.replace(".weight", ".scale_weight"): scale}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="do not belong together"):
        load(tmp_path / "a.safetensors")


# --- Diffusers ---


def test_names_and_shapes_in_diffusers_are_the_published_ones():
    state = {name: Lazy.of(torch.empty(shape, device="meta")) for name, shape in manifest("dit_hyvideo_t2_cfgdistill").items()}
    theirs = diffusers.from_official(state)
    assert theirs.keys() == json.loads(KEYMAP.read_text())["map"].keys()
    back = diffusers.to_official(theirs)
    assert {name: tensor.shape for name, tensor in back.items()} == {name: tensor.shape for name, tensor in state.items()}


@pytest.mark.parametrize("shard_size", ["1GB", "20KB"])
def test_a_folder_that_diffusers_saved_loads(tmp_path, model, state, shard_size):
    transformer_peer(model).to(torch.bfloat16).save_pretrained(tmp_path / "transformer", max_shard_size=shard_size)
    assert len(list(tmp_path.glob("transformer/*.safetensors"))) == 1 or shard_size == "20KB"
    assert_is(load(tmp_path / "transformer"), state)


@pytest.mark.parametrize("shard_size", ["1GB", "20KB"])
def test_a_variant_that_diffusers_saved_loads(tmp_path, model, state, shard_size):
    transformer_peer(model).to(torch.bfloat16).save_pretrained(tmp_path / "transformer", max_shard_size=shard_size, variant="bf16")
    assert all(".bf16" in file.name for file in tmp_path.glob("transformer/diffusion*"))
    assert_is(load(tmp_path / "transformer"), state)


def test_a_missing_piece_of_a_fused_layer_is_named(tmp_path, model):
    theirs = transformer_peer(model).state_dict()
    del theirs["transformer_blocks.0.attn.to_k.weight"]
    save_file(theirs, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"double_blocks\.0\.img_attn_qkv\.weight is missing; .*attn\.to_q\.weight is unknown"):
        load(tmp_path / "a.safetensors")


# --- GGUF ---


@pytest.mark.parametrize("kind", ["BF16", "F16", "Q8_0"])
def test_gguf_loads(tmp_path, state, kind):
    gguf = pytest.importorskip("gguf", reason="the extra gguf is not installed")
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "hyvid")
    for name, tensor in state.items():  # as ComfyUI-GGUF's tool, which puts the five-dimensional tensor back whole
        as_kind = gguf.GGMLQuantizationType[kind if tensor.ndim == 2 and tensor.shape[1] % 32 == 0 else "F32"]
        writer.add_tensor(name, gguf.quantize(tensor.float().numpy(), as_kind), raw_dtype=as_kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    loaded = load(tmp_path / "a.gguf").state_dict()
    for name, tensor in loaded.items():
        torch.testing.assert_close(tensor, state[name], rtol=0 if kind == "BF16" else 0.01, atol=0 if kind == "BF16" else 0.004)


def test_without_the_gguf_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(ImportError, match=r"pip install 'hunyuan-video\[gguf\]'"):
        open_transformer(tmp_path / "a.gguf")


# --- Numbers that are none ---

BAD = "single_blocks.0.linear2.weight"


def put(state: State, value: float, dtype: torch.dtype = torch.bfloat16) -> State:
    """With one bad number in the middle of one tensor."""
    bad = state[BAD].clone()
    bad.view(-1)[100] = value
    return state | {BAD: bad.to(dtype)}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_with_file_and_name(tmp_path, state, value, dtype):
    save_file(put(state, value), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=rf"a\.safetensors holds NaN or infinity in {BAD} \(as {str(dtype)[6:]}\)"):
        checkpoint.load_transformer(tmp_path / "a.safetensors", dtype, torch.device("cpu"))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_8_bit_weights_that_are_nan_are_refused(tmp_path, state, sign):
    nan = torch.tensor(float("nan")).copysign(torch.tensor(sign)).item()
    save_file(put({name: tensor.to(fp8.FP8) for name, tensor in state.items()}, nan, fp8.FP8), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=f"NaN or infinity in {BAD}"):
        load(tmp_path / "a.safetensors")


def test_a_scale_that_is_nan_is_refused(tmp_path, state):
    weights, scales = quantized(state)
    torch.save(weights, tmp_path / "a.pt")
    scales = {name.removesuffix(".weight"): scale for name, scale in (scales | {BAD: torch.tensor([float("nan")])}).items()}
    torch.save(scales, tmp_path / "a_map.pt")
    with pytest.raises(ValueError, match=r"NaN or infinity in the scale of single_blocks\.0\.linear2"):
        load(tmp_path / "a.pt")


def test_what_a_large_file_keeps_is_not_read_and_what_is_converted_of_it_is(tmp_path, state, monkeypatch):
    monkeypatch.setattr(checkpoint, "is_large", lambda _: True)
    checked: list[str] = []
    monkeypatch.setattr(checkpoint, "check_finite", lambda name, *_: checked.append(name))
    kept = {name: tensor.float() if name == "img_in.proj.bias" else tensor for name, tensor in state.items()}
    save_file(kept, tmp_path / "a.safetensors")
    load(tmp_path / "a.safetensors")
    assert checked == ["img_in.proj.bias"]
