"""Training the miniature's VAE decoder: it learns, it resumes exactly, and leaves what the pipeline loads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hunyuan_video.models.vae import CausalVAE, VAEConfig
from hunyuan_video.training import train_vae
from hunyuan_video.training.train_vae import MINIATURE, VAETraining, keep_trunk, learning_rate, train

SHORT = VAETraining(
    pca_clips=8, trunk_steps=2, num_steps=3, warmup_steps=1, num_frames=5, size=16, eval_clips=1, eval_every=4, checkpoint_seconds=0.0
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vae")
    assert train(SHORT, folder) > 0
    return folder


def test_a_killed_run_continues_as_if_never_stopped(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    render_batch = train_vae.render_batch
    for kill_at in (1, 3):  # in the trunk's stage, then in the whole decoder's

        def killed(config: VAETraining, step: int, batch: int, kill_at: int = kill_at) -> torch.Tensor:
            if step == kill_at:
                raise KeyboardInterrupt
            return render_batch(config, step, batch)

        monkeypatch.setattr(train_vae, "render_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            train(SHORT, tmp_path)
    monkeypatch.undo()
    train(SHORT, tmp_path)
    expected, actual = (load_file(folder / "vae" / "pytorch_model.safetensors") for folder in (finished, tmp_path))
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_result_loads_strictly_from_the_official_layout(finished: Path):
    config = VAEConfig.from_json(json.loads((finished / "vae" / "config.json").read_text()))
    assert config == MINIATURE
    CausalVAE(config).load_state_dict(load_file(finished / "vae" / "pytorch_model.safetensors"))


def test_only_the_decoder_is_trained(finished: Path):
    vae = CausalVAE(MINIATURE)
    train_vae.pca.build_encoder(vae, train_vae.pca.PcaBasis.load(finished / "pca.safetensors"))
    trained = load_file(finished / "vae" / "pytorch_model.safetensors")
    for name, tensor in vae.encoder.down_blocks[2].downsamplers.state_dict(prefix="encoder.down_blocks.2.downsamplers.").items():
        assert torch.equal(trained[name], tensor.half())
    assert not torch.equal(trained["decoder.conv_in.conv.weight"], vae.decoder.conv_in.conv.weight.half())


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
        checkpoint_seconds=1e9,
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
    config = VAETraining(trunk_steps=10, num_steps=100, warmup_steps=5)
    assert learning_rate(config, 9) == config.trunk_learning_rate
    assert learning_rate(config, 10) == config.learning_rate / 5
    assert learning_rate(config, 60) == config.learning_rate
    assert learning_rate(config, 109) == pytest.approx(0.02 * config.learning_rate)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="num_steps is 0"):
        VAETraining(num_steps=0)
