"""Where weights are looked for, and what is said when they are not there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from hunyuan_video import weights
from hunyuan_video.config import Sampling
from hunyuan_video.request import Request


def test_a_complete_tree_is_found(official_tree):
    assert weights.find(official_tree).missing() == []


def test_nothing_there_says_where_it_looked_and_how_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No HunyuanVideo weights were found: looked for .*mp_rank_00.*hunyuan-video download"):
        weights.find(tmp_path)


def test_an_incomplete_tree_names_only_what_is_missing(official_tree, tmp_path):
    copy = shutil.copytree(official_tree, tmp_path / "ckpts")
    shutil.rmtree(copy / "text_encoder_2")
    with pytest.raises(FileNotFoundError, match=r"incomplete: looked for \S*text_encoder_2;"):
        weights.find(copy)


def test_everything_follows_one_root_except_what_is_named(official_tree, tmp_path):
    elsewhere = tmp_path / "mine.pt"
    elsewhere.touch()
    found = weights.find(official_tree, transformer=elsewhere)
    assert found.transformer == elsewhere and found.vae.is_relative_to(official_tree)


def test_a_folder_of_transformer_weights_means_the_official_file_in_it(official_tree):
    folder = weights.locate(official_tree).transformer.parent
    assert weights.find(official_tree, transformer=folder).transformer.name == "mp_rank_00_model_states.pt"


def test_without_official_weights_the_embedded_model_is_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = weights.find_or_embedded(None)
    assert found.is_embedded and found.missing() == []


def test_official_weights_in_ckpts_come_before_the_embedded_model(official_tree, tmp_path, monkeypatch):
    shutil.copytree(official_tree, tmp_path / "ckpts")
    monkeypatch.chdir(tmp_path)
    assert not weights.find_or_embedded(None).is_embedded


def test_a_named_root_without_weights_is_an_error_and_not_the_embedded_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="No HunyuanVideo weights"):
        weights.find_or_embedded(tmp_path)


def test_weights_bring_their_own_sampling_defaults(official_tree, tmp_path):
    copy = shutil.copytree(official_tree, tmp_path / "ckpts")
    (copy / "generation_config.json").write_text(json.dumps({"height": 64, "width": 96}))
    assert weights.locate(copy).sampling() == Sampling(height=64, width=96)
    assert weights.locate(official_tree).sampling() == Sampling()


@pytest.fixture
def diffusers_folder(tmp_path):
    """The places of a Diffusers folder, all empty but for what tells it."""
    root = tmp_path / "models--someone--HunyuanVideo" / "snapshots" / "abc"
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2", "scheduler"):
        (root / name).mkdir(parents=True)
    (root / "model_index.json").write_text("{}")
    (root / "transformer" / "config.json").write_text(json.dumps({"guidance_embeds": True}))
    (root / "scheduler" / "scheduler_config.json").write_text(json.dumps({"shift": 17.0}))
    return root


def test_a_diffusers_folder_is_known_by_its_index_and_brings_its_shift(diffusers_folder):
    found = weights.find(diffusers_folder)
    assert found.transformer == diffusers_folder / "transformer" and found.sampling() == Sampling(shift=17.0)
    with pytest.raises(ValueError, match="need an embedded guidance scale"):
        found.check(Request("A cat.", Sampling(guidance=None, cfg_scale=2.0)))


def test_a_folder_of_the_hub_cache_stands_for_its_snapshot(diffusers_folder):
    cached = diffusers_folder.parent.parent
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    assert weights.find(cached).root == diffusers_folder


def test_a_transformer_alone_in_its_folder_may_have_any_name(official_tree, tmp_path):
    copy = shutil.copytree(official_tree, tmp_path / "ckpts")
    official = weights.locate(copy).transformer
    renamed = official.rename(official.with_name("hunyuan_video_720_q8.gguf"))
    assert weights.find(copy).transformer == renamed


def test_a_file_is_not_taken_for_a_root(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(FileNotFoundError, match=r"is one file, but weights are the folder of a whole model.*--transformer"):
        weights.find(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "said"),
    [({}, False), ({"num_frames": 1}, False), ({"height": 256}, True), ({"width": 48}, True), ({"num_frames": 37}, True)],
)
def test_sizes_that_weights_were_not_trained_at_are_said(caplog, changes, said):
    found = weights.locate(weights.EMBEDDED)
    found.check(Request("A cat.", replace(found.sampling(), **changes)))
    assert ("trained at 64 to 128 pixels a side and up to 33 frames" in caplog.text) == said


@pytest.mark.parametrize(
    ("negative", "cfg_scale", "said"), [("blurry", 1.0, True), ("blurry", 2.0, False), ("", 1.0, False), (None, 1.0, False)]
)
def test_a_negative_prompt_that_does_nothing_is_said(caplog, negative, cfg_scale, said):
    found = weights.locate(weights.EMBEDDED)
    found.check(Request("A cat.", replace(found.sampling(), cfg_scale=cfg_scale), negative))
    assert ("The negative prompt does nothing" in caplog.text) == said


def test_guidance_is_refused_by_weights_without_it(official_tree, tmp_path):
    undistilled = tmp_path / "undistilled.safetensors"
    save_file({"img_in.proj.weight": torch.zeros(1)}, undistilled)
    with pytest.raises(ValueError, match="have no embedded guidance"):
        weights.find(official_tree, transformer=undistilled).check(Request("A cat."))
