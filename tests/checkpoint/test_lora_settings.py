"""What decides a LoRA's strength outside its tensors: honoured wherever a trainer leaves it, or refused; never passed over."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from safetensors.torch import save_file

from hunyuan_video.checkpoint.lora import read_lora, save_lora

OUT, ADD_OUT = "transformer_blocks.0.attn.to_out.0", "transformer_blocks.0.attn.to_add_out"
PEFT = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "use_rslora": False, "use_dora": False, "alpha_pattern": {}, "rank_pattern": {}}


def factors(*layers: str, rank: int = 2) -> dict[str, torch.Tensor]:
    shapes = {"lora_A": (rank, 32), "lora_B": (32, rank)}
    return {f"transformer.{layer}.{factor}.weight": torch.ones(shape) for layer in layers for factor, shape in shapes.items()}


def scales(path: Path) -> tuple[float, ...]:
    """Of the projections of img and txt."""
    layers = read_lora(path, TINY).layers
    return tuple(layers[name].scale for name in ("double_blocks.0.img_attn_proj", "double_blocks.0.txt_attn_proj") if name in layers)


def with_header(folder: Path, header: dict[str, str]) -> Path:
    save_file(factors(OUT, ADD_OUT), folder / "a.safetensors", header)
    return folder / "a.safetensors"


def with_settings(folder: Path, file: str, beside: str, content: object) -> Path:
    save_file(factors(OUT, ADD_OUT), folder / file)
    (folder / beside).write_text(json.dumps(content))
    return folder


# --- Honoured ---


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (4.0, 4.0)),
        ({"alpha_pattern": {ADD_OUT: 1}}, (4.0, 0.5)),
        ({"alpha_pattern": {"attn.to_add_out": 1}}, (4.0, 0.5)),
        ({"alpha_pattern": {f"^{ADD_OUT}": 1, "to_out.0": 2}}, (1.0, 0.5)),
        ({"alpha_pattern": {"^attn.to_add_out": 1, "dd_out": 1}}, (4.0, 4.0)),
        ({"use_rslora": True}, (8 / sqrt(2), 8 / sqrt(2))),
        ({"use_rslora": True, "alpha_pattern": {ADD_OUT: 1}}, (8 / sqrt(2), 1 / sqrt(2))),
        ({"rank_pattern": {ADD_OUT: 2}}, (4.0, 4.0)),
    ],
)
def test_what_peft_says_of_alpha_is_honoured(tmp_path, settings, expected):
    """In its folder, where diffusion-pipe leaves it, too; and in the header, where Diffusers and finetrainers do."""
    assert scales(with_settings(tmp_path, "adapter_model.safetensors", "adapter_config.json", PEFT | settings)) == pytest.approx(expected)
    assert scales(tmp_path / "adapter_model.safetensors") == pytest.approx(expected)  # the file named, not the folder
    diffusers = {f"transformer.{key}": value for key, value in (PEFT | settings).items()}
    assert scales(with_header(tmp_path, {"lora_adapter_metadata": json.dumps(diffusers)})) == pytest.approx(expected)
    assert scales(with_header(tmp_path, {"lora_config": json.dumps(PEFT | settings)})) == pytest.approx(expected)


def test_what_fastvideo_says_of_alpha_is_honoured(tmp_path):
    content = {"step": 100, "lora_params": {"lora_rank": 2, "lora_alpha": 8, "target_modules": ["to_out.0"]}}
    assert scales(with_settings(tmp_path, "pytorch_lora_weights.safetensors", "lora_config.json", content)) == (4, 4)


@pytest.mark.parametrize("key", ["lora_alpha", "network_alpha", "alpha"])
def test_an_alpha_for_all_layers_is_honoured(tmp_path, key):
    assert scales(with_header(tmp_path, {key: "8", "rank": "2"})) == (4, 4)
    torch.save({"state_dict": factors(OUT, ADD_OUT), key: 8.0}, tmp_path / "a.pt")
    assert scales(tmp_path / "a.pt") == (4, 4)
    torch.save({"state_dict": factors(OUT, ADD_OUT), "lora_config": {key: 8, "rank": 2}}, tmp_path / "a.pt")
    assert scales(tmp_path / "a.pt") == (4, 4)


def test_a_layers_own_alpha_goes_before(tmp_path):
    tensors = factors(OUT, ADD_OUT) | {f"transformer.{ADD_OUT}.alpha": torch.tensor(1.0)}
    save_file(tensors, tmp_path / "a.safetensors", {"lora_alpha": "8"})
    assert scales(tmp_path / "a.safetensors") == (4, 0.5)


def test_what_was_honoured_is_not_said_again_of_a_file_written_of_it(tmp_path):
    """There it would act twice."""
    lora = read_lora(with_header(tmp_path, {"lora_alpha": "8", "ss_network_alpha": "8", "ss_tag": "cat"}), TINY)
    assert lora.metadata == {"ss_tag": "cat"}
    for dialect in ("kohya", "tencent", "original", "diffusers"):
        save_lora(lora, tmp_path / "b.safetensors", dialect, torch.float32)
        again = read_lora(tmp_path / "b.safetensors", TINY)
        for name, adapter in again.layers.items():
            torch.testing.assert_close(adapter.delta(), lora.layers[name].delta())


def test_settings_beside_a_file_of_another_name_are_not_its_own(tmp_path):
    """A folder of many LoRAs may have one of PEFT among them."""
    with_settings(tmp_path, "adapter_model.safetensors", "adapter_config.json", PEFT)
    assert scales(with_header(tmp_path, {})) == (1, 1)


def test_entries_of_a_training_are_passed_over_where_a_conversion_has_multiplied_alpha_in(tmp_path):
    """musubi-tuner's convert_lora keeps the header and multiplies by sqrt(alpha / rank) on both sides."""
    assert scales(with_header(tmp_path, {"ss_network_alpha": "1.0", "ss_network_dim": "2", "ss_network_module": "networks.lora"})) == (1, 1)


