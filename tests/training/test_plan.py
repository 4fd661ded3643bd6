"""The predicted memory of a training against a real step on the CPU, in which every allocated byte is counted."""

from __future__ import annotations

import pytest
import torch
from conftest import TINY
from torch import nn
from training_memory import TEXT_TOKENS, train

from hunyuan_video.memory import LiveBytes
from hunyuan_video.training.plan import MemoryPlan, check, predict


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "tokens", "checkpointing", "ema", "fp8_base"),
    [
        ("full", 8, False, True, False),  # weights rule
        ("full", 1000, False, False, False),  # activations rule
        ("full", 1000, True, True, False),
        ("lora", 1000, False, True, False),
        ("lora", 1000, True, True, True),
    ],
)
def test_the_prediction_is_what_two_real_steps_take(kind, tokens, checkpointing, ema, fp8_base, dtype):
    with LiveBytes(nn.Module()) as seen:
        train(TINY, kind, tokens, checkpointing, ema, fp8_base, dtype, "cpu")
    plan = predict(
        TINY, kind=kind, rank=4, token_budget=tokens, text_tokens=TEXT_TOKENS, activation_checkpointing=checkpointing, ema=ema,
        fp8_base=fp8_base, dtype=dtype,
    )  # fmt: skip
    assert plan.total == pytest.approx(seen.most, rel=0.03)


def test_ranks_share_what_is_held_and_gather_what_works():
    alone, shared = (predict(TINY, kind="full", token_budget=64, world_size=size) for size in (1, 8))
    for name in ("trained weights (float32)", "AdamW's two moments (float32)", "average of the weights (float32)"):
        assert shared.lines[name] == -(-alone.lines[name] // 8)
    assert any(name.startswith("gathered weights") for name in shared.lines)
    assert not any(name.startswith("copy of the weights") for name in shared.lines)


def test_several_micro_batches_keep_the_gradients_of_the_first():
    once, often = (predict(TINY, kind="full", token_budget=1000, accumulate=accumulate) for accumulate in (False, True))
    assert often.total - once.total == once.lines["trained weights (float32)"]


def test_the_table_ends_with_the_sum():
    *lines, total = predict(TINY, kind="lora", rank=4, token_budget=64).table().splitlines()
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
    plan = predict(TINY, kind="lora", rank=4, token_budget=8, activation_checkpointing=True, fp8_base=True)
    assert plan.remedies == ("take smaller buckets", "use more ranks")
