"""Where weights are looked for, and what is said when they are not there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import DATA
from safetensors.torch import save_file

from hunyuan_video import weights
from hunyuan_video.config import FullSampling, Sampling
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
    assert weights.locate(copy).sampling() == FullSampling(height=64, width=96)
    assert weights.locate(official_tree).sampling() == FullSampling()


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
    assert found.transformer == diffusers_folder / "transformer" and found.sampling() == FullSampling(shift=17.0)
    found.check(Request("A cat.", Sampling(cfg_scale=2.0)))
    (diffusers_folder / "generation_config.json").write_text('{"guidance": null}')
    with pytest.raises(ValueError, match="need an embedded guidance scale"):
        weights.find(diffusers_folder).check(Request("A cat."))  # read once for each


@pytest.mark.parametrize("pipeline", ["WanPipeline", "FluxPipeline", "HunyuanVideo15Pipeline", "StableDiffusionXLPipeline"])
def test_the_folder_of_another_model_is_called_what_it_is(diffusers_folder, pipeline):
    (diffusers_folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    shutil.rmtree(diffusers_folder / "text_encoder_2")
    with pytest.raises(ValueError, match=f"is a model for Diffusers' {pipeline}, not HunyuanVideo"):
        weights.find(diffusers_folder)


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


@pytest.mark.parametrize(("schedule", "said"), [("shift", True), ("linear-quadratic", False)])
def test_linear_steps_that_do_nothing_are_said(caplog, schedule, said):
    weights.locate(weights.EMBEDDED).check(Request("A cat.", Sampling(schedule=schedule, linear_steps=4)))
    assert ("linear_steps does nothing" in caplog.text) == said


def test_guidance_is_refused_by_weights_without_it(official_tree, tmp_path):
    undistilled = tmp_path / "undistilled.safetensors"
    save_file({"img_in.proj.weight": torch.zeros(1)}, undistilled)
    found = weights.find(official_tree, transformer=undistilled)
    with pytest.raises(ValueError, match="have no embedded guidance"):
        found.check(Request("A cat.", Sampling(guidance=6.0)))
    found.check(Request("A cat."))
    assert found.sampling() == FullSampling(guidance=None)


def test_what_weights_were_made_for_and_what_is_asked_must_go_together(tmp_path):
    found = root_with(tmp_path, '{"schedule": "linear-quadratic", "linear_steps": 25}')
    with pytest.raises(ValueError, match="linear_steps is 25; it must be below num_steps, 10"):
        found.check(Request("A cat.", Sampling(num_steps=10)))


# --- what files in a weights folder say of its use ---


def root_with(tmp_path, content: str, name: str = "generation_config.json"):
    """A root of nothing but that file; a scheduler's makes it a Diffusers folder."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, encoding="utf-8")
    if name == SCHEDULER:
        (tmp_path / "model_index.json").write_text("{}")
    return weights.locate(tmp_path)


SCHEDULER = "scheduler/scheduler_config.json"
ROOTS = DATA / "field" / "roots"


def test_a_generation_config_of_hugging_face_changes_nothing():
    found = weights.locate(ROOTS / "gen_hf")
    assert (found.sampling(), found.negative_prompt, found.image_to_video) == (FullSampling(), None, False)


@pytest.mark.parametrize("name", ["gen_list", "gen_bad"])
@pytest.mark.parametrize("read", [weights.Weights.sampling, lambda found: found.negative_prompt, lambda found: found.image_to_video])
def test_a_damaged_generation_config_is_refused_by_name(name, read):
    with pytest.raises(ValueError, match=r"^[^\n]*generation_config\.json is damaged [^\n]*\.$"):
        read(weights.locate(ROOTS / name))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"height": 100}', "height is 100; it must be a positive multiple of 16"),
        ('{"shift": "7"}', "shift is '7'; it must be float"),
        ('{"num_frames": null}', "num_frames is None; it must be int"),
        ('{"shift": NaN}', "shift is nan; it must be above 0"),
        ('{"cfg_scale": true}', "cfg_scale is True; it must be float"),
        ('{"negative_prompt": 3}', "negative_prompt is 3; it must be str"),
        ('{"image_to_video": "yes"}', "image_to_video is 'yes'; it must be bool"),
    ],
)
def test_a_wrong_value_is_refused_with_the_file_that_says_it(tmp_path, content, sentence):
    with pytest.raises(ValueError, match=rf"generation_config\.json: {sentence}"):
        root_with(tmp_path, content).sampling()


@pytest.mark.parametrize(
    ("content", "shift"),
    [
        ((ROOTS / "diff_noshift" / "scheduler_config.json").read_text(), 7.0),
        ('{"_class_name": "UniPCMultistepScheduler", "flow_shift": 5.0}', 5.0),
        ('{"_class_name": "EulerDiscreteScheduler"}', FullSampling().shift),
        ('\ufeff{"shift": 17}', 17.0),
    ],
)
def test_a_scheduler_says_its_shift_under_either_name_or_leaves_ours(tmp_path, content, shift):
    assert root_with(tmp_path, content, SCHEDULER).sampling() == FullSampling(shift=shift)


@pytest.mark.parametrize(("name", "sentence"), [("diff_list", " is damaged "), ("diff_null", ": shift is None; it must be float")])
def test_a_wrong_scheduler_is_refused_by_name(tmp_path, name, sentence):
    found = root_with(tmp_path, (ROOTS / name / "scheduler_config.json").read_text(), SCHEDULER)
    with pytest.raises(ValueError, match=rf"scheduler_config\.json{sentence}"):
        found.sampling()


def test_the_scheduler_counts_beside_a_generation_config_that_says_nothing_of_it(diffusers_folder):
    shutil.copy(ROOTS / "gen_hf" / "generation_config.json", diffusers_folder)
    assert weights.find(diffusers_folder).sampling() == FullSampling(shift=17.0)


@pytest.mark.parametrize(
    ("names", "embedded"),
    [
        (("x_embedder.proj.weight", "time_text_embed.guidance_embedder.linear_1.weight"), True),
        (("_orig_mod.img_in.proj.weight", "_orig_mod.guidance_in.mlp.0.weight"), True),
        (("x_embedder.proj.weight",), False),
        (("img_in.proj.weight", "byt5_in.fc1.weight"), None),
        (("input_blocks.0.0.weight",), None),
    ],
    ids=["Diffusers' names", "compiled", "without", "HunyuanVideo 1.5", "Stable Diffusion"],
)
def test_the_names_in_a_single_file_say_whether_it_takes_guidance(official_tree, tmp_path, names, embedded):
    for path, save in ((tmp_path / "a.safetensors", save_file), (tmp_path / "a.pt", torch.save)):
        save({name: torch.zeros(1) for name in names}, path)
        assert weights.find(official_tree, transformer=path).embedded_guidance is embedded


def test_what_is_for_a_run_to_say_is_passed_over_with_a_warning(official_tree, caplog):
    (official_tree / "generation_config.json").write_text('{"speed": "fast", "num_steps": 8, "max_length": 20}')
    assert weights.find(official_tree).sampling().num_steps == 8
    (said,) = [record.message for record in caplog.records]
    assert "generation_config.json sets speed, which is for a run to say and not for weights" in said
