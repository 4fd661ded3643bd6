"""What a newcomer does: one command turns a few clips into a LoRA, another makes videos with it."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from media_files import at, write_video
from PIL import Image, ImageDraw
from test_doors import ROOT

from hunyuan_video import HunyuanVideo, cli
from hunyuan_video.miniature import drawing, world
from hunyuan_video.request import Adapter
from hunyuan_video.training import media
from hunyuan_video.training.dataset import Bucket, LatentCache
from hunyuan_video.video import save_video

CAPTION = "A zorb on the grass"
COMMAND = "train lora --data clips --cache run/cache --out run --rank 8 --alpha 32 --learning-rate 2e-3 --warmup-steps 5"
COLOURS = {"red": (220, 30, 30), "green": (30, 170, 50), "yellow": (235, 215, 40)}
SMALL = ["train", "lora", "--data", "clips", "--rank", "2", "--num-steps", "1"]


SCENE = world.Scene("apple", "still", "grass", "", seed=1)  # a thing that the embedded model has never heard of


@pytest.fixture(scope="module")
def one_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one video."""
    folder = tmp_path_factory.mktemp("one")
    save_video(drawing.render(SCENE, 128, 128, 33), folder / "zorb.mp4", metadata=None)
    (folder / "zorb.txt").write_text(CAPTION)
    return folder


