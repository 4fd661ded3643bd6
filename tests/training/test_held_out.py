"""The loss on samples that are not trained on, for each kind of beginning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training.cache_files import save_cache

from hunyuan_video import checkpoint
from hunyuan_video.distributed.world import World
from hunyuan_video.training.dataset import LatentCache
from hunyuan_video.training.held_out import HeldOut
from hunyuan_video.training.objectives import loss_of
from hunyuan_video.training.run import Run
from hunyuan_video.training.settings import TrainingRuntime
from hunyuan_video.training.train import build_model, train

KINDS = {"image_to_video": 0.3, "first_and_last": 0.2, "continuation": 0.2}


@pytest.fixture(scope="module")
def other(official_tree, tmp_path_factory) -> Path:
    encoder = checkpoint.load_text_encoder(official_tree / "text_encoder", official_tree / "text_encoder_2", dtype=torch.float32)
    return save_cache(tmp_path_factory.mktemp("held") / "out", encoder, [(4, 4, 4)] * 3 + [(1, 4, 4)])


def test_each_kind_that_is_learned_has_a_loss_of_its_own(config, other):
    config = replace(config, **KINDS, dtype="float32")
    cache, seen = LatentCache(other), []
    model = build_model(config, LatentCache(config.cache), torch.float32)

    def loss_at(noisy, velocity, _empty):
        seen.append((noisy.x.shape[2], noisy.clean_frames))
        return loss_of(model, noisy, velocity)

    held_out = HeldOut(config, cache, cache, loss_at, World())
    found = held_out()
    assert list(found) == ["held_out_text", "held_out_image_to_video", "held_out_first_and_last", "held_out_continuation"]
    videos = [clean for frames, clean in seen if frames > 1]
    assert videos[:9] == [()] * 3 + [(0,)] * 3 + [(0, 3)] * 3 and set(videos[9:]) <= {(0, 1), (0, 1, 2)}
    assert [clean for frames, clean in seen if frames == 1] == [()], "of which nothing is given"
    assert held_out() == found, "the noise is another the second time"


def test_what_is_not_learned_is_not_measured(config, other):
    cache = LatentCache(other)
    held_out = HeldOut(replace(config, image_to_video=0.5), cache, cache, lambda *_: torch.ones(()), World())
    assert held_out() == {"held_out_text": 1.0, "held_out_image_to_video": 1.0}


def test_a_training_logs_it_with_its_average_and_goes_on_as_without(config, other, tmp_path, monkeypatch):
    config = replace(config, **KINDS)
    (plain,) = train(config, tmp_path / "plain")
    logged: list[tuple[int, set[str]]] = []
    original = Run.log
    monkeypatch.setattr(Run, "log", lambda run, step, **scalars: logged.append((step, {*scalars})) or original(run, step, **scalars))
    (watched,) = train(config, tmp_path / "watched", TrainingRuntime(validation_cache=other, validation_every=2))
    assert [step for step, names in logged if "held_out_continuation" in names] == [2, 4]
    first, second = load_file(plain), load_file(watched)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_a_cache_of_other_encoders_is_refused(config, official_tree, tmp_path):
    encoder = checkpoint.load_text_encoder(official_tree / "text_encoder", official_tree / "text_encoder_2", dtype=torch.float32)
    other = save_cache(tmp_path / "other", encoder, [(2, 4, 4)], channels=8)
    with pytest.raises(ValueError, match=r"validation_cache has \(8, .* make both with the same encoders"):
        train(config, tmp_path / "run", TrainingRuntime(validation_cache=other))
