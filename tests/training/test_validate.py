"""Validation shows a training and leaves no trace in it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hunyuan_video import HunyuanVideo, Sampling, video
from hunyuan_video.config import Runtime
from hunyuan_video.pipeline import Video
from hunyuan_video.request import Adapter, Picture
from hunyuan_video.training.settings import LoraTraining, TrainingRuntime
from hunyuan_video.training.train import train
from hunyuan_video.training.validate import Validation
from hunyuan_video.weights import locate


@pytest.fixture
def runtime(official_tree, tmp_path) -> TrainingRuntime:
    (tmp_path / "prompts.txt").write_text("A cat.\n\nA dog 狗.\n", encoding="utf-8")
    return TrainingRuntime(
        validation_prompts=tmp_path / "prompts.txt",
        validation_every=2,
        validation_weights=official_tree,
        validation_seed=3,
        validation_frames=5,
        validation_height=32,
        validation_width=32,
        validation_num_steps=2,
    )


def test_videos_are_made_at_intervals_and_change_nothing(config, runtime, tmp_path):
    config = replace(config, num_steps=3)
    (watched,), (alone,) = train(config, tmp_path / "watched", runtime), train(config, tmp_path / "alone")
    assert watched.read_bytes() == alone.read_bytes()
    folder = tmp_path / "watched" / "validation"
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000002", "step-00000003"]
    names = sorted(path.name for path in (folder / "step-00000003").iterdir())
    assert names == ["00_A_cat_seed3.mp4", "01_A_dog_狗_seed3.mp4"]
    assert video.read_metadata(folder / "step-00000003" / names[1])["prompt"] == "A dog 狗."


def test_the_last_videos_are_those_of_the_result(config, runtime, official_tree, tmp_path, monkeypatch):
    shown: list[Video] = []
    call = HunyuanVideo.__call__

    def remember(self: HunyuanVideo, prompt: str, sampling: Sampling, **begins: Picture | None) -> Video:
        shown.append(call(self, prompt, sampling, **begins))
        return shown[-1]

    monkeypatch.setattr(HunyuanVideo, "__call__", remember)
    (path,) = train(replace(config, num_steps=2, dtype="float32", save_dtype="float32"), tmp_path / "run", runtime)
    pipe = HunyuanVideo.load(locate(official_tree, transformer=path), Runtime(attention="matmul"))
    latents = call(pipe, "A cat.", shown[0].provenance.sampling).latents
    torch.testing.assert_close(latents, shown[0].latents, atol=1e-5, rtol=1e-5)


def test_a_lora_is_shown_as_its_file_of_the_same_step_makes_it(cache, runtime, official_tree, tmp_path, monkeypatch):
    shown: list[Video] = []
    call = HunyuanVideo.__call__

    def remember(self: HunyuanVideo, prompt: str, sampling: Sampling, **begins: Picture | None) -> Video:
        shown.append(call(self, prompt, sampling, **begins))
        return shown[-1]

    monkeypatch.setattr(HunyuanVideo, "__call__", remember)
    config = LoraTraining(cache=cache, start=official_tree, num_steps=3, rank=2, learning_rate=5e-2, dtype="float32", save_dtype="float32")
    train(config, tmp_path / "run", runtime)  # two prompts after step 2, and two after step 3
    adapter = Adapter(tmp_path / "run" / "loras" / "step-00000002.safetensors")
    pipe = HunyuanVideo.load(official_tree, Runtime(attention="matmul", dtype="float32"), adapters=(adapter,))
    latents = call(pipe, "A cat.", shown[0].provenance.sampling).latents
    torch.testing.assert_close(latents, shown[0].latents, atol=1e-4, rtol=1e-4)
    assert (latents - shown[2].latents).abs().max() > 1e-3


def test_validation_without_weights_is_refused_at_the_start(config, runtime, tmp_path):
    with pytest.raises(ValueError, match="--validation-weights"):
        train(config, tmp_path / "run", replace(runtime, validation_weights=None))


def test_a_file_without_prompts_is_refused(config, runtime, tmp_path):
    (tmp_path / "prompts.txt").write_text("\n")
    with pytest.raises(ValueError, match="has no prompt"):
        train(config, tmp_path / "run", runtime)


def test_validation_at_every_zeroth_step_is_refused():
    with pytest.raises(ValueError, match="validation_every is 0"):
        Validation(validation_every=0)
