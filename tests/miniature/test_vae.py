"""The miniature's VAE: its decoder learns in two stages, a killed run continues exactly, and rendered clips are what is seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training.vae_runs import kill, stored

from hunyuan_video.apps import train as commands
from hunyuan_video.miniature import drawing, pca, vae, world
from hunyuan_video.miniature.vae import MINIATURE, MiniatureTraining, RenderedWorld, keep_trunk, train, trunk_stage
from hunyuan_video.models.vae import CausalVAE, VAEConfig
from hunyuan_video.training import train_vae
from hunyuan_video.training.run import random_generator
from hunyuan_video.training.train_vae import last_stage, stage_at
from hunyuan_video.training.vae_clips import to_pixels
from hunyuan_video.video import save_video

SHORT = MiniatureTraining(
    pca_clips=8, trunk_steps=2, num_steps=3, warmup_steps=1, num_frames=5, size=16, eval_clips=1, eval_every=4, checkpoint_seconds=1e9
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    assert train(SHORT, folder) > 0
    return folder


def test_a_killed_run_continues_as_if_never_stopped(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = replace(SHORT, checkpoint_seconds=0.0)
    for at in (1, 3):  # in the trunk's stage, then in the whole decoder's
        kill(lambda: train(config, tmp_path), monkeypatch, at)
    train(config, tmp_path)
    expected, actual = stored(finished), stored(tmp_path)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_result_loads_strictly_from_the_official_layout(finished: Path):
    config = VAEConfig.from_json(json.loads((finished / "vae" / "config.json").read_text()))
    assert config == MINIATURE
    CausalVAE(config).load_state_dict(stored(finished))


def test_only_the_decoder_is_trained(finished: Path):
    built = CausalVAE(MINIATURE)
    pca.build_encoder(built, pca.PcaBasis.load(finished / "pca.safetensors"))
    trained = stored(finished)
    for name, tensor in built.encoder.down_blocks[2].downsamplers.state_dict(prefix="encoder.down_blocks.2.downsamplers.").items():
        assert torch.equal(trained[name], tensor.half())
    assert not torch.equal(trained["decoder.conv_in.conv.weight"], built.decoder.conv_in.conv.weight.half())


def test_more_steps_decode_better(tmp_path: Path):
    config = replace(
        SHORT,
        trunk_steps=40,
        num_steps=1,
        warmup_steps=5,
        trunk_learning_rate=1e-3,
        learning_rate=1e-5,
        ema_decay=0.0,
        eval_every=100,
    )
    assert train(config, tmp_path / "long") > train(replace(config, trunk_steps=1), tmp_path / "short") + 1


def test_trunk_keeps_its_parameter_names():
    decoder = CausalVAE(MINIATURE).decoder
    names = {name for name, _ in decoder.named_parameters()}
    keep_trunk(decoder)
    trunk = {name for name, _ in decoder.named_parameters()}
    assert trunk < names
    assert not any("conv1" in name or "mid_block" in name for name in trunk)


def test_learning_rate_ends_at_zero():
    config = MiniatureTraining(trunk_steps=10, num_steps=100, warmup_steps=5)
    stages = [trunk_stage(config), last_stage(config)]
    rates = [stage.learning_rate(number) for stage, number in (stage_at(stages, step) for step in range(110))]
    assert rates[9] == config.trunk_learning_rate
    assert rates[10] == config.learning_rate / 5
    assert rates[60] == config.learning_rate
    assert rates[109] == pytest.approx(0.02 * config.learning_rate)


def test_the_published_settings_can_be_given_as_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given: list[MiniatureTraining] = []
    monkeypatch.setattr(vae, "train", lambda config, out: given.append(config))
    flags = """--part full --data clips.csv --weights ckpts --size 256 --mse-weight 0 --gradient-weight 0 --kl-weight 1e-6 --image-ratio 0.2
        --max-stride 8 --perceptual-weight 0.1 --perceptual-weights vgg16-397923af.pth vgg.pth --adversarial-weight 0.05"""
    commands.run("train", "vae", ["--out", str(tmp_path), *flags.split()])
    assert given == [
        MiniatureTraining(
            part="full",
            data=Path("clips.csv"),
            weights=Path("ckpts"),
            size=256,
            mse_weight=0.0,
            gradient_weight=0.0,
            kl_weight=1e-6,
            image_ratio=0.2,
            max_stride=8,
            perceptual_weight=0.1,
            perceptual_weights=(Path("vgg16-397923af.pth"), Path("vgg.pth")),
            adversarial_weight=0.05,
        )
    ]


def test_media_files_are_trained_on(tmp_path: Path):
    draw = np.random.default_rng(0)
    for name in ("a.mp4", "b.mp4"):
        save_video(draw.integers(0, 255, (9, 48, 64, 3), np.uint8), tmp_path / "media" / name)
    psnr = train(replace(SHORT, data=tmp_path / "media", num_steps=1), tmp_path / "run")
    assert 0 < psnr < 100


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"weights": Path("ckpts")}, "give --part full or decoder"),
        ({"architecture": Path("config.json")}, "leave out --weights and --architecture"),
        ({"kl_weight": 1e-6}, "--part miniature trains no encoder"),
        ({"pca_clips": 0}, "pca_clips is 0"),
        ({"trunk_steps": -1}, "trunk_steps is -1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        MiniatureTraining(**settings)


# --- The rendered world --------------------------------------------------------------------------------------------------------


def steps_of(clip: np.ndarray) -> list[int]:
    """How far apart the frames are, where frame number i is of brightness 4 i."""
    return (np.diff(clip[:, clip.shape[1] // 2, clip.shape[2] // 2, 0].astype(int)) / 4).round().astype(int).tolist()


def test_rendered_strides_are_bounded_and_all_used(monkeypatch: pytest.MonkeyPatch):
    def counted(scene: world.Scene, height: int, width: int, num_frames: int) -> np.ndarray:
        return np.zeros((num_frames, height, width, 3), np.uint8) + 4 * np.arange(num_frames, dtype=np.uint8)[:, None, None, None]

    monkeypatch.setattr(drawing, "render", counted)
    source = RenderedWorld(num_frames=5, size=16, max_stride=3)
    seen = {tuple(steps_of(source.video(random_generator(0, i)))) for i in range(40)}
    assert seen == {(stride,) * 4 for stride in (1, 2, 3)}


def test_rendered_clips_follow_from_the_generator():
    source = RenderedWorld(num_frames=5, size=16, max_stride=2)
    a, b, other = (source.video(random_generator(0, seed)) for seed in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, other)
    assert a.shape == source.held_out(0).shape == (5, 16, 16, 3) and source.image(random_generator(0)).shape == (1, 16, 16, 3)


def test_a_share_of_the_clips_is_of_nature_but_none_that_is_held_out(monkeypatch: pytest.MonkeyPatch):
    white = lambda seed, size, num_frames: np.full((num_frames, size, size, 3), 255, np.uint8)  # noqa: E731
    monkeypatch.setattr(vae.nature, "render", white)
    source = RenderedWorld(num_frames=5, size=16, max_stride=1, of_nature=0.4)
    for one in (source.video, source.image):
        assert 0.3 < np.mean([one(random_generator(0, i)).min() == 255 for i in range(200)]) < 0.5
    assert all(source.held_out(i).min() < 255 for i in range(10))


def config_of(folder: Path) -> VAEConfig:
    return VAEConfig.from_json(json.loads((folder / "vae" / "config.json").read_text()))


def test_latents_of_the_world_stay_where_they_are_anchored(finished: Path, tmp_path: Path):
    config = replace(SHORT, part="full", weights=finished / "vae", num_steps=10, learning_rate=1e-3, ema_decay=0.0, nature=0.5)
    clip = to_pixels(torch.from_numpy(RenderedWorld(5, 16, 1).held_out(0))[None])

    def latents(folder: Path) -> torch.Tensor:
        model = CausalVAE(MINIATURE)
        model.load_state_dict({name: tensor.float() for name, tensor in stored(folder).items()})
        with torch.no_grad():
            return model.encode(clip).mean

    train(config, tmp_path / "free")
    train(replace(config, anchor=finished / "pca.safetensors", anchor_weight=10.0), tmp_path / "anchored")
    free, anchored = ((latents(tmp_path / name) - latents(finished)).square().mean() for name in ("free", "anchored"))
    assert anchored < free / 3
    assert [config_of(tmp_path / name).scaling_factor == 1 for name in ("free", "anchored")] == [False, True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nature": 1.5}, "nature is 1.5; it must be a share"),
        ({"nature": 0.5, "data": Path("clips")}, "nature is a share of rendered clips"),
        ({"anchor": Path("pca.safetensors")}, "--part miniature has its own projection"),
        ({"anchor": Path("pca.safetensors"), "part": "full", "data": Path("clips")}, "of which --data has none"),
        ({"anchor": Path("pca.safetensors"), "part": "full", "batch_size": 2}, "of one clip a step, not of 2"),
        ({"latent_noise": 0.1, "part": "full"}, "it is of given latents; give --anchor"),
        ({"anchor_weight": 0.0}, "anchor_weight is 0.0; it must be above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        MiniatureTraining(**settings)


def test_given_latents_are_noisy_by_no_more_than_is_said():
    seen: list[torch.Tensor] = []
    vae, target = CausalVAE(MINIATURE), torch.zeros(1, 3, 5, 32, 32)
    vae.post_quant_conv.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))

    def noise(latent_noise: float, step: int) -> torch.Tensor:
        config = replace(SHORT, latent_noise=latent_noise)
        train_vae.reconstruct(config, vae, torch.zeros(1, 16, 2, 4, 4), target, step)
        return seen[-1]

    assert not noise(0.0, 1).any()
    deviations = [noise(0.2, step).std().item() for step in range(20)]
    assert max(deviations) < 0.22 and min(deviations) < 0.05 and max(deviations) > 0.15
    assert torch.equal(noise(0.2, 3), noise(0.2, 3)) and not torch.equal(noise(0.2, 3), noise(0.2, 4))
