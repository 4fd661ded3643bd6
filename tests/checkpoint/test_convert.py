"""Weights from any layout into any other: the numbers survive, Diffusers agrees, and nothing is overwritten or half written."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from conftest import manifest_layers
from safetensors.torch import load_file
from small_disk import small_disk

from hunyuan_video import HunyuanVideo, checkpoint
from hunyuan_video.checkpoint import convert as module
from hunyuan_video.checkpoint.convert import Target, convert
from hunyuan_video.checkpoint.lazy import Lazy
from hunyuan_video.config import Runtime
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.sampling import initial_noise
from hunyuan_video.transforms import fp8
from hunyuan_video.weights import EMBEDDED, locate

CPU = torch.device("cpu")
FILES: dict[Target, str] = {"official": "a.pt", "diffusers": "a", "single-file": "a.safetensors", "fp8": "a.pt", "gguf": "a.gguf"}


def load(path: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load_transformer(path, torch.float32, CPU).state_dict()


@pytest.fixture(scope="module")
def transformer(official_tree) -> Path:
    return locate(official_tree).transformer


def test_comfyui_is_the_only_layout_of_whole_models_alone():
    assert {*get_args(Target)} - FILES.keys() == {"comfyui"}


@pytest.mark.parametrize("target", FILES)
@pytest.mark.parametrize("source", FILES)
def test_every_layout_becomes_every_other(tmp_path, transformer, source: Target, target: Target):
    if "gguf" in (source, target):
        pytest.importorskip("gguf", reason="the extra gguf is not installed")
    (tmp_path / "first").mkdir()
    first, *_ = convert(transformer, tmp_path / "first" / FILES[source], source)
    second, *_ = convert(first, tmp_path / FILES[target], target)
    expected, loaded = load(transformer), load(second)
    exact = not {source, target} & {"fp8", "gguf"}
    for name, tensor in loaded.items():
        if tensor.dtype != fp8.FP8:
            torch.testing.assert_close(tensor, expected[name], rtol=0 if exact else 0.1, atol=0 if exact else 0.02)


@pytest.mark.parametrize("target", ["official", "diffusers"])
def test_a_whole_model_becomes_a_whole_model_that_makes_the_same_video(tmp_path, target: Target):
    convert(EMBEDDED, tmp_path / "model", target)
    assert locate(tmp_path / "model").sampling() == locate(EMBEDDED).sampling()
    assert locate(tmp_path / "model").image_to_video
    videos = [HunyuanVideo.load(root) for root in (EMBEDDED, tmp_path / "model")]
    first, second = (pipe("a red ball", replace(pipe.defaults, num_steps=2, num_frames=5, seed=1)).frames for pipe in videos)
    np.testing.assert_array_equal(first, second)


@torch.no_grad()
def test_a_converted_model_makes_the_same_video_in_diffusers(tmp_path):
    from diffusers import HunyuanVideoPipeline

    convert(EMBEDDED, tmp_path / "model", "diffusers")
    theirs = HunyuanVideoPipeline.from_pretrained(tmp_path / "model", dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    theirs.vae.use_framewise_decoding = False
    ours = HunyuanVideo.load(EMBEDDED, Runtime(vae_tiling=False))
    options = replace(ours.defaults, height=64, width=96, num_frames=9, num_steps=3, cfg_scale=2.0, seed=3)
    video = ours("a red ball rolls to the right", options)
    features = ours.encode_text(["a red ball rolls to the right", ""], options)
    frames = theirs(
        prompt_embeds=features.states[:1],
        prompt_attention_mask=features.mask[:1],
        pooled_prompt_embeds=features.pooled[:1],
        negative_prompt_embeds=features.states[1:],
        negative_prompt_attention_mask=features.mask[1:],
        negative_pooled_prompt_embeds=features.pooled[1:],
        true_cfg_scale=options.cfg_scale,
        guidance_scale=options.guidance,
        latents=initial_noise(ours.vae.config.latent_shape(options.num_frames, options.height, options.width), options.seed),
        height=options.height,
        width=options.width,
        num_frames=options.num_frames,
        num_inference_steps=options.num_steps,
        output_type="np",
    ).frames[0]
    np.testing.assert_allclose(frames * 255, video.frames, atol=1)


def test_the_un_cut_llava_is_cut(tmp_path, official_tree):
    from shutil import copytree

    from tiny_checkpoint import save_llava

    source = Path(copytree(official_tree, tmp_path / "source"))
    (source / "text_encoder").rename(tmp_path / "language_model")
    save_llava(tmp_path / "language_model", source / "text_encoder", "model.language_model.", "lm_head.", ("model.vision_tower.",))
    convert(source, tmp_path / "out", "official")
    written = load_file(tmp_path / "out" / "text_encoder" / "model.safetensors")
    original = load_file(tmp_path / "language_model" / "model.safetensors")
    assert {f"model.{name}" for name in written} == original.keys() - {"lm_head.weight"}
    assert json.loads((tmp_path / "out" / "text_encoder" / "config.json").read_text())["model_type"] == "llama"


# --- The official FP8 format ---


def test_fp8_is_written_as_the_official_pair(tmp_path, transformer):
    out, scales_out = convert(transformer, tmp_path / "model_fp8.pt", "fp8")
    assert scales_out == tmp_path / "model_fp8_map.pt"
    scales, state = torch.load(scales_out, weights_only=True), torch.load(out, weights_only=True)["module"]
    original = torch.load(transformer, weights_only=True)["module"]
    assert state.keys() == original.keys()
    assert scales.keys() == {name.removesuffix(".weight") for name in state if fp8.in_blocks(name) and state[name].ndim == 2}
    for name, tensor in state.items():
        scale = scales.get(name.removesuffix(".weight"))
        assert tensor.dtype == (torch.bfloat16 if scale is None or name.endswith("bias") else fp8.FP8)
    layer = "double_blocks.0.img_attn_qkv"
    assert scales[layer].shape == (1,) and scales[layer].dtype == torch.float32
    assert state[f"{layer}.weight"].float().abs().max() == fp8.LARGEST
    torch.testing.assert_close(state[f"{layer}.weight"].float() * scales[layer], original[f"{layer}.weight"], rtol=0.07, atol=0.001)


def test_the_layers_in_8_bits_are_the_published_ones():
    with torch.device("meta"):
        names = HunyuanVideoTransformer().state_dict()
    linears = {name.removesuffix(".weight") for name, tensor in names.items() if fp8.in_blocks(name) and tensor.ndim == 2}
    assert linears == manifest_layers("fp8_layers")


# --- Writing ---


def test_tensors_are_read_one_at_a_time(tmp_path):
    """Each is gone before the next is read, so that memory holds only one."""
    import weakref

    previous: list[weakref.ref] = []

    def read() -> torch.Tensor:
        assert all(tensor() is None for tensor in previous)
        tensor = torch.ones(3)
        previous.append(weakref.ref(tensor))
        return tensor

    state = {str(i): Lazy((3,), torch.float32, read) for i in range(4)}
    module.write_safetensors(state, tmp_path / "a.safetensors")
    module.write_pickle({"module": state}, tmp_path / "a.pt")
    assert len(previous) == 8
    assert load_file(tmp_path / "a.safetensors").keys() == torch.load(tmp_path / "a.pt", weights_only=True)["module"].keys() == state.keys()


def test_large_models_are_cut_into_shards(tmp_path, transformer, monkeypatch):
    monkeypatch.setattr(module, "SHARD_BYTES", 20_000)
    convert(transformer, tmp_path / "a", "diffusers")
    assert len(list((tmp_path / "a").glob("*-of-*.safetensors"))) > 2
    expected = load(transformer)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load(tmp_path / "a").items())


@pytest.mark.parametrize("taken", ["a.pt", "a_map.pt"])
def test_nothing_is_overwritten(tmp_path, transformer, taken):
    (tmp_path / taken).write_text("mine")
    with pytest.raises(FileExistsError, match=taken):
        convert(transformer, tmp_path / "a.pt", "fp8")
    assert [path.name for path in tmp_path.iterdir()] == [taken] and (tmp_path / taken).read_text() == "mine"


@pytest.mark.parametrize("target", FILES)
def test_a_failure_leaves_nothing(tmp_path, transformer, monkeypatch, target: Target):
    if target == "gguf":
        pytest.importorskip("gguf", reason="the extra gguf is not installed")
    tensors = torch.load(transformer, weights_only=True)["module"]
    torch.save(tensors, tmp_path / "source.pt")

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    def broken(self):
        return {name: Lazy(tensor.shape, tensor.dtype, fail) for name, tensor in self.state.items()}

    monkeypatch.setattr(module.StoredTransformer, "expanded", broken)
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match=r"Cannot write .*/a\S*: no space left on device; make room"):
        convert(tmp_path / "source.pt", tmp_path / FILES[target], target)
    assert [path.name for path in tmp_path.iterdir()] == ["source.pt"]


@pytest.mark.parametrize("target", FILES)
def test_a_disk_that_is_full_is_said_with_the_path(tmp_path, transformer, target: Target):
    if target == "gguf":
        pytest.importorskip("gguf", reason="the extra gguf is not installed")
    with small_disk(), pytest.raises(OSError, match=r"Cannot write .*/a(\.\w+)?: (file too large|the disk is full)"):
        convert(transformer, tmp_path / FILES[target], target)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system has no such call")
def test_room_for_all_numbers_is_taken_before_they_are_written(tmp_path, monkeypatch):
    """Into a mapped file: there a full disk is no error but a signal that kills."""

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    read = Lazy((4,), torch.float32, lambda: pytest.fail("numbers were written"))
    with pytest.raises(OSError, match="No space"):
        module.write_pickle({"module": {"a": read}}, tmp_path / "a.pt")


@pytest.mark.parametrize("target", ["official", "diffusers"])
def test_all_that_a_folder_holds_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch, target: Target):
    flushed: set[str] = set()
    out = tmp_path / "model"

    def flush(path: Path) -> None:
        assert not out.exists() or path == tmp_path
        flushed.add("/".join(path.parts[len(tmp_path.parts) + 1 :]))

    monkeypatch.setattr("hunyuan_video.files.flush", flush)
    convert(EMBEDDED, out, target)
    assert {path.relative_to(out).as_posix() for path in out.rglob("*")} <= flushed


def test_a_wrong_ending_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "empty.pt").touch()
    with pytest.raises(ValueError, match=r"ends in \.gguf"):
        convert(tmp_path / "empty.pt", tmp_path / "a.pt", "gguf")


def test_tensors_that_do_not_fit_are_listed_and_nothing_is_written(tmp_path, transformer):
    state = torch.load(transformer, weights_only=True)["module"]
    del state["img_in.proj.bias"]
    torch.save(state, tmp_path / "source.pt")
    with pytest.raises(ValueError, match=r"img_in\.proj\.bias is missing"):
        convert(tmp_path / "source.pt", tmp_path / "a", "diffusers")
    assert not (tmp_path / "a").exists()


def test_an_incomplete_model_is_named(tmp_path, official_tree):
    from shutil import copytree

    source = Path(copytree(official_tree, tmp_path / "source"))
    (source / "text_encoder").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"is incomplete: .*text_encoder is not there"):
        convert(source, tmp_path / "out", "diffusers")


def test_a_missing_source_and_a_target_inside_it_are_refused(official_tree, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no .*nowhere to convert"):
        convert(tmp_path / "nowhere", tmp_path / "out", "official")
    with pytest.raises(ValueError, match="which is to be converted; write it elsewhere"):
        convert(official_tree, official_tree / "inside", "official")
