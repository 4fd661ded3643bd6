"""A whole model as ComfyUI's own nodes load it: by the names and shapes that it goes by (comfy/model_detection.py, sd.py, clip_vision.py).
tests/comfyui holds all of them against a real ComfyUI, where there is one."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
import torch
from conftest import manifest
from safetensors.torch import load_file

from hunyuan_video import checkpoint
from hunyuan_video.checkpoint import comfyui
from hunyuan_video.checkpoint.convert import convert
from hunyuan_video.models.transformer import TransformerConfig
from hunyuan_video.weights import locate

Shapes = dict[str, list[int]]


@pytest.fixture(scope="module")
def written(official_tree, tmp_path_factory) -> Path:
    return convert(official_tree, tmp_path_factory.mktemp("comfyui") / "models", "comfyui")[0]


def load(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}.safetensors")


def shapes(state: dict[str, torch.Tensor]) -> Shapes:
    return {name: [*tensor.shape] for name, tensor in state.items()}


def detected(state: Shapes) -> dict[str, object] | None:
    """What ComfyUI sees in a transformer; None if it sees another model."""
    if "txt_in.individual_token_refiner.blocks.0.norm1.weight" not in state:
        return None

    def count(kind: str) -> int:
        return len({name.split(".")[1] for name in state if name.startswith(f"{kind}.")})

    return {
        "double_blocks": count("double_blocks"),
        "single_blocks": count("single_blocks"),
        "in_channels": state["img_in.proj.weight"][1],
        "hidden_size": state["img_in.proj.weight"][0],
        "text_dim": state["txt_in.input_embedder.weight"][1],
        "guidance": any(name.startswith("guidance_in.") for name in state),
        "vector": any(name.startswith("vector_in.") for name in state),
        "others": [name for name in ("byt5_in.fc1.weight", "cond_type_embedding.weight", "vision_in.proj.0.weight") if name in state],
    }


def test_each_part_is_in_its_folder(written):
    assert sorted(path.relative_to(written).as_posix() for path in written.rglob("*.*")) == [
        "diffusion_models/hunyuan_video_t2v_720p.safetensors",
        "text_encoders/clip_l.safetensors",
        "text_encoders/llava_llama3.safetensors",
        "vae/hunyuan_video_vae.safetensors",
    ]


def test_the_transformer_is_detected_with_its_sizes(written):
    seen = detected(shapes(load(written, "diffusion_models/hunyuan_video_t2v_720p")))
    sizes = {"double_blocks": 1, "single_blocks": 2, "in_channels": 4, "hidden_size": 32, "text_dim": 16}
    assert seen == sizes | {"guidance": True, "vector": True, "others": []}


def test_the_released_names_are_detected_as_the_released_model():
    sizes = {"double_blocks": 20, "single_blocks": 40, "in_channels": 16, "hidden_size": 3072, "text_dim": 4096}
    assert detected(manifest("dit_hyvideo_t2_cfgdistill")) == sizes | {"guidance": True, "vector": True, "others": []}


def test_the_transformers_names_are_the_official_ones(written, official_tree):
    official = torch.load(locate(official_tree).transformer, weights_only=True)["module"]
    state = load(written, "diffusion_models/hunyuan_video_t2v_720p")
    assert state.keys() == official.keys()
    assert all(torch.equal(state[name], official[name]) for name in official)


def test_the_vae_is_detected_and_renamed_as_diffusers_own(written, official_tree):
    state, (_, official) = load(written, "vae/hunyuan_video_vae"), checkpoint.read_vae(locate(official_tree).vae)
    assert state.keys() == official.keys()
    for names in (state, manifest("vae_884_16c")):
        assert "decoder.up_blocks.0.resnets.0.norm1.weight" in names  # so it renames them, and then goes by
        assert "decoder.conv_in.conv.weight" in names
        assert "decoder.mid_block.resnets.0.norm1.norm_layer.weight" not in names  # as CogVideoX's has
    assert manifest("vae_884_16c")["decoder.conv_in.conv.weight"][1] == 16


def test_the_language_model_is_whole_and_detected_as_llama_3(written, official_tree):
    state = load(written, "text_encoders/llava_llama3")
    original = load_file(official_tree / "text_encoder" / "model.safetensors")
    assert state.keys() == original.keys() - {"lm_head.weight"}
    assert "model.layers.0.post_attention_layernorm.weight" in state
    assert not [name for name in state if re.search(r"q_norm|post_feedforward|bias", name)]  # as of Qwen and Gemma
    assert all(torch.equal(state[name], original[name]) for name in state)


def test_clip_is_its_text_tower(written, official_tree):
    state = load(written, "text_encoders/clip_l")
    original = load_file(official_tree / "text_encoder_2" / "model.safetensors")
    assert state.keys() == {name for name in original if name.startswith("text_model.") and not name.endswith("position_ids")}
    assert "text_model.encoder.layers.0.mlp.fc1.weight" in state


def test_what_sees_the_picture_is_a_file_of_its_own(image_tree, tmp_path):
    root = image_tree("latent_concat", guided=False)
    folder = convert(root, tmp_path / "models", "comfyui")[0]
    state = load(folder, "clip_vision/llava_llama3_vision")
    assert "multi_modal_projector.linear_1.bias" in state
    assert "vision_model.encoder.layers.2.layer_norm1.weight" in state and "vision_model.post_layernorm.weight" in state
    assert {name.split(".")[0] for name in state} == {"vision_model", "multi_modal_projector"}
    assert {name.split(".")[0] for name in load(folder, "text_encoders/llava_llama3")} == {"model"}
    seen = detected(shapes(load(folder, "diffusion_models/hunyuan_video_i2v_720p")))
    assert seen is not None
    assert (seen["in_channels"], seen["guidance"]) == (9, False)


def test_sizes_that_comfyui_does_not_know_are_said(official_tree, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        convert(official_tree, tmp_path / "models", "comfyui")
        assert "will not load" in caplog.text
        caplog.clear()
        comfyui.warn_of_sizes(TransformerConfig(), tmp_path)
        assert caplog.text == ""


def test_a_transformer_alone_is_refused(official_tree, tmp_path):
    with pytest.raises(ValueError, match="is no whole model, which comfyui is; give the root of one"):
        convert(locate(official_tree).transformer, tmp_path / "models", "comfyui")
    assert not (tmp_path / "models").exists()
