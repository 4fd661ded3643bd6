"""Training the transformer: it learns, it starts where it should, and a killed run ends exactly where an undisturbed one does."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import fields, replace
from pathlib import Path

import nudge
import pytest
import torch
from forked import python
from safetensors.torch import load_file, save_file
from torch import Tensor
from training.cache_files import save_cache

from hunyuan_video import checkpoint, signals
from hunyuan_video.checkpoint.lora import read_lora
from hunyuan_video.distributed.world import World
from hunyuan_video.models.rope import rope_table
from hunyuan_video.models.transformer import Context
from hunyuan_video.training import train as module
from hunyuan_video.training.dataset import LatentCache, Schedule
from hunyuan_video.training.master import MasterWeights
from hunyuan_video.training.objectives import add_noise, guided_velocity, loss_of, student_of
from hunyuan_video.training.run import Run, random_generator
from hunyuan_video.training.settings import LoraTraining, TrainingRuntime, TransformerTraining
from hunyuan_video.training.train import build_model, train
from hunyuan_video.transforms import fp8

CPU = torch.device("cpu")
OFTEN = TrainingRuntime(checkpoint_seconds=0.0, keep_checkpoints=100)


def load(path: Path) -> torch.nn.Module:
    return checkpoint.load_transformer(path, torch.float32, CPU)


def same(a: Path, b: Path) -> bool:
    """Whether two safetensors files hold the same tensors, bit for bit."""
    first, second = load_file(a), load_file(b)
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.fixture
def losses(monkeypatch) -> list[float]:
    """The loss of every step that is trained."""
    seen: list[float] = []
    original = Run.log

    def log(self: Run, step: int, **scalars: float) -> None:
        seen.append(scalars["loss"])
        original(self, step, **scalars)

    monkeypatch.setattr(Run, "log", log)
    return seen


def test_the_loss_falls_on_clips_seen_often(config, official_tree, tmp_path):
    encoder = checkpoint.load_text_encoder(official_tree / "text_encoder", official_tree / "text_encoder_2", dtype=torch.float32)
    folder = save_cache(tmp_path / "cache", encoder, [(2, 4, 4)] * 4)
    config = replace(config, cache=folder, num_steps=120, learning_rate=5e-3, caption_dropout=0.0, token_budget=64, ema_decay=0.9)
    (path,) = train(config, tmp_path / "run")
    cache = LatentCache(folder)
    latents, captions, *_ = cache.batch([0, 1, 2, 3] * 8)
    noisy, target = add_noise(config, latents, captions, random_generator(9, "test"))
    with torch.no_grad():
        before, after = (loss_of(model, noisy, target) for model in (build_model(config, cache, torch.float32), load(path)))
    assert after < 0.7 * before


def test_what_training_writes_loads_as_a_checkpoint(config, tmp_path):
    (path,) = train(replace(config, num_steps=1, save_dtype="float16"), tmp_path)
    assert load(path).config == build_model(config, LatentCache(config.cache), torch.float32).config
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}


def command(config: TransformerTraining, out: Path) -> list[str]:
    """The command line of a training that saves after every step."""
    flags = {field.name: getattr(config, field.name) for field in fields(config)} | {"out": out, "checkpoint_seconds": 0.0}
    given = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items() if value is not None and not isinstance(value, bool)]
    return ["train", "transformer", *given]


def killed(code: str, arguments: list[str], when: Path) -> None:
    """Run `code` with `arguments` until the path `when` exists, and kill it with SIGKILL at that moment."""
    process = python("-c", code, *arguments, says=when.parents[2] / "said", OMP_NUM_THREADS=str(torch.get_num_threads()))
    process.wait_until(when.exists)
    process.send_signal(signal.SIGKILL)
    assert process.ended(10) == -signal.SIGKILL, process.error.read_text()


RUN = "import sys; from hunyuan_video import cli; cli.main(sys.argv[1:])"
STOP_IN_SAVE = """
import sys, time, types
from pathlib import Path
from hunyuan_video import cli
from hunyuan_video.training import run
def replace(temporary, path):
    if path.name == "step-00000003":
        (path.parent / "in_save").touch()
        time.sleep(100)
    temporary.rename(path)
