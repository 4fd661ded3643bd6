"""What a newcomer does: one command turns a few clips into a LoRA, another makes videos with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hunyuan_video import HunyuanVideo, cli
from hunyuan_video.miniature import drawing, world
from hunyuan_video.request import Adapter
from hunyuan_video.video import save_video

CAPTION = "A zorb on the grass"
COMMAND = "train lora --data clips --cache run/cache --out run --rank 8 --alpha 32 --learning-rate 2e-3 --warmup-steps 5"


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One video of a thing that the embedded model has never heard of."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    scene = world.Scene("apple", "still", "grass", "", seed=1)
    save_video(drawing.render(scene, 128, 128, 33), tmp_path / "clips" / "zorb.mp4", metadata=None)
    (tmp_path / "clips" / "zorb.txt").write_text(CAPTION)
    return tmp_path


def test_a_lora_learns_one_clip_by_heart(clips: Path):
    assert cli.main([*COMMAND.split(), "--num-steps", "220", "--caption-dropout", "0"]) == 0
    base, adapted = (HunyuanVideo.load(None, adapters=lora) for lora in ((), (Adapter(Path("run/lora_kohya.safetensors")),)))
    clip = base.encode(drawing.render(world.Scene("apple", "still", "grass", "", seed=1), 128, 128, 33))
    sampling = replace(base.defaults, num_steps=8, seed=5)
    before, after = ((pipe(CAPTION, sampling).latents - clip).square().mean().item() for pipe in (base, adapted))
    assert after < 0.1 * before
    other = replace(sampling, seed=6)
    assert not torch.equal(adapted(CAPTION, sampling).latents, adapted(CAPTION, other).latents)


def test_the_plan_names_what_this_and_the_13b_need_and_makes_nothing(clips: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main([*COMMAND.split(), "--plan"]) == 0
    said = capsys.readouterr().out
    assert "trained weights (float32)" in said and "Free now on cpu" in said
    assert "HunyuanVideo-13B would take" in said and "There is no cache in run/cache yet: counted with samples of 8,192 tokens" in said
    assert not (clips / "run").exists()


def test_what_cannot_fit_is_refused_with_the_numbers(clips: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hunyuan_video.training.train.available_memory", lambda device: 10_000_000)
    monkeypatch.setattr("hunyuan_video.apps.train.available_memory", lambda device: 10_000_000)
    for arguments in (["--plan"], []):
        assert cli.main([*COMMAND.split(), *arguments]) == 2
        assert "GB on each device, and 0.0 GB are free" in capsys.readouterr().err
