"""Videos in other ways are made with the models that are there, unless these would be other ones."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest

from hunyuan_video import HunyuanVideo
from hunyuan_video.apps import bench
from hunyuan_video.config import SPEEDS, Runtime, Sampling
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


def measured(official_tree, folder, others: dict[str, Runtime]) -> list[str]:
    arguments = find_or_embedded(official_tree), EXACT, others, SMALL, ["A cat."], 1, 1, folder, folder
    return [row.settings for row in bench.measure(*arguments)]


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
