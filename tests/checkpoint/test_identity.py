"""Weights are known by their numbers, whatever the file, its name or its layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from adapters import random_lora

from hunyuan_video.checkpoint import identity, load_transformer
from hunyuan_video.checkpoint.convert import convert
from hunyuan_video.checkpoint.lazy import Lazy, stacked_rows
from hunyuan_video.transforms.lora import Lora, merge_lora
from hunyuan_video.weights import locate


@pytest.fixture
def tree(official_tree, tmp_path) -> Path:
    return shutil.copytree(official_tree, tmp_path / "ckpts")


def test_the_name_of_a_file_does_not_matter(tree):
    before, path = identity.of_model(locate(tree)), locate(tree).transformer
    path.rename(path.with_name("my_model_states.pt"))
    assert locate(tree).transformer != path and identity.of_model(locate(tree)) == before


@pytest.mark.parametrize("layout", ["diffusers", "official"])
def test_the_same_model_in_another_layout_is_the_same(tree, tmp_path, layout):
    convert(tree, tmp_path / "other", layout)
    assert identity.of_model(locate(tmp_path / "other")) == identity.of_model(locate(tree))


def test_the_same_transformer_in_another_format_is_the_same(tree, tmp_path):
    convert(tree, tmp_path / "a.safetensors", "single-file")
    assert identity.of_transformer(tmp_path / "a.safetensors") == identity.of_transformer(locate(tree).transformer)


@pytest.mark.parametrize("layout", ["fp8", "gguf"])
def test_rounded_weights_are_others(tree, tmp_path, layout):
    (path, *_) = convert(tree, tmp_path / f"a.{'pt' if layout == 'fp8' else 'gguf'}", layout)
    assert identity.of_transformer(path) != identity.of_transformer(locate(tree).transformer)


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_a_changed_number_makes_other_weights(tree, part):
    before, folder = identity.of_model(locate(tree)), getattr(locate(tree), part)
    path = folder if folder.is_file() else next(folder.glob("*.pt"))
    state = torch.load(path, weights_only=True)
    inner = state.get("module", state.get("state_dict", state))
    inner[next(name for name in inner if name.endswith("bias"))] += 1
    torch.save(state, path)
    assert identity.of_model(locate(tree)) != before


def test_the_average_of_the_weights_is_another_model(tree):
    path = locate(tree).transformer
    state = torch.load(path, weights_only=True)["module"]
    torch.save({"module": state, "ema": {name: tensor * 2 for name, tensor in state.items()}}, path)
    assert identity.of_model(locate(tree, load_key="ema")) != identity.of_model(locate(tree))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("text_encoder/config.json", '"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'),
        ("text_encoder/config.json", '"rope_theta": 10000.0', '"rope_theta": 500000.0'),
        ("text_encoder_2/config.json", '"hidden_act": "quick_gelu"', '"hidden_act": "gelu"'),
        ("text_encoder/tokenizer.json", '"add_prefix_space": false', '"add_prefix_space": true'),
        ("hunyuan-video-t2v-720p/vae/config.json", "0.476986", "0.5"),
    ],
)
def test_what_a_file_beside_the_weights_says_counts_too(tree, file, old, new):
    before, text = identity.of_model(locate(tree)), (tree / file).read_text()
    assert old in text
    (tree / file).write_text(text.replace(old, new))
    assert identity.of_model(locate(tree)) != before


@pytest.mark.parametrize("layer", ["double_blocks.0.img_attn_qkv", "single_blocks.1.linear2"])
def test_a_merged_lora_makes_another_model_though_it_is_in_one_layer_alone(tree, layer):
    """And of q, k and v in one alone, as Diffusers trains them."""
    path = locate(tree).transformer
    before = identity.of_transformer(path)
    model = load_transformer(path, torch.float32, torch.device("cpu"))
    (adapter,) = random_lora(model, where=lambda name: name == layer).layers.values()
    if layer.endswith("qkv"):
        adapter.up[: len(adapter.up) * 2 // 3] = 0
    merge_lora(model, Lora({layer: adapter}), 1e-3)
    torch.save({"module": model.state_dict()}, path.with_name("merged.pt"))
    assert identity.of_transformer(path.with_name("merged.pt")) != before


def test_rows_are_read_from_the_piece_that_holds_them():
    def never() -> torch.Tensor:
        raise AssertionError("all of it was read")

    pieces = [Lazy((2, 3), torch.float32, never, read_row=lambda row, of=of: torch.full((3,), 10.0 * of + row)) for of in range(3)]
    assert [stacked_rows(pieces).row(row)[0].item() for row in range(6)] == [0, 1, 10, 11, 20, 21]