@pytest.fixture
def clips(one_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is called clips."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(one_clip, "clips")
    return tmp_path


def test_a_lora_learns_one_clip_by_heart(clips: Path):
    seen = drawing.render(SCENE, 64, 64, 9)
    save_video(seen, clips / "clips" / "zorb.mp4", metadata=None)
    assert cli.main([*COMMAND.split(), "--num-steps", "90", "--caption-dropout", "0", "--buckets", "9x64x64"]) == 0
    base, adapted = (HunyuanVideo.load(None, adapters=lora) for lora in ((), (Adapter(Path("run/lora_kohya.safetensors")),)))
    clip = base.encode(seen)
    sampling = replace(base.defaults, num_frames=9, height=64, width=64, num_steps=8, seed=5)
    before, after = ((pipe(CAPTION, sampling).latents - clip).square().mean().item() for pipe in (base, adapted))
    assert after < 0.1 * before
    other = replace(sampling, seed=6)
    assert not torch.equal(adapted(CAPTION, sampling).latents, adapted(CAPTION, other).latents)


@pytest.mark.slow
def test_captions_that_differ_by_one_word_give_what_each_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """At noise levels that show which clip it is, nobody needs the caption: the command of the README visits the others often enough."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    for name, colour in COLOURS.items():
        save_video(spinning_square(colour), tmp_path / "clips" / f"{name}.mp4")
        (tmp_path / "clips" / f"{name}.txt").write_text(f"a {name} square spins")
    levels = re.search(r"--sigma-mean \S+ --sigma-std \S+", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert levels is not None
    command = [*COMMAND.replace("--warmup-steps 5", "--warmup-steps 30").split(), *levels[0].split()]
    assert cli.main([*command, "--buckets", "5x64x64", "--num-steps", "150"]) == 0
    pipe = HunyuanVideo.load(None, adapters=(Adapter(Path("run/lora_kohya.safetensors")),))
    sampling = replace(pipe.defaults, num_frames=5, height=64, width=64, num_steps=8, seed=1)
    for name, colour in COLOURS.items():
        middle = pipe(f"a {name} square spins", sampling).frames[:, 24:40, 24:40].mean(axis=(0, 1, 2))
        assert np.abs(middle - colour).max() < 50, name


def spinning_square(colour: tuple[int, int, int]) -> np.ndarray:
    """Five frames of a quarter of a turn."""
    frames: list[np.ndarray] = []
    for angle in np.linspace(0.3, 0.3 + np.pi / 2, 5):
        picture = Image.new("RGB", (64, 64), (200, 200, 200))
        corners = [(32 + 21 * np.cos(angle + turn), 32 + 21 * np.sin(angle + turn)) for turn in np.arange(4) * np.pi / 2]
        ImageDraw.Draw(picture).polygon(corners, fill=colour)
        frames.append(np.asarray(picture))
    return np.stack(frames)


def test_the_plan_names_the_clips_and_what_this_and_the_13b_need_and_makes_nothing(
    clips: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    write_video(clips / "clips" / "short.mp4", at(24, 9))
    monkeypatch.setattr(media, "read_clips", None)  # what decodes whole videos
    assert cli.main([*COMMAND.split(), "--plan"]) == 0
    said = capsys.readouterr().out
    assert "clips: 1 sample of 2 sources (1 of 33x128x128), 33 frames; skipped are 1 too short. To be encoded first: 1 sample." in said
    assert "trained weights (float32)" in said and "Free now on cpu" in said and "There is no cache" not in said
    assert "HunyuanVideo-13B would take" in said
    assert not (clips / "run").exists()


def test_a_plan_without_clips_and_cache_says_what_it_counts_with(
    clips: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hunyuan_video.apps.train.released", lambda sizes: sizes)  # the 13B takes seconds to count
    assert cli.main(["train", "lora", "--cache", "cache", "--out", "run", "--plan"]) == 0
    assert "There is no cache in cache yet: counted with samples of 8,192 tokens" in capsys.readouterr().out


def test_a_plan_of_clips_that_cannot_be_used_says_what_they_lack(clips: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main([*COMMAND.split(), "--plan", "--buckets", "65x128x128"]) == 2
    assert "(1 too short); the shortest size, 65x128x128, needs 65 frames at 24 fps, 2.71 seconds" in capsys.readouterr().err


def test_buckets_are_those_that_are_given_or_those_of_the_cache(clips: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main([*SMALL, "--cache", "first", "--out", "run/1", "--buckets", "5x32x32", "9x32x32"]) == 0
    assert LatentCache("first").buckets == {Bucket(9, 32, 32): [0]}
    assert cli.main(["data", "prepare", "clips", "--out", "second", "--buckets", "5x32x32", "--fps", "12", "--clips-per-video", "2"]) == 0
    before = (clips / "second" / "manifest.json").read_bytes()
    assert cli.main([*SMALL, "--cache", "second", "--out", "run/2"]) == 0
    assert (clips / "second" / "manifest.json").read_bytes() == before
    assert cli.main([*SMALL, "--cache", "second", "--out", "run/2", "--buckets", "9x32x32"]) == 2
    assert "second was made with other settings (buckets: ['5x32x32'] -> ['9x32x32'])" in capsys.readouterr().err


def test_buckets_without_clips_are_refused(clips: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["train", "lora", "--cache", "cache", "--out", "run", "--buckets", "5x32x32"]) == 2
    assert "--buckets says to which sizes clips are cut; name them with --data, too." in capsys.readouterr().err


def test_a_run_goes_on_with_clips_that_came_or_went_and_says_how_many(clips: Path, caplog: pytest.LogCaptureFixture):
    command = [*SMALL, "--cache", "run/cache", "--out", "run", "--buckets", "5x32x32"]
    write_video(clips / "clips" / "gone.mp4", at(24, 8))
    assert cli.main(command) == 0
    encoded = (clips / "run" / "cache" / "shard-00000.safetensors").read_bytes()
    assert cli.main([*command, "--num-steps", "2"]) == 0
    assert "clips: " not in caplog.text
    for path in (clips / "clips").glob("gone.*"):
        path.unlink()
    (clips / "clips" / "zorb.txt").write_text("A zorb")
    for name in ("new", "other"):
        write_video(clips / "clips" / f"{name}.mp4", at(24, 8))
    assert cli.main([*command, "--num-steps", "3"]) == 0
    assert "clips: 2 new, 1 gone, 1 changed" in caplog.text and "run continues at step 2" in caplog.text
    assert len(LatentCache("run/cache")) == 3
    assert (clips / "run" / "cache" / "shard-00000.safetensors").read_bytes() == encoded  # of what is gone, in case it returns
    caplog.clear()
    assert cli.main([*command, "--num-steps", "3"]) == 0
    assert (
        "1 gone" not in caplog.text
        and "run has done 3 steps, so nothing is trained; with more --num-steps than that it goes on." in caplog.text
    )


def test_without_the_clips_a_run_takes_no_other_cache(clips: Path, capsys: pytest.CaptureFixture[str]):
    command = [*SMALL, "--cache", "run/cache", "--out", "run", "--buckets", "5x32x32"]
    assert cli.main(command) == 0
    (clips / "clips" / "zorb.txt").write_text("A zorb")
    assert cli.main(["data", "prepare", "clips", "--out", "run/cache", "--buckets", "5x32x32"]) == 0
    capsys.readouterr()
    assert cli.main(["train", "lora", "--cache", "run/cache", "--out", "run", "--rank", "2", "--num-steps", "2"]) == 2
    assert "what is in cache has changed" in capsys.readouterr().err


def test_what_cannot_fit_is_refused_with_the_numbers(clips: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hunyuan_video.training.train.available_memory", lambda device: 10_000_000)
    monkeypatch.setattr("hunyuan_video.apps.train.available_memory", lambda device: 10_000_000)
    for arguments in (["--plan"], []):
        assert cli.main([*COMMAND.split(), *arguments]) == 2
        assert "GB on each device, and 0.0 GB are free" in capsys.readouterr().err