run.os = types.SimpleNamespace(replace=replace)
cli.main(sys.argv[1:])
"""


def test_a_run_killed_anywhere_ends_as_if_it_had_never_stopped(config, tmp_path, losses):
    config = replace(config, num_steps=4, batches_per_step=2)
    (undisturbed,) = train(config, tmp_path / "undisturbed", OFTEN)
    expected, killed_run = list(losses), tmp_path / "killed"
    losses.clear()
    killed(RUN, command(config, killed_run), killed_run / "checkpoints" / "step-00000001")
    killed(STOP_IN_SAVE, command(config, killed_run), killed_run / "checkpoints" / "in_save")
    assert not (killed_run / "transformer.safetensors").exists(), "the run was over before it could be killed"
    assert list((killed_run / "checkpoints").glob(".*.tmp")), "the kill did not come within a save"
    (resumed,) = train(config, killed_run, OFTEN)
    assert 0 < len(losses) < 4 and losses == expected[-len(losses) :]
    assert same(resumed, undisturbed)
    finals = [tmp_path / name / "checkpoints" / "step-00000004" for name in ("undisturbed", "killed")]
    assert (finals[0] / "__0_0.distcp").read_bytes() == (finals[1] / "__0_0.distcp").read_bytes(), "weights, moments or counts differ"
    assert not list((killed_run / "checkpoints").glob(".*.tmp"))


RARELY = TrainingRuntime(checkpoint_seconds=1e9)


def test_a_training_that_is_stopped_saves_a_checkpoint_says_so_and_continues_exactly(config, tmp_path, monkeypatch, losses, caplog):
    caplog.set_level("INFO", "hunyuan_video")
    (undisturbed,) = train(config, tmp_path / "undisturbed", RARELY)
    losses.clear()
    original = module.loss_of

    def loss_of(*arguments: object) -> torch.Tensor:
        if len(losses) == 1:
            signal.raise_signal(signal.SIGINT)  # in the middle of the second step
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "loss_of", loss_of)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "stopped", RARELY)
    assert os.listdir(tmp_path / "stopped" / "checkpoints") == ["step-00000002"]
    assert "Stopped after step 2, with a checkpoint in" in caplog.text
    (resumed,) = train(config, tmp_path / "stopped", RARELY)
    assert "continues at step 2" in caplog.text and same(resumed, undisturbed)


def test_a_second_signal_does_not_wait(config, tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "_SAME", -1.0)

    def loss_of(*_: object) -> torch.Tensor:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")

    monkeypatch.setattr(module, "loss_of", loss_of)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, RARELY)
    assert not os.listdir(tmp_path / "checkpoints")


@pytest.mark.parametrize("num_steps", [3, 2])
def test_a_training_that_is_stopped_at_a_step_that_is_shown_shows_it(lora, tmp_path, monkeypatch, losses, num_steps):
    """Also where it is the last one: the next start goes on behind it."""
    original = module.loss_of

    def loss_of(*arguments: object) -> torch.Tensor:
        if len(losses) == 1:
            signal.raise_signal(signal.SIGINT)  # in the middle of the second step
        return original(*arguments)

    monkeypatch.setattr(module, "loss_of", loss_of)
    with pytest.raises(KeyboardInterrupt):
        train(replace(lora, num_steps=num_steps), tmp_path, TrainingRuntime(validation_every=2))
    assert os.listdir(tmp_path / "loras") == ["step-00000002.safetensors"]
    assert os.listdir(tmp_path / "checkpoints") == ["step-00000002"]


def test_weights_are_exchanged_with_their_averages_only_where_something_is_shown(config, tmp_path, monkeypatch):
    monkeypatch.setattr(MasterWeights, "averaged", lambda *_: pytest.fail("nobody looks at them"))
    train(config, tmp_path, TrainingRuntime(validation_every=1))


@pytest.mark.parametrize("number", [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)])
def test_a_training_that_is_told_to_end_ends_as_after_ctrl_c(config, tmp_path, number):
    arguments = [*command(replace(config, num_steps=10_000), tmp_path / "run"), "--checkpoint-seconds", "1000"]
    process = python("-m", "hunyuan_video", *arguments, says=tmp_path / "said")
    process.wait_until(lambda: "0%|" in process.error.read_text())  # its bar: the steps have begun
    process.send_signal(number)
    assert process.ended(60) == 128 + number
    assert "with a checkpoint in" in process.error.read_text() and "Traceback" not in process.error.read_text()
    assert len(os.listdir(tmp_path / "run" / "checkpoints")) == 1


def test_micro_batches_add_up_to_their_mean(config, tmp_path, losses, monkeypatch):
    """Neither how often all of them come, nor in which order, changes the mean; a sum would, and so would the last one alone."""
    monkeypatch.setattr(module, "add_noise", lambda *given: add_noise(*given[:3], random_generator(0)))
    monkeypatch.setattr(module, "random_generator", lambda *_keys: random_generator(0))
    config = replace(config, dtype="float32", save_dtype="float32", num_steps=1, caption_dropout=0.0, learning_rate=1e-3)
    norms, paths = [], []
    original = Run.log
    monkeypatch.setattr(Run, "log", lambda self, step, **scalars: (norms.append(scalars["gradient_norm"]), original(self, step, **scalars)))
    for schedule in ([[0], [1]], [[1], [0], [1], [0]]):
        monkeypatch.setattr(Schedule, "__call__", lambda _self, _step, batches=schedule: batches)
        (path,) = train(replace(config, batches_per_step=len(schedule)), tmp_path / str(len(schedule)))
        paths.append(load_file(path))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    for name, tensor in paths[0].items():
        torch.testing.assert_close(tensor, paths[1][name], atol=1e-6, rtol=1e-4)


def test_activations_computed_twice_change_nothing(config, tmp_path):
    (kept,) = train(config, tmp_path / "kept")
    (again,) = train(config, tmp_path / "again", TrainingRuntime(checkpoint_activations=True))
    assert same(kept, again)


@pytest.mark.skipif(bool(os.environ.get(nudge.VARIABLE)), reason="last bits are moved in the main thread alone")
def test_micro_batches_made_ahead_change_nothing(config, tmp_path, monkeypatch):
    config = replace(config, batches_per_step=3, caption_dropout=0.5, image_to_video=0.5)
    (ahead,) = train(config, tmp_path / "ahead")
    monkeypatch.setattr(module, "prefetched", lambda make, keys: (make(key) for key in keys))
    (in_turn,) = train(config, tmp_path / "in turn")
    assert same(ahead, in_turn)


def test_a_fine_tuning_starts_from_its_weights(config, base, tmp_path):
    start = replace(config, start=base, num_steps=1, learning_rate=1e-12, weight_decay=0.0, save_dtype="float32")
    (path,) = train(start, tmp_path)
    for name, tensor in load_file(path).items():
        torch.testing.assert_close(tensor, load_file(base)[name].float(), atol=1e-6, rtol=0)


def test_official_weights_are_told_the_guidance(config, official_tree, tmp_path, monkeypatch):
    told: list[Tensor] = []
    monkeypatch.setattr(module, "loss_of", lambda model, noisy, target: (told.append(noisy.scale), loss_of(model, noisy, target))[1])
    train(replace(config, start=official_tree, num_steps=1, guidance=6.0), tmp_path)
    assert told and all((scale == 6.0).all() for scale in told)


def test_weights_in_8_bits_are_not_trained(config, official_tree, tmp_path, monkeypatch):
    def in_8_bits(start: Path, dtype: torch.dtype) -> torch.nn.Module:
        model = checkpoint.load_transformer(module.transformer_file(start), dtype, CPU)
        fp8.quantize(model)
        return model

    monkeypatch.setattr(module, "load", in_8_bits)
    with pytest.raises(ValueError, match="8-bit weights, beside which only a LoRA"):
        train(replace(config, start=official_tree), tmp_path)


def test_a_run_may_end_earlier_or_go_on_with_another_learning_rate(config, tmp_path):
    (first,) = train(replace(config, num_steps=3), tmp_path, OFTEN)
    stopped = load_file(first)
    (again,) = train(replace(config, num_steps=2), tmp_path, OFTEN)  # the weights of step 3, which has been made
    assert all(torch.equal(tensor, stopped[name]) for name, tensor in load_file(again).items())
    (longer,) = train(replace(config, num_steps=5, learning_rate=1e-4), tmp_path, OFTEN)
    assert not all(torch.equal(tensor, stopped[name]) for name, tensor in load_file(longer).items())
    with pytest.raises(ValueError, match=r"other settings \(seed: 0 -> 1\)"):
        train(replace(config, num_steps=5, learning_rate=1e-4, seed=1), tmp_path, OFTEN)


def test_a_run_is_not_continued_on_another_cache_or_from_other_weights(config, base, official_tree, tmp_path):
    weights_file = tmp_path / "start.safetensors"
    shutil.copy(base, weights_file)
    config = replace(config, start=weights_file, num_steps=1)
    train(config, tmp_path / "run")
    changed = load_file(weights_file)
    changed["final_layer.linear.bias"] += 1
    save_file(changed, weights_file)
    with pytest.raises(ValueError, match="what is in start has changed"):
        train(config, tmp_path / "run")
    shutil.copy(base, weights_file)
    folder = tmp_path / "cache"
    shutil.copytree(config.cache, folder)
    train(replace(config, cache=folder), tmp_path / "other")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"note": "appended"}))
    with pytest.raises(ValueError, match="what is in cache has changed"):
        train(replace(config, cache=folder), tmp_path / "other")


def test_distillation_draws_the_guidance_evenly(config):
    config = replace(config, start=config.cache, distill=True, distill_lowest=2.0, distill_highest=6.0)
    latents, captions, *_ = LatentCache(config.cache).batch([0, 1] * 200)
    scale = add_noise(config, latents, captions, random_generator(0))[0].scale
    assert scale.min() >= 2 and scale.max() <= 6 and 3.7 < scale.mean() < 4.3 and 1.0 < scale.std() < 1.3


def test_a_distilled_model_follows_its_teacher(config, base, tmp_path):
    config = replace(config, start=base, distill=True, num_steps=40, token_budget=64, distill_lowest=4.0, image_to_video=0.5, ema_decay=0.9)
    teacher, student = load(base), load(train(config, tmp_path)[0])
    latents, captions, empty, _ = LatentCache(config.cache).batch([0, 1, 2, 3])
    noisy, _ = add_noise(config, latents, captions, random_generator(9, "test"))
    with torch.no_grad():
        target = guided_velocity(teacher, noisy, empty)
        before, after = (loss_of(model, noisy, target) for model in (student_of(teacher, 0), student))
    assert after < 0.7 * before


@pytest.mark.parametrize("settings", [{}, {"fp8": True}, {"layers": "single_blocks", "ema_decay": None, "image_to_video": 1.0}])
def test_a_lora_is_written_in_two_dialects_that_mean_the_same(cache, official_tree, tmp_path, settings):
    config = LoraTraining(
        cache=cache, start=official_tree, num_steps=3, rank=2, alpha=4.0, learning_rate=1e-2, save_dtype="float32", **settings
    )
    before = {path: path.read_bytes() for path in official_tree.rglob("*.pt")}
    kohya, diffusers = train(config, tmp_path)
    sizes = checkpoint.load_transformer(module.weights.locate(official_tree).transformer, torch.float32, CPU).config
    first, second = read_lora(kohya, sizes).layers, read_lora(diffusers, sizes).layers
    assert first.keys() == second.keys() and all(name.startswith("single") for name in first) == ("layers" in settings)
    for name, adapter in first.items():
        assert adapter.up.any()
        torch.testing.assert_close(adapter.delta(), second[name].delta(), atol=1e-6, rtol=1e-4)
    assert before == {path: path.read_bytes() for path in official_tree.rglob("*.pt")}


@pytest.fixture
def lora(cache, official_tree) -> LoraTraining:
    return LoraTraining(cache=cache, start=official_tree, num_steps=21, rank=2, learning_rate=1e-2, token_budget=16)


def test_on_its_way_a_lora_is_written_every_tenth_of_the_run_in_whole_steps_and_at_the_end(lora, tmp_path):
    kohya, _ = train(lora, tmp_path / "run")
    files = sorted((tmp_path / "run" / "loras").iterdir())
    assert [path.name for path in files] == [f"step-{step:08d}.safetensors" for step in [*range(3, 22, 3)]]
    assert same(files[-1], kohya) and not same(files[-2], kohya)
    sizes = module.sizes_of(lora, None)[0]
    assert any(adapter.up.any() for adapter in read_lora(files[0], sizes).layers.values())


def test_the_file_of_a_step_is_what_a_training_that_ends_there_gives(lora, tmp_path):
    train(replace(lora, num_steps=4), tmp_path / "long", TrainingRuntime(validation_every=2))
    short, _ = train(replace(lora, num_steps=2), tmp_path / "short", TrainingRuntime(validation_every=100))
    files = sorted((tmp_path / "long" / "loras").iterdir())
    assert same(files[0], short) and len(files) == 2


def test_steps_that_are_not_finite_are_skipped_and_too_many_stop_the_run(config, tmp_path, monkeypatch, losses):
    broken = {1, 2}
    original = module.loss_of

    def loss_of(*arguments: object) -> torch.Tensor:
        loss = original(*arguments)
        return loss * float("nan") if len(losses) in broken else loss

    monkeypatch.setattr(module, "loss_of", loss_of)
    (path,) = train(replace(config, max_skipped=2), tmp_path / "few")
    assert [loss == loss for loss in losses] == [True, False, False, True]
    assert all(tensor.isfinite().all() for tensor in load_file(path).values())

    losses.clear()
    broken |= {3}
    with pytest.raises(ValueError, match="not finite in 3 steps in a row, up to step 4"):
        train(replace(config, max_skipped=2), tmp_path / "many")


def test_learning_rate_warms_up_holds_and_decays(config):
    config = replace(config, num_steps=100, warmup_steps=10, decay_fraction=0.5, learning_rate=1.0)
    rates = [config.learning_rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[50] == 1.0
    assert rates[75] == pytest.approx(0.5) and rates[99] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"token_budget": 0}, "token_budget is 0"),
        ({"ema_decay": 1.5}, "ema_decay is 1.5"),
        ({"image_ratio": -0.5}, "image_ratio is -0.5"),
        ({"distill": True}, "name its weights with --start"),
        ({"distill_lowest": 9.0}, "distill_lowest is 9.0"),
    ],
)
def test_impossible_settings_are_refused(config, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(config, **change)


def test_a_cache_of_another_vae_is_refused(config, base, official_tree, tmp_path):
    encoder = checkpoint.load_text_encoder(official_tree / "text_encoder", official_tree / "text_encoder_2", dtype=torch.float32)
    cache = save_cache(tmp_path / "cache", encoder, [(2, 4, 4)], channels=6)
    with pytest.raises(ValueError, match=r"needs 4 latent channels, but the cache .* has 6"):
        train(replace(config, cache=cache, start=base), tmp_path / "run")


def test_a_cache_of_another_text_encoder_is_refused(config, base, tmp_path):
    state = load_file(base)
    state["txt_in.input_embedder.weight"] = torch.zeros(32, 24)
    state["txt_in.c_embedder.linear_1.weight"] = torch.zeros(32, 24)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"needs 24 features in a text state, but the cache .* has 16"):
        train(replace(config, start=tmp_path / "other.safetensors"), tmp_path / "run")


def test_more_sequence_ranks_than_processes_are_refused(config, tmp_path):
    with pytest.raises(ValueError, match="2 ranks are to share a video, but there are 1 processes"):
        train(config, tmp_path, TrainingRuntime(sequence_parallel=2))


def test_micro_batches_that_cannot_be_shared_out_are_refused(config, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "world_of_group", lambda *_arguments: World(size=3))
    with pytest.raises(ValueError, match="batches_per_step is 4, but 3 ranks share them"):
        train(replace(config, batches_per_step=4), tmp_path)


def test_a_new_block_starts_as_identity(config):
    model = build_model(config, LatentCache(config.cache), torch.float32)
    img, txt = torch.randn(1, 8, 32), torch.randn(1, 3, 32)
    ctx = Context(torch.randn(1, 1, 32), 0, rope_table((2, 2, 2), model.config.rope_dims, 256.0, CPU), None)
    out = model.double_blocks[0](img, txt, ctx)
    torch.testing.assert_close(out[0], img)
    torch.testing.assert_close(out[1], txt)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_lora_over_8_bits_trains_on_cuda_as_on_the_cpu(cache, base, tmp_path, losses):
    config = LoraTraining(
        cache=cache, start=base, rank=4, alpha=4.0, token_budget=16, dtype="float32", fp8=True, num_steps=4, learning_rate=2e-3
    )
    for device in ("cpu", "cuda"):
        train(config, tmp_path / device, TrainingRuntime(device=device, checkpoint_activations=True))
    assert losses[4:] == pytest.approx(losses[:4], rel=0.01)


@pytest.mark.parametrize(("given", "expected"), [({}, 4.0), ({"alpha": 32.0}, 32.0)])
def test_alpha_is_the_rank_unless_it_is_given(tmp_path, given, expected):
    assert LoraTraining(cache=tmp_path, rank=4, **given).alpha == expected
