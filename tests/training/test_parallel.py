"""Trainings on several gloo ranks are the training of one process."""

from __future__ import annotations

import os
import shutil
import socket
import time
from pathlib import Path

import pytest
from forked import python
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hunyuan_video.training.recipe import read_recipe
from hunyuan_video.training.train import results, train

RECIPE = """
cache = "{cache}"
start = "{base}"
num_steps = 4
token_budget = 16
batches_per_step = 4
learning_rate = 1e-3
warmup_steps = 2
image_to_video = 0.5
dtype = "float32"
save_dtype = "float32"
checkpoint_seconds = 0
keep_checkpoints = 100

[[stage]]
name = "whole"
{more}
"""
VALIDATED = """
validation_prompts = "prompts.txt"
validation_every = 2
validation_weights = "{tree}"
validation_frames = 5
validation_height = 16
validation_width = 16
validation_num_steps = 2
"""
ONE_AND_TWO = """
[[stage]]
name = "sequence"
num_steps = 2
sequence_parallel = {sequence_parallel}
checkpoint_activations = true
checkpoint_seconds = 1000

[[stage]]
name = "distilled"
distill = true
dtype = "bfloat16"
num_steps = 2
checkpoint_seconds = 1000

[[stage]]
name = "uneven"
kind = "lora"
dtype = "bfloat16"
rank = 3
num_steps = 2
checkpoint_seconds = 1000

[[stage]]
name = "adapter"
kind = "lora"
fp8 = true
rank = 2
num_steps = 2
checkpoint_seconds = 1000
"""
TRAIN = """
import sys; from hunyuan_video.cli import main; from nudge import as_told
with as_told():
    sys.exit(main(['train', 'recipe', sys.argv[1], '--out', sys.argv[2]]))
"""


# Rank 1 alone is told to end, in the second of its steps, of which each has two micro-batches there.
STOP = """
import os, signal, sys
from hunyuan_video.cli import main
from hunyuan_video.signals import enter
from hunyuan_video.training import train
whole, seen = train.loss_of, []
def loss_of(*arguments):
    seen.append(None)
    if os.environ["RANK"] == "1" and len(seen) == 3:
        signal.raise_signal(signal.SIGTERM)
    return whole(*arguments)
train.loss_of = loss_of
enter(lambda: main(['train', 'recipe', sys.argv[1], '--out', sys.argv[2]]))
"""


def on_ranks(ranks: int, recipe: Path, out: Path, code: str = TRAIN, ends: tuple[int, ...] | None = None) -> None:
    """Train a recipe in as many processes, as torchrun would start them, which must end with the codes `ends` (all: 0)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        python("-c", code, str(recipe), str(out), says=out.with_name(f"rank{rank}"), RANK=str(rank), LOCAL_RANK=str(rank), **shared)
        for rank in range(ranks)
    ]
    deadline = time.monotonic() + 600
    try:
        codes = tuple(process.ended(deadline - time.monotonic()) for process in processes)
    finally:
        for process in processes:
            process.process.kill()
    assert codes == (ends or (0,) * ranks), processes[0].error.read_text()[-3000:]


def interrupted(run: Path, copy: Path) -> None:
    """A copy of a run as it was after step 2."""
    (copy / "checkpoints").mkdir(parents=True)
    shutil.copy(run / "config.json", copy)
    shutil.copytree(run / "checkpoints" / "step-00000002", copy / "checkpoints" / "step-00000002")


def metric(run: Path, name: str) -> list[float]:
    events = EventAccumulator(str(run))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


def assert_same(first: Path, second: Path, tolerance: float = 2e-5) -> None:
    """The same losses and gradients, and the same results but for rounding. A weight's first steps have the size of the learning rate
    whatever the size of its gradient, so the largest difference says little where that is almost zero: the mean must be small."""
    for name in ("loss", "gradient_norm"):
        assert metric(first, name)[-2:] == pytest.approx(metric(second, name)[-2:], rel=max(tolerance, 1e-5)), name
    for path in first.glob("*.safetensors"):
        other = load_file(second / path.name)
        for name, tensor in load_file(path).items():
            assert (tensor - other[name]).abs().mean() < tolerance * (1 + tensor.abs().mean()), (path.name, name)


@pytest.fixture(scope="module")
def recipe(cache, base, official_tree, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "prompts.txt").write_text("A cat.\nA dog.\nA boat.\n")
    others = [ONE_AND_TWO.format(sequence_parallel=ranks) for ranks in (1, 2)]
    for name, more in (("1", others[0]), ("2", VALIDATED.format(tree=official_tree) + others[1]), ("whole", "")):
        (folder / f"{name}.toml").write_text(RECIPE.format(cache=cache, base=base, more=more))
    return folder


@pytest.fixture(scope="module")
def two(recipe, tmp_path_factory) -> Path:
    """The stages, trained by two ranks."""
    out = tmp_path_factory.mktemp("two")
    on_ranks(2, recipe / "2.toml", out)
    return out


@pytest.fixture(scope="module")
def one(recipe, tmp_path_factory) -> Path:
    """The stages, trained by this process; without validation."""
    out = tmp_path_factory.mktemp("one")
    for folder, config, runtime in read_recipe(recipe / "1.toml", out):
        train(config, folder, runtime)
    return out


@pytest.mark.parametrize(
    ("stage", "tolerance"), [("whole", 2e-5), ("sequence", 2e-5), ("distilled", 2e-3), ("uneven", 2e-3), ("adapter", 2e-5)]
)
def test_two_ranks_are_one(one, two, stage, tolerance):
    assert_same(one / stage, two / stage, tolerance)


def test_ranks_share_the_validation_prompts(two):
    for step in (2, 4):
        names = sorted(path.name for path in (two / "whole" / "validation" / f"step-{step:08d}").iterdir())
        assert names == ["00_A_cat_seed0.mp4", "01_A_dog_seed0.mp4", "02_A_boat_seed0.mp4"]


def test_a_checkpoint_of_two_ranks_is_continued_by_one(two, recipe, tmp_path):
    interrupted(two / "whole", tmp_path / "whole")
    folder, config, runtime = read_recipe(recipe / "1.toml", tmp_path)[0]
    train(config, folder, runtime)
    assert len(metric(folder, "loss")) == 2, "it did not continue after step 2"
    assert_same(two / "whole", folder)


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_checkpoint_of_two_ranks_is_continued_by_as_many_exactly_and_by_four(two, recipe, tmp_path, ranks):
    interrupted(two / "whole", tmp_path / "whole")
    on_ranks(ranks, recipe / "whole.toml", tmp_path)
    assert_same(two / "whole", tmp_path / "whole")
    if ranks == 2:
        (result,) = results(read_recipe(recipe / "whole.toml", tmp_path)[0].config, tmp_path / "whole")
        assert result.read_bytes() == (two / "whole" / result.name).read_bytes()
        assert metric(tmp_path / "whole", "loss") == metric(two / "whole", "loss")[-2:]


def test_ranks_of_which_one_is_told_to_end_all_save_a_checkpoint_and_end(cache, base, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(cache=cache, base=base, more="").replace("checkpoint_seconds = 0", "checkpoint_seconds = 1000"))
    on_ranks(2, recipe, tmp_path / "out", STOP, ends=(130, 143))
    assert os.listdir(tmp_path / "out" / "whole" / "checkpoints") == ["step-00000002"]
