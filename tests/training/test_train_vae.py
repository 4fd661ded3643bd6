"""Training VAEs: they learn, resume exactly, and leave what the pipeline loads."""

from __future__ import annotations

import json
import os
import signal
import warnings
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from tiny_checkpoint import VAE_JSON
from torch.distributed.checkpoint import FileSystemReader
from training.vae_runs import kill, stored

from hunyuan_video.checkpoint import load_vae
from hunyuan_video.models.vae import VAEConfig
from hunyuan_video.training import train_vae
from hunyuan_video.training.train_vae import VAETraining, start

CPU = torch.device("cpu")


class Squares:
    """Bright squares on dark ground that move to the right; the generator says where, and how bright."""

    def __init__(self, config: VAETraining):
        self.config = config

    def drawn(self, draw: torch.Generator, num_frames: int) -> np.ndarray:
        size = self.config.size
        top, left, *colour = torch.randint(0, size // 2, (5,), generator=draw).tolist()
        clip = np.full((num_frames, size, size, 3), 40, np.uint8)
        for frame in range(num_frames):
            clip[frame, top : top + size // 2, left + frame : left + frame + size // 2] = 150 + np.array(colour) * 200 // size
        return clip

    def video(self, draw: torch.Generator) -> np.ndarray:
        return self.drawn(draw, self.config.num_frames)

    def image(self, draw: torch.Generator) -> np.ndarray:
        return self.drawn(draw, 1)

    def held_out(self, number: int) -> np.ndarray:
        return self.drawn(torch.Generator().manual_seed(number), self.config.num_frames)


def train(config: VAETraining, folder: Path) -> float:
    with closing(train_vae.open_run(config, folder)) as run:
        return train_vae.train(config, run, start(config), Squares(config))


def masters(folder: Path) -> dict[str, torch.Tensor]:
    """All float32 weights in the newest checkpoint; the discriminator's start with "adversary."."""
    newest = max((folder / "checkpoints").iterdir())
    entries = FileSystemReader(newest).read_metadata().state_dict_metadata
    state = {name: torch.empty(entry.size) for name, entry in entries.items() if "master." in name and hasattr(entry, "size")}
    with warnings.catch_warnings(action="ignore"):
        dcp.load(state, checkpoint_id=newest, no_dist=True)
    return {name.replace("master.", ""): tensor for name, tensor in state.items()}


def fresh(config: VAETraining) -> dict[str, torch.Tensor]:
    """All weights before the first step."""
    adversary = train_vae.Adversary(config.seed, 1.0, CPU, torch.float32).weights.masters
    return start(config).state_dict() | {f"adversary.{name}": tensor for name, tensor in adversary.items()}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> VAETraining:
    """Everything at once, on a tiny VAE with tiny tiles, from nothing: steps 1 and 3 see images, 2 and 3 the discriminator."""
    architecture = tmp_path_factory.mktemp("architecture") / "config.json"
    architecture.write_text(json.dumps(VAE_JSON | {"sample_size": 32, "sample_tsize": 16}))
    return VAETraining(
        part="full",
        architecture=architecture,
        num_frames=5,
        size=40,
        max_stride=2,
        image_ratio=0.5,
        image_batch_size=2,
        num_steps=4,
        warmup_steps=1,
        kl_weight=1e-6,
        adversarial_weight=0.05,
        adversarial_start=2,
        tiling_probability=0.5,
        eval_clips=1,
        checkpoint_seconds=1e9,
    )


@pytest.fixture(scope="module")
def trained(full: VAETraining, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    train(full, folder)
    return folder


def test_a_killed_run_with_a_discriminator_continues_exactly(
    full: VAETraining, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = replace(full, checkpoint_seconds=0.0)
    kill(lambda: train(config, tmp_path), monkeypatch, at=3)
    train(config, tmp_path)
    actual = masters(tmp_path)
    assert all(torch.equal(actual[name], tensor) for name, tensor in masters(trained).items())
    assert all(torch.equal(stored(tmp_path)[name], tensor) for name, tensor in stored(trained).items())


def test_a_run_that_is_stopped_saves_a_checkpoint_and_continues_exactly(
    full: VAETraining, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    backward = train_vae.backward
    with monkeypatch.context() as patch:
        patch.setattr(train_vae, "backward", lambda *given: signal.raise_signal(signal.SIGINT) or backward(*given))
        with pytest.raises(KeyboardInterrupt):
            train(full, tmp_path)
    assert os.listdir(tmp_path / "checkpoints") == ["step-00000001"]
    train(replace(full, checkpoint_seconds=60.0, save_every=2), tmp_path)
    assert all(torch.equal(stored(tmp_path)[name], tensor) for name, tensor in stored(trained).items())


@pytest.mark.parametrize(("place", "function"), [("train_vae", "reconstruction_loss"), ("discriminator", "discriminator_loss")])
def test_steps_that_are_not_finite_stop_the_run_after_a_limit(
    full: VAETraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, function: str
):
    module = import_module(f"hunyuan_video.training.{place}")
    original, calls = getattr(module, function), []

    def broken(*given: Any) -> torch.Tensor:
        calls.append(None)
        return original(*given) * (float("nan") if len(calls) > 1 else 1)

    monkeypatch.setattr(module, function, broken)
    config = replace(full, adversarial_start=0, max_skipped=1)
    with pytest.raises(ValueError, match="not finite in 2 steps in a row, up to step 3"):
        train(config, tmp_path)


def test_all_of_the_vae_and_the_discriminator_have_learned(full: VAETraining, trained: Path):
    before, after = fresh(full), masters(trained)
    assert after.keys() == before.keys()
    assert all(not torch.equal(tensor, before[name]) for name, tensor in after.items() if tensor.ndim > 1)


def test_the_discriminator_waits_for_its_start(full: VAETraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    steps: list[int] = []
    learn = train_vae.Adversary.step
    monkeypatch.setattr(train_vae.Adversary, "step", lambda self, real, fake, step: steps.append(step) or learn(self, real, fake, step))
    train(full, tmp_path)
    assert steps == [2, 3]


def test_losses_without_weight_cost_nothing(full: VAETraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("Adversary", "load_perceptual", "kl_divergence", "tiled_decode"):
        monkeypatch.delattr(train_vae, name)
    train(replace(full, kl_weight=0.0, adversarial_weight=0.0, tiling_probability=0.0, num_steps=1), tmp_path)


def test_latents_are_scaled_to_variance_one(full: VAETraining, trained: Path):
    vae = load_vae(trained / "vae", torch.float32, CPU)
    x = train_vae.to_pixels(train_vae.to_batch([Squares(full).held_out(0)]))
    assert (vae.encode(x).mode() * vae.config.scaling_factor).std().item() == pytest.approx(1, abs=1e-3)


def test_encoder_and_decoder_learn_a_clip(full: VAETraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = replace(full, num_steps=40, size=16, learning_rate=2e-2, ema_decay=0.0, tiling_probability=0.0, adversarial_weight=0.0)
    clip = train_vae.to_batch([Squares(config).held_out(0)])
    monkeypatch.setattr(train_vae, "clips_of", lambda config, source, step: clip)
    before, _ = train_vae.evaluate(start(config), [clip])
    assert train(config, tmp_path) > before + 2


def test_the_decoder_alone_learns_from_weights(official_tree: Path, tmp_path: Path):
    config = VAETraining(part="decoder", weights=official_tree, num_frames=5, size=16, num_steps=2, warmup_steps=1, eval_clips=1)
    train(config, tmp_path / "first")
    before = load_vae(official_tree / "hunyuan-video-t2v-720p" / "vae", torch.float16, CPU)
    after = stored(tmp_path / "first")
    changed = {name.split(".")[0] for name, tensor in before.state_dict().items() if not torch.equal(tensor, after[name])}
    assert changed == {"decoder"}
    assert load_vae(tmp_path / "first" / "vae", torch.float32, CPU).config == before.config
    train(replace(config, part="full", weights=tmp_path / "first" / "vae", num_steps=1), tmp_path / "second")  # the next stage


def test_without_weights_the_official_architecture_is_trained():
    with torch.device("meta"):
        assert start(VAETraining()).config == VAEConfig()


def test_some_steps_run_in_tiles(full: VAETraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls: list[str] = []
    for name in ("tiled_encode", "tiled_decode"):
        function = getattr(train_vae, name)
        monkeypatch.setattr(train_vae, name, lambda *given, name=name, function=function: calls.append(name) or function(*given))
    train(replace(full, num_steps=8, adversarial_weight=0.0), tmp_path)
    assert calls == ["tiled_encode", "tiled_decode"] * (len(calls) // 2) and 0 < len(calls) // 2 < 8


def test_gradients_flow_through_tiles(full: VAETraining):
    vae = start(full).double().requires_grad_(False)
    latents = torch.randn(1, 4, 5, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    weight = vae.decoder.conv_out.conv.bias
    assert weight is not None
    train_vae.tiled_decode(vae, latents).square().sum().backward()
    assert latents.grad is not None
    direction = torch.randn(latents.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        up, down = (train_vae.tiled_decode(vae, latents + sign * 1e-5 * direction).square().sum() for sign in (1, -1))
    torch.testing.assert_close((latents.grad * direction).sum(), (up - down) / 2e-5, rtol=1e-5, atol=0.0)


def test_a_step_that_is_not_finite_changes_nothing(full: VAETraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    reconstruct = train_vae.reconstruct

    def broken(*given: Any) -> Any:
        pixels, posterior = reconstruct(*given)
        return pixels * float("nan"), posterior

    monkeypatch.setattr(train_vae, "reconstruct", broken)
    train(replace(full, num_steps=1, adversarial_start=0), tmp_path)
    before = fresh(full)
    assert all(torch.equal(tensor, before[name]) for name, tensor in masters(tmp_path).items())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_steps": 0}, "num_steps is 0"),
        ({"image_ratio": 1.5}, "image_ratio is 1.5; it must be from 0 to 1"),
        ({"num_frames": 16}, "num_frames is 16; it must be 4n"),
        ({"size": 20}, "size is 20; it must be a multiple of 8"),
        ({"part": "decoder"}, "--part decoder needs --weights"),
        ({"weights": Path("ckpts"), "architecture": Path("config.json")}, "leave out --architecture"),
        ({"part": "decoder", "weights": Path("ckpts"), "kl_weight": 1e-6}, "--part decoder trains no encoder"),
        ({"perceptual_weight": 0.1}, "belong together"),
        ({"perceptual_weights": (Path("vgg.pth"),)}, "belong together"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        VAETraining(**settings)


def test_tiles_without_seams_are_refused(full: VAETraining, tmp_path: Path):
    with pytest.raises(ValueError, match="A clip of 32 pixels and 5 frames is one tile of this VAE"):
        train(replace(full, size=32), tmp_path)
