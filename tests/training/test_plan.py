"""The predicted memory of a training against a real step on the CPU, in which every allocated byte is counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors.torch import save_file
from torch import nn
from training.cache_files import save_cache
from training_memory import train

from hunyuan_video.checkpoint import load_text_encoder
from hunyuan_video.memory import LiveBytes
from hunyuan_video.models.attention import matmul
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.training import train as training
from hunyuan_video.training.dataset import Bucket, LatentCache, PlannedCache
from hunyuan_video.training.plan import MemoryPlan, MicroBatch, check, predict
from hunyuan_video.training.run import forget_peak_memory
from hunyuan_video.training.settings import LoraTraining, TrainingRuntime
from hunyuan_video.transforms import fp8

CPU = torch.device("cpu")
SMALL, LARGE, MANY = MicroBatch(1, 8, 64), MicroBatch(1, 1000, 64), MicroBatch(6, 100, 64)
TWICE, TO_ADD, FP8, IN_FLOAT32 = {"activation_checkpointing": True}, {"accumulate": True}, {"fp8_base": True}, {"dtype": torch.float32}


@pytest.mark.parametrize(
    ("kind", "batch", "settings"),
    [
        ("full", SMALL, {}),  # weights rule
        ("full", SMALL, IN_FLOAT32),
        ("full", SMALL, TO_ADD),
        ("full", LARGE, {"ema": False}),  # activations rule
        ("full", LARGE, TWICE),
        ("full", LARGE, TWICE | IN_FLOAT32),
        ("full", LARGE, {"attention": matmul}),
        ("full", MANY, {"attention": matmul} | IN_FLOAT32),
        ("lora", SMALL, TO_ADD | {"rank": 64}),
        ("lora", LARGE, {}),
        ("lora", LARGE, TWICE | FP8),
        ("lora", LARGE, TWICE | FP8 | IN_FLOAT32),
        ("lora", LARGE, TWICE | {"clean": True}),
    ],
)
def test_the_prediction_is_what_two_real_steps_take(kind, batch, settings):
    settings = {"kind": kind, "batch": batch, "rank": 4, "dtype": torch.bfloat16} | settings
    with LiveBytes(nn.Module()) as seen:
        train(TINY, CPU, **settings)
    assert predict(TINY, **settings).total == pytest.approx(seen.most, rel=0.03)


@pytest.mark.parametrize("eight_bits", [False, True])
def test_blocks_that_come_and_go_are_counted_when_they_are_there(eight_bits):
    """On a CPU they are at home in the memory that is counted, too."""
    config = replace(TINY, hidden_size=128, rope_dims=(16, 24, 24), num_single_blocks=6)
    batch = MicroBatch(1, 400, 64)  # of which more is there than while the model is made
    settings = {"kind": "lora", "batch": batch, "rank": 4, "dtype": torch.float32, "fp8_base": eight_bits} | TWICE
    with torch.device("meta"):
        blocks = HunyuanVideoTransformer(config).blocks
    linears = sum(parameter.numel() for block in blocks for parameter in block.parameters() if parameter.ndim == 2)
    others = sum(parameter.numel() for block in blocks for parameter in block.parameters() if parameter.ndim != 2)
    at_home = linears * (1 if eight_bits else 4) + 4 * others
    with LiveBytes(nn.Module()) as seen:
        train(config, CPU, swap_blocks=True, **settings)
    plan = predict(config, swap_blocks=True, **settings)
    assert plan.total + at_home == pytest.approx(seen.most, rel=0.03)
    assert plan.total < predict(config, **settings).total - at_home / 2


def test_ranks_share_what_is_held_and_gather_what_works():
    alone, shared = (predict(TINY, kind="full", batch=MicroBatch(1, 64), world_size=size) for size in (1, 8))
    for name in ("trained weights (float32)", "AdamW's two moments (float32)", "average of the weights (float32)"):
        assert shared.lines[name] == -(-alone.lines[name] // 8)
    assert any(name.startswith("gathered weights") for name in shared.lines)
    assert not any(name.startswith("copy of the weights") for name in shared.lines)


@pytest.mark.parametrize("world_size", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_several_micro_batches_keep_the_gradients_of_the_first(kind, dtype, world_size):
    once, often = (
        predict(TINY, kind=kind, batch=LARGE, dtype=dtype, world_size=world_size, accumulate=accumulate) for accumulate in (False, True)
    )
    assert often.total - once.total == once.lines["trained weights (float32)"]


def test_the_table_ends_with_the_sum():
    *lines, total = predict(TINY, kind="lora", rank=4, batch=SMALL).table().splitlines()
    assert lines[0].startswith("frozen weights") and total.startswith("together, at the")


def test_what_cannot_fit_is_refused_with_numbers_and_remedies():
    plan = MemoryPlan({"frozen weights": 26_000_000_000, "activations": 60_000_000_000}, "update", ("train a LoRA", "use more ranks"))
    check(plan, 86_000_000_000)
    with pytest.raises(
        ValueError,
        match=r"needs 86\.0 GB on each device, and 80\.0 GB are free \(frozen weights 26\.0, activations 60\.0\): train a LoRA, or use",
    ):
        check(plan, 80_000_000_000)


def test_remedies_are_those_not_yet_taken():
    plan = predict(TINY, kind="lora", rank=4, batch=SMALL, activation_checkpointing=True, fp8_base=True)
    assert plan.remedies == ("let the frozen blocks come and go (swap blocks)", "take smaller buckets", "use more ranks")


def test_the_peak_of_a_gpu_begins_anew_with_a_training(monkeypatch):
    reset: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    for device in ("cpu", "cuda"):
        forget_peak_memory(torch.device(device))
    assert reset == [torch.device("cuda")]


# ---------------------------------------------------------------------------------------------------- of a configured training


def planned(config, cache: Path | None, sizes=None) -> MemoryPlan:
    return training.memory_plan(config, TrainingRuntime(), 1, CPU, cache and LatentCache(cache), sizes)


@pytest.fixture
def lora(cache, base) -> LoraTraining:
    return LoraTraining(cache=cache, start=base, rank=4, alpha=4.0, token_budget=16, dtype="float32")


def test_the_plan_is_what_the_training_takes(config, tmp_path, official_tree):
    encoder = load_text_encoder(official_tree / "text_encoder", official_tree / "text_encoder_2", dtype=torch.float32)
    cache = save_cache(tmp_path / "cache", encoder, [(3, 16, 16)] * 6)
    config = replace(config, cache=cache, token_budget=10_000, batches_per_step=2, num_steps=2, dtype="float32")
    with LiveBytes(nn.Module()) as seen:
        training.train(config, tmp_path / "run", TrainingRuntime(checkpoint_seconds=1000.0))
    assert planned(config, cache).total == pytest.approx(seen.most, rel=0.05)


def test_a_sample_beyond_the_budget_is_planned_for(config, cache):
    tokens = {batch.image_tokens for batch in training.micro_batches(replace(config, token_budget=1), LatentCache(cache), 1)}
    assert tokens == {4, 8, 12}


def test_every_sample_of_a_micro_batch_brings_its_text(config, cache):
    opened = LatentCache(cache)
    longest = max(opened.batch([number]).captions.states.shape[1] for number in range(4))
    plenty = replace(config, token_budget=32)
    assert training.micro_batches(plenty, opened, 1)[0] == MicroBatch(4, 8, longest)
    assert training.micro_batches(plenty, opened, 2)[0] == MicroBatch(4, 4, longest)  # ranks of a sequence share its image tokens
    assert training.micro_batches(plenty, None, 2) == [MicroBatch(1, 16)]


def test_a_cache_that_is_still_to_be_made_is_planned_for_by_its_clips(config):
    expected = PlannedCache({Bucket(5, 32, 32): 3, Bucket(1, 32, 32): 1})
    assert training.micro_batches(replace(config, token_budget=16), expected, 1) == [MicroBatch(2, 8, 256), MicroBatch(1, 4, 256)]


def test_kinds_of_samples_that_never_come_are_not_planned_for(config, cache):
    (images,) = training.micro_batches(replace(config, image_ratio=1.0), LatentCache(cache), 1)
    assert images.image_tokens == 4


def test_the_largest_plan_of_all_buckets_counts(config, monkeypatch):
    def total(*batches: MicroBatch) -> int:
        monkeypatch.setattr(training, "micro_batches", lambda *_: list(batches))
        return planned(config, None, sizes=TINY).total

    many, large = MicroBatch(16, 100), MicroBatch(1, 2000)  # more tokens together, and more scores
    assert total(SMALL, many, large) == max(total(many), total(large)) > total(SMALL)


def test_the_attention_of_the_device_is_planned(config, monkeypatch):
    config = replace(config, token_budget=2000)
    sizes = replace(TINY, text_dim=16, pooled_dim=12)
    with_scores = planned(config, None, sizes=sizes).total
    monkeypatch.setattr(training, "for_training", lambda device: "sdpa")
    assert with_scores - planned(config, None, sizes=sizes).total > 4 * 2 * 2000**2


def test_weights_that_are_in_8_bits_already_are_planned_so(lora, base, tmp_path):
    asked = planned(replace(lora, fp8=True), None)
    model = training.load(base, torch.float32)
    fp8.quantize(model)
    save_file(model.state_dict(), tmp_path / "model_fp8.safetensors")
    scales = {name: module.scale for name, module in model.named_modules() if isinstance(module, fp8.Fp8Linear)}
    save_file(scales, tmp_path / "model_fp8_map.safetensors")
    found = planned(replace(lora, start=tmp_path / "model_fp8.safetensors"), None)
    assert found.lines == asked.lines != planned(lora, None).lines


def test_only_the_layers_that_get_an_adapter_are_planned(lora):
    few = replace(lora, layers="single_blocks.*linear2")
    adapters = training.build_model(few, LatentCache(lora.cache), torch.float32)
    training.adapters_of(few)(adapters)
    trained = sum(parameter.nbytes for parameter in adapters.parameters() if parameter.requires_grad)
    assert planned(few, None).lines["trained weights (float32)"] == trained < planned(lora, None).lines["trained weights (float32)"]


def test_all_weights_in_8_bits_cannot_be_trained(config, base, tmp_path, monkeypatch):
    model = training.load(base, torch.float32)
    fp8.quantize(model)
    monkeypatch.setattr(training, "load", lambda start, dtype: model)
    with pytest.raises(ValueError, match="only a LoRA can be trained"):
        training.build_model(replace(config, start=base), LatentCache(config.cache), torch.float32)