# --- Refused ---


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ({"lora_adapter_metadata": "{"}, "has damaged PEFT settings in its header"),
        ({"lora_adapter_metadata": "[]"}, "has damaged PEFT settings in its header"),
        ({"lora_adapter_metadata": '{"r": 2}'}, "has damaged PEFT settings .*there is no lora_alpha"),
        ({"lora_adapter_metadata": '{"lora_alpha": 1e999}'}, "has damaged PEFT settings .*alpha is inf"),
        ({"lora_adapter_metadata": '{"lora_alpha": 1, "alpha_pattern": 3}'}, "has damaged PEFT settings"),
        ({"lora_adapter_metadata": '{"lora_alpha": 1, "alpha_pattern": {"(a+)+b": 2}}'}, r"'\(a\+\)\+b'; only names are understood"),
        ({"lora_adapter_metadata": '{"lora_alpha": 1, "use_dora": true}'}, "header says that it is a DoRA"),
        ({"use_dora": "True"}, "header says that it is a DoRA"),
        ({"lora_alpha": "many"}, "has damaged PEFT settings"),
        ({"lora_alpha": "8", "alpha": "4"}, r"alpha is 4\.0 and 8\.0"),
        ({"scale": "0.5"}, "header says that scale is 0.5, which tools understand differently"),
        ({"lora_alpha": "8", "lora_config": '{"r": 2, "lora_alpha": 4}'}, "has two alphas: .* contradict each other"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused(tmp_path, header, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_lora(with_header(tmp_path, header), TINY)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"use_dora": True}, r"adapter_config\.json says that it is a DoRA"),
        ({"peft_type": "LOKR"}, r"adapter_config\.json says that it is a LOKR of PEFT"),
        ({"lora_alpha": None}, "there is no lora_alpha"),
    ],
)
def test_what_a_folder_of_peft_says_and_cannot_be_honoured_is_refused(tmp_path, settings: dict[str, Any], sentence):
    with pytest.raises(ValueError, match=sentence):
        read_lora(with_settings(tmp_path, "adapter_model.safetensors", "adapter_config.json", PEFT | settings), TINY)


def test_a_kohya_file_without_the_alphas_of_its_training_is_refused(tmp_path):
    layer = "lora_unet_double_blocks_0_img_attn_proj"
    tensors = {f"{layer}.lora_down.weight": torch.ones(2, 32), f"{layer}.lora_up.weight": torch.ones(32, 2)}
    save_file(tensors, tmp_path / "a.safetensors", {"ss_network_alpha": "1.0", "ss_network_dim": "2"})
    with pytest.raises(ValueError, match=r"img_attn_proj has no alpha, but the header tells of a training with alpha 1 at rank 2"):
        read_lora(tmp_path / "a.safetensors", TINY)
    save_file(tensors, tmp_path / "b.safetensors", {"ss_network_alpha": "2.0", "ss_network_dim": "2"})
    assert scales(tmp_path / "b.safetensors") == (1,)
