"""Healthy files that cannot be used here are called what they are, and none is called damaged."""

from __future__ import annotations

import argparse
import struct
import zipfile

import diffusers
import pytest
import torch
from conftest import TINY, manifest
from safetensors.torch import save_file

from hunyuan_video import checkpoint
from hunyuan_video.apps.inspect import report
from hunyuan_video.checkpoint.kinds import OtherKindError, kind_of
from hunyuan_video.checkpoint.stored import open_transformer
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.models.vae import CausalVAE, VAEConfig

FLUX, WAN = (
    [
        "img_in.weight",
        "txt_in.weight",
        "guidance_in.in_layer.weight",
        "double_blocks.0.img_attn.qkv.weight",
        "single_blocks.0.linear1.weight",
    ],
    ["patch_embedding.weight", "text_embedding.0.weight", "blocks.0.self_attn.q.weight", "blocks.0.modulation", "head.modulation"],
)
NAMES = {
    "a Flux transformer": FLUX,
    "a Wan transformer": WAN,
    "a Stable Diffusion XL UNet": ["input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight", "label_emb.0.0.weight"],
    "a Stable Diffusion UNet": ["input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight", "time_embed.0.weight"],
    "a Stable Diffusion 3 transformer": ["joint_blocks.0.x_block.attn.qkv.weight", "x_embedder.proj.weight", "context_embedder.weight"],
    "an LTX-Video transformer": ["patchify_proj.weight", "adaln_single.linear.weight", "transformer_blocks.0.attn1.to_q.weight"],
    "a HunyuanVideo 1.5 transformer": ["byt5_in.fc1.weight", "img_in.proj.weight", "double_blocks.0.img_attn_qkv.weight"],
    "a LoRA": ["transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"],
    "a language model": ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"],
    "T5": ["shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight", "decoder.block.0.layer.0.SelfAttention.q.weight"],
    "CLIP": ["text_model.encoder.layers.0.mlp.fc1.weight"],
    "a Wan VAE": ["encoder.conv1.weight", "decoder.conv1.weight", "decoder.middle.0.residual.0.gamma"],
    "the VAE of another model": ["encoder.down.0.block.0.conv1.weight", "decoder.up.0.block.0.conv1.weight"],
}
FROM_DIFFUSERS = {
    "FluxTransformer2DModel": "a Flux transformer",
    "WanTransformer3DModel": "a Wan transformer",
    "LTXVideoTransformer3DModel": "an LTX-Video transformer",
    "SD3Transformer2DModel": "a Stable Diffusion 3 transformer",
    "CogVideoXTransformer3DModel": "a CogVideoX transformer",
    "HunyuanVideoTransformer3DModel": "a HunyuanVideo transformer",
    "HunyuanVideo15Transformer3DModel": "a HunyuanVideo 1.5 transformer",
    "UNet2DConditionModel": "a Stable Diffusion UNet",
    "AutoencoderKL": "the VAE of another model",
    "AutoencoderKLLTXVideo": "the VAE of another model",
    "AutoencoderKLWan": "a Wan VAE",
    "AutoencoderKLHunyuanVideo": "a HunyuanVideo VAE",
    "AutoencoderKLHunyuanVideo15": "the VAE of another model",
}


def write(path, names, prefix=""):
    save_file({prefix + name: torch.ones(2, 2) for name in names}, path)
    return path


@pytest.mark.parametrize("model", FROM_DIFFUSERS)
def test_the_models_of_diffusers_are_known_by_their_names(model):
    if not hasattr(diffusers, model):
        pytest.skip(f"this Diffusers has no {model}")
    small = {"num_layers": 1} if "Transformer" in model else {}
    with torch.device("meta"):
        names = getattr(diffusers, model)(**small).state_dict()
    assert kind_of(names) == FROM_DIFFUSERS[model]


def test_our_own_are_known_under_their_official_names():
    assert (
        kind_of(manifest("dit_hyvideo_t2_cfgdistill"))
        == kind_of(HunyuanVideoTransformer(TINY).state_dict())
        == "a HunyuanVideo transformer"
    )
    with torch.device("meta"):
        assert kind_of(CausalVAE(VAEConfig()).state_dict()) == "a HunyuanVideo VAE"


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("kind", NAMES)
def test_another_kind_given_as_a_transformer_is_called_what_it_is(tmp_path, kind, prefix):
    path = write(tmp_path / "a.safetensors", NAMES[kind], prefix)
    with pytest.raises(OtherKindError, match=rf"a\.safetensors is {kind}, not a HunyuanVideo transformer; "):
        open_transformer(path)


@pytest.mark.parametrize("kind", [kind for kind in NAMES if kind != "a LoRA"])
def test_inspect_calls_it_so_too(tmp_path, kind):
    text = report(write(tmp_path / "a.safetensors", NAMES[kind]))
    assert f"model       {kind}, which is not" in text and f"in {len(NAMES[kind])} tensors" in text


def test_a_lora_is_sent_where_it_belongs(tmp_path):
    with pytest.raises(OtherKindError, match=r"\(--lora\)"):
        open_transformer(write(tmp_path / "a.safetensors", NAMES["a LoRA"]))


def test_another_kind_given_as_a_vae_is_called_what_it_is(tmp_path):
    with pytest.raises(OtherKindError, match="is a Wan VAE, not a HunyuanVideo VAE"):
        checkpoint.load_vae(write(tmp_path / "a.safetensors", NAMES["a Wan VAE"]), torch.float32, torch.device("cpu"))


@pytest.mark.parametrize(
    ("ending", "how"),
    [
        ("quant_state.bitsandbytes__nf4", "4 bits by bitsandbytes.*nf4"),
        ("SCB", "8 bits by bitsandbytes.*int8"),
        ("qweight", "whole numbers"),
    ],
)
def test_other_libraries_quantization_is_refused_by_name(tmp_path, ending, how):
    names = ["img_in.proj.weight", f"single_blocks.0.linear1.{ending}"]
    for read in (open_transformer, report):
        with pytest.raises(OtherKindError, match=rf"weights in {how}.*single_blocks\.0\.linear1.* not read here; take the same model in"):
            read(write(tmp_path / "a.safetensors", names))


def test_numbers_of_another_type_are_named(tmp_path):
    header = b'{"a":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[0,1]}}'
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    with pytest.raises(OtherKindError, match=r"a\.safetensors has numbers of type F8_E8M0"):
        open_transformer(tmp_path / "a.safetensors")


def test_gguf_of_another_model_is_named(tmp_path):
    gguf = pytest.importorskip("gguf", reason="the extra gguf is not installed")
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "flux")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(OtherKindError, match="of another model: its architecture is 'flux'"):
        open_transformer(tmp_path / "a.gguf")


def test_objects_of_a_trainer_and_archives_are_not_called_damaged(tmp_path):
    torch.save({"weights": torch.ones(1), "options": argparse.Namespace(rank=4)}, tmp_path / "a.pt")
    with pytest.raises(OtherKindError, match=r"holds more than tensors \(argparse\.Namespace\)"):
        open_transformer(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        archive.writestr("weights.safetensors", b"1")
    with pytest.raises(OtherKindError, match="is an archive of other files"):
        open_transformer(tmp_path / "b.pt")
