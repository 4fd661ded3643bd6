"""`hunyuan-video inspect`: what people have, told from its contents."""

from __future__ import annotations

import pytest
import torch
from adapters import random_lora
from conftest import TINY, randomize
from safetensors.torch import load_file

from hunyuan_video import cli, weights
from hunyuan_video.apps.inspect import report
from hunyuan_video.checkpoint.convert import convert
from hunyuan_video.checkpoint.lora import save_lora
from hunyuan_video.models.transformer import HunyuanVideoTransformer


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return randomize(HunyuanVideoTransformer(TINY)).state_dict()


def test_a_transformer_is_described(official_tree, state):
    text = report(weights.locate(official_tree).transformer)
    size = sum(tensor.numel() for tensor in torch.load(weights.locate(official_tree).transformer, weights_only=True)["module"].values())
    for part in ("official layout, under 'module'", "1 + 2 blocks of width 32", "embedded", "float32 100%", f"{size:,} in", "in nothing"):
        assert part in text


def test_what_is_missing_and_unknown_is_listed(tmp_path, state):
    changed = {name: tensor for name, tensor in state.items() if name != "img_in.proj.bias"} | {"surplus": torch.ones(1)}
    torch.save(changed, tmp_path / "a.pt")
    assert "img_in.proj.bias is missing; surplus is unknown" in report(tmp_path / "a.pt")


def test_layers_in_8_bits_are_counted(tmp_path, official_tree):
    out, _ = convert(weights.locate(official_tree).transformer, tmp_path / "a.pt", "fp8")
    assert "8 bits      16 layers" in report(out)


@pytest.mark.parametrize("target", ["official", "diffusers"])
def test_a_whole_model_is_described_part_by_part(tmp_path, target):
    convert(weights.EMBEDDED, tmp_path / "a", target)
    text = report(tmp_path / "a")
    for part in ("transformer:", "HunyuanVideo VAE, 16 latent channels", "Llama text encoder", "CLIP"):
        assert part in text


@pytest.mark.parametrize(
    ("dialect", "words"),
    [("kohya", "kohya"), ("tencent", "Tencent"), ("original", "PEFT"), ("diffusers", "Diffusers")],
)
def test_a_lora_is_described(tmp_path, tiny_transformer, dialect, words):
    save_lora(random_lora(tiny_transformer), tmp_path / "a.safetensors", dialect)
    text = report(tmp_path / "a.safetensors")
    assert words in text and "rank " in text and "_blocks (1)" in text


def test_a_lora_is_described_in_its_folder_and_wrapper(tmp_path, tiny_transformer):
    (tmp_path / "epoch1").mkdir()
    save_lora(random_lora(tiny_transformer), tmp_path / "epoch1" / "adapter_model.safetensors", "original")
    (tmp_path / "epoch1" / "adapter_config.json").write_text("{}")
    assert "PEFT LoRA with original names" in report(tmp_path / "epoch1")
    torch.save({"state_dict": load_file(tmp_path / "epoch1" / "adapter_model.safetensors"), "step": 3}, tmp_path / "a.pt")
    assert "PEFT LoRA with original names" in report(tmp_path / "a.pt")


def test_the_command_prints_it_and_refuses_with_a_sentence(tmp_path, official_tree, capsys):
    assert cli.main(["inspect", str(weights.locate(official_tree).vae)]) == 0
    assert "HunyuanVideo VAE" in capsys.readouterr().out
    assert cli.main(["inspect", str(tmp_path / "absent.pt")]) == 2
    assert "There is no weight file" in capsys.readouterr().err


def test_the_convert_command_says_what_it_wrote(tmp_path, official_tree, capsys):
    out = tmp_path / "a.safetensors"
    assert cli.main(["convert", str(weights.locate(official_tree).transformer), str(out), "--to", "single-file"]) == 0
    assert capsys.readouterr().out.split() == [str(out)]
