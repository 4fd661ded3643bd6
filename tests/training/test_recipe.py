"""Recipes: stages start from the ones before, and what a recipe gets wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hunyuan_video import cli
from hunyuan_video.training import recipe as module
from hunyuan_video.training.recipe import read_recipe, train_recipe
from hunyuan_video.training.settings import LoraTraining

COMMON = """
cache = "{cache}"
num_steps = 2
token_budget = 16
learning_rate = 1e-3
hidden_size = 32
num_heads = 2
num_double_blocks = 1
num_single_blocks = 1
save_dtype = "float32"
"""


@pytest.fixture
def write(cache, tmp_path):
    def recipe(stages: str, common: str = COMMON) -> Path:
        path = tmp_path / "recipe.toml"
        path.write_text(common.format(cache=cache) + stages)
        return path

    return recipe


def test_each_stage_starts_from_the_one_before(write, tmp_path, monkeypatch):
    path = write(
        """
        [[stage]]
        name = "first"
        [[stage]]
        name = "still"
        learning_rate = 1e-12
        [[stage]]
        name = "told"
        distill = true
        [[stage]]
        name = "adapter"
        kind = "lora"
        rank = 2
        """
    )
    out = tmp_path / "runs"
    assert train_recipe(path, out) == [out / "adapter" / "lora_kohya.safetensors", out / "adapter" / "lora_diffusers.safetensors"]
    first, still, told = (load_file(out / name / "transformer.safetensors") for name in ("first", "still", "told"))
    assert all(torch.allclose(still[name], tensor, atol=1e-6) for name, tensor in first.items())
    assert told.keys() - still.keys() == {f"guidance_in.mlp.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")}

    trained = []
    monkeypatch.setattr(module, "train", lambda _config, folder, _runtime: trained.append(folder.name))
    (out / "told" / "transformer.safetensors").unlink()
    train_recipe(path, out)
    assert trained == ["told"], "finished stages were trained again"


def test_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "recipes").mkdir()
    path = tmp_path / "recipes" / "r.toml"
    path.write_text(
        'cache = "data/cache"\nstart = "../ckpts"\n[[stage]]\nname = "a"\nkind = "lora"\nlearning_rate = 1\nema_decay = "none"\n'
    )
    (stage,) = read_recipe(path, tmp_path / "out")
    assert isinstance(stage.config, LoraTraining) and stage.folder == tmp_path / "out" / "a"
    assert stage.config.cache == tmp_path / "recipes" / "data" / "cache" and stage.config.start == tmp_path / "recipes" / "../ckpts"
    assert stage.config.learning_rate == 1.0 and stage.config.ema_decay is None


def test_a_finished_stage_whose_settings_changed_is_refused(write, tmp_path):
    train_recipe(write('[[stage]]\nname = "a"\n'), tmp_path / "runs")
    with pytest.raises(ValueError, match="num_steps: 2 -> 3"):
        train_recipe(write('[[stage]]\nname = "a"\nnum_steps = 3\n'), tmp_path / "runs")


def test_a_stage_without_what_it_needs_is_named(write, tmp_path):
    with pytest.raises(ValueError, match="'a' lacks 'cache'"):
        read_recipe(write('[[stage]]\nname = "a"\nkind = "lora"\nstart = "w"\n', common=""), tmp_path)


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        ("", "has no stages"),
        ("[[stage]]\nnum_steps = 1\n", "each needs a .*name"),
        ('[[stage]]\nname = "a"\nlearning_rat = 1\n', "sets learning_rat, which stage 1, 'a', does not have"),
        ('[[stage]]\nname = "a"\nrank = 4\n', "sets rank, which"),
        ('[[stage]]\nname = "a"\nkind = "vae"\n', "is of kind 'vae'; it must be transformer or lora"),
        ('[[stage]]\nname = "a"\n[[stage]]\nname = "a"\n', "called a, a; each needs a name of its own"),
        ('[[stage]]\nname = "../a"\n', "can be a folder's"),
        ('[[stage]]\nname = "a"\nkind = "lora"\nstart = "w"\n[[stage]]\nname = "b"\n', "follows a LoRA"),
        ('[[stage]]\nname = "a"\nnum_steps = 0\n', "num_steps is 0"),
        ("[[stage]\n", "no recipe in TOML|not a recipe in TOML"),
    ],
)
def test_what_is_wrong_is_named(write, tmp_path, stages, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_recipe(write(stages), tmp_path)


def test_an_unknown_setting_of_all_stages_is_named(write, tmp_path):
    with pytest.raises(ValueError, match="sets colour, which"):
        read_recipe(write('[[stage]]\nname = "a"\n', COMMON + "colour = 3\n"), tmp_path)


def test_the_door_of_recipes(write, tmp_path, capsys):
    assert cli.main(["train", "recipe", str(write("")), "--out", str(tmp_path)]) == 2
    assert "has no stages" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "recipes").rglob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_that_come_with_the_project_can_be_read(path, tmp_path):
    stages = read_recipe(path, tmp_path)
    assert len(stages) >= 2
    assert all(later.config.start is not None for later in stages[1:])
