"""Training the transformer: it learns, and a killed run ends exactly where an undisturbed one does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoint import save_text_encoders

from hunyuan_video import checkpoint
from hunyuan_video.checkpoint import load_text_encoder
from hunyuan_video.models.transformer import Context, rope_table
from hunyuan_video.training.dataset import LatentCache
from hunyuan_video.training.master import MasterWeights
from hunyuan_video.training.run import Run, random_generator
from hunyuan_video.training.train import TransformerTraining, build_model, train, velocity_loss

CAPTIONS = ["a cat", "a dog in the snow", "a boat at sea", "the robot"]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TransformerTraining:
    """Four clips of 4-channel latents, encoded captions, and a transformer of one block each."""
    root = tmp_path_factory.mktemp("training")
    (root / "cache").mkdir()
    encoder = load_text_encoder(*save_text_encoders(root), dtype=torch.float32)
    features = encoder.encode(CAPTIONS)
    generator = torch.Generator().manual_seed(0)
    save_file(
        {
            "latents": torch.randn(4, 4, 2, 4, 4, generator=generator).half(),
            "states": features.states[features.mask].half(),
            "lengths": features.mask.sum(dim=1),
            "pooled": features.pooled.half(),
        },
        root / "cache" / "cache-00000.safetensors",
    )
    return TransformerTraining(
        cache=root / "cache",
        text=root,
        num_steps=12,
        batch_size=4,
        warmup_steps=2,
        hidden_size=32,
        num_heads=2,
        num_double_blocks=1,
        num_single_blocks=1,
    )


def test_the_loss_falls_on_clips_seen_often(config, tmp_path):
    train(replace(config, num_steps=150, learning_rate=5e-3, caption_dropout=0.0), tmp_path)
    model = checkpoint.load_transformer(tmp_path / "transformer.safetensors", torch.float32, torch.device("cpu"))
    untrained = build_model(config, 4, 16, 12)
    cache = LatentCache(config.cache)
    empty = load_text_encoder(config.text / "text_encoder", config.text / "text_encoder_2", dtype=torch.float32).encode([""])
    draw = random_generator(9, "test")
    batch = cache.batch([0, 1, 2, 3] * 8, torch.zeros(32, dtype=torch.bool), empty)
    sigma, noise = torch.rand(32, generator=draw), torch.randn(batch[0].shape, generator=draw)
    with torch.no_grad():
        before, after = velocity_loss(untrained, *batch, sigma, noise), velocity_loss(model, *batch, sigma, noise)
    assert after < 0.7 * before


def test_what_training_writes_loads_as_a_checkpoint(config, tmp_path):
    path = train(config, tmp_path)
    model = checkpoint.load_transformer(path, torch.float32, torch.device("cpu"))
    assert model.config == build_model(config, 4, 16, 12).config


def test_a_killed_run_ends_as_if_it_had_never_stopped(config, tmp_path):
    undisturbed = load_file(train(replace(config, checkpoint_seconds=0.0), tmp_path / "undisturbed"))
    flags = {
        "cache": config.cache,
        "text": config.text,
        "num-steps": 12,
        "batch-size": 4,
        "warmup-steps": 2,
        "hidden-size": 32,
        "num-heads": 2,
        "num-double-blocks": 1,
        "num-single-blocks": 1,
        "checkpoint-seconds": 0,
    }
    command = [sys.executable, "-m", "hunyuan_video.cli", "train", "transformer", "--out", str(tmp_path / "killed")]
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    while not (tmp_path / "killed" / "checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "transformer.safetensors").exists(), "the run was over before it could be killed"
    again = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert again.returncode == 0, again.stderr
    resumed = load_file(tmp_path / "killed" / "transformer.safetensors")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in undisturbed.items())


def test_a_run_with_other_settings_is_not_continued(config, tmp_path):
    Run(tmp_path, config).close()
    with pytest.raises(ValueError, match="batch_size: 4 -> 8"):
        Run(tmp_path, replace(config, batch_size=8))


def masters_of(model) -> MasterWeights:
    return MasterWeights(model, betas=(0.9, 0.97), weight_decay=0.0, clip_norm=1.0, ema_decay=0.9)


def test_a_gradient_that_is_not_finite_changes_no_weight():
    model = torch.nn.Linear(4, 4)
    weights = masters_of(model)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    model(torch.full((1, 4), float("nan"))).sum().backward()
    weights.step(model, 0, 0.1)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_steps_too_small_for_bfloat16_add_up_in_the_masters():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    weights, worker = masters_of(model), model.bfloat16()
    for step in range(200):
        worker(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        weights.step(worker, step, 1e-4)  # bfloat16 cannot tell 1 - 1e-4 from 1
    assert worker.weight.item() == pytest.approx(0.98, abs=0.004)


def test_learning_rate_warms_up_holds_and_decays(config):
    config = replace(config, num_steps=100, warmup_steps=10, decay_fraction=0.5, learning_rate=1.0)
    rates = [config.learning_rate_at(step) for step in range(100)]
    assert (
        rates[0] == pytest.approx(0.1)
        and rates[9] == rates[50] == 1.0
        and rates[75] == pytest.approx(0.5)
        and rates[99] == pytest.approx(0.02)
    )


def test_random_numbers_depend_on_seed_purpose_and_step_only():
    def draw(*keys: int | str) -> float:
        return torch.rand((), generator=random_generator(*keys)).item()

    assert draw(0, "noise", 5) == draw(0, "noise", 5)
    assert len({draw(0, "noise", 5), draw(1, "noise", 5), draw(0, "batch", 5), draw(0, "noise", 6)}) == 4


@pytest.mark.parametrize(
    ("change", "sentence"), [({"batch_size": 0}, "batch_size is 0"), ({"caption_dropout": 1.0}, "caption_dropout is 1.0")]
)
def test_impossible_settings_are_refused(config, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(config, **change)


def test_a_new_block_starts_as_identity(config):
    model = build_model(config, 4, 16, 12)
    img, txt = torch.randn(1, 8, 32), torch.randn(1, 3, 32)
    ctx_vec = torch.randn(1, 1, 32)
    ctx = Context(ctx_vec, 0, rope_table((2, 2, 2), model.config.rope_dims, 256.0, torch.device("cpu")), None)
    out = model.double_blocks[0](img, txt, ctx)
    torch.testing.assert_close(out[0], img)
    torch.testing.assert_close(out[1], txt)
