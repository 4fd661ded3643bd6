"""Videos in other ways are made with the models that are there, unless these would be other ones."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest

from hunyuan_video import HunyuanVideo
from hunyuan_video.apps import bench
from hunyuan_video.config import SPEEDS, Runtime, Sampling
from hunyuan_video.evaluation import quality
from hunyuan_video.weights import find_or_embedded

EXACT = Runtime()
SMALL = Sampling(height=32, width=32, num_frames=5, num_steps=2)


@pytest.fixture
def loaded(monkeypatch) -> list[weakref.ref[HunyuanVideo]]:
    """The pipelines that were loaded; one that is loaded beside the first finds no other there."""
    load, made = HunyuanVideo.load, []

    def watched(*arguments: object) -> HunyuanVideo:
        assert all(pipe() is None for pipe in made[1:])
        pipe = load(*arguments)  # pyright: ignore[reportArgumentType]
        made.append(weakref.ref(pipe))
        return pipe

    monkeypatch.setattr(HunyuanVideo, "load", watched)
    return made


def measured(official_tree, folder, others: dict[str, Runtime], fewer_steps: tuple[int, ...] = ()) -> list[str]:
    asks = bench.Asks(["A cat."], 1, 1, folder)
    return [row.settings for row in bench.measure(find_or_embedded(official_tree), EXACT, others, fewer_steps, SMALL, asks, folder)]


def test_what_lives_for_one_video_loads_no_model_again(official_tree, tmp_path, loaded):
    others = {speed: Runtime(speed=speed) for speed in SPEEDS if speed != "exact"}
    others |= {
        "sparse": replace(EXACT, attention_density=0.5, sparse_pattern="tiles"),
        "cached": Runtime(speed="draft", attention_density=0.5),
    }
    assert measured(official_tree, tmp_path, others) == list(others) and len(loaded) == 1


def test_other_models_are_loaded_one_after_another_and_let_go(official_tree, tmp_path, loaded):
    others = {"8 bits": Runtime(fp8=True), "sparse": Runtime(attention_density=0.5), "both": Runtime(fp8=True, attention_density=0.5)}
    assert measured(official_tree, tmp_path, others) == ["sparse", "8 bits", "both"] and len(loaded) == 3


def test_models_that_are_shared_are_checked_all_the_same(official_tree, tmp_path):
    with pytest.raises(ValueError, match="sparse_pattern is 'tiles', but attention_density is 1"):
        measured(official_tree, tmp_path, {"sparse": Runtime(sparse_pattern="tiles")})


def test_fewer_steps_are_a_row_of_their_own_with_what_they_computed(official_tree, tmp_path):
    assert measured(official_tree, tmp_path, {}, (1,)) == ["--num-steps 1"]
    (row,) = quality.read(tmp_path / "rows.jsonl")
    assert row.passes == pytest.approx(1) and row.exact_passes == pytest.approx(2)


def test_as_many_steps_are_no_fewer(official_tree, tmp_path):
    with pytest.raises(ValueError, match="fewer_steps is 2; it must be 1 to 1 here"):
        measured(official_tree, tmp_path, {}, (2,))
