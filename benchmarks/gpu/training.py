"""Part 8: a LoRA's step on the whole 13B in 8 bits, every block computed twice, beside what the training's plan says.

At 33 frames of 544x960 it does about 1.7 PFLOP, 5 s on an H100 with FlashAttention 2.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from torch import nn
from training_memory import stepping

from gpu.models import config_of, random_transformer
from gpu.part import Part
from hunyuan_video.training.plan import MicroBatch, predict
from hunyuan_video.transforms.lora import Lora, LowRank, merge_lora

RANK = 32
BATCHES = {
    "17x320x544": MicroBatch(1, 5 * 20 * 34),
    "33x544x960": MicroBatch(1, 9 * 34 * 60),
    "17x320x544, two captions of different length": MicroBatch(2, 5 * 20 * 34),  # so there is a mask
}
TINY_BATCHES = {"tiny": MicroBatch(1, 16), "tiny, two captions of different length": MicroBatch(2, 16)}


def measure_steps(part: Part) -> None:
    config = config_of(part)
    settings: dict[str, Any] = {"kind": "lora", "rank": 4 if part.rehearse else RANK, "activation_checkpointing": True, "fp8_base": True}
    with part.case("training-start") as row:
        start = time.perf_counter()
        step = stepping(random_transformer(config, part.device), part.device, ema=True, dtype=torch.bfloat16, **settings)
        part.finish()
        row.update(seconds=time.perf_counter() - start)
        number = 0
        for clip, batch in (TINY_BATCHES if part.rehearse else BATCHES).items():
            with part.case("training", clip=clip, tokens=batch.image_tokens, samples=batch.samples) as row:
                row["planned_gb"] = predict(config, batch=batch, **settings).total / 1e9
                part.forget_peak()
                seconds = []
                for _ in range(3):
                    start = time.perf_counter()
                    step(number, batch, 1)
                    part.finish()
                    seconds.append(time.perf_counter() - start)
                    number += 1
                row.update(part.peak(), first_seconds=seconds[0], seconds=min(seconds[1:]), sm_mhz=part.sm_clock())


def measure_merge(part: Part) -> None:
    """Merging adapters of rank 32 into one single block on the device, by where their factors are: what is not there has to get there."""
    block = random_transformer(config_of(part, blocks=1), part.device).single_blocks[0]
    for where in ("cpu", str(part.device)):
        layers = {
            name: LowRank(torch.randn(RANK, layer.weight.shape[1], device=where), torch.randn(len(layer.weight), RANK, device=where), RANK)
            for name, layer in block.named_modules()
            if isinstance(layer, nn.Linear)
        }
        with part.case("training-merge", factors=where) as row:
            row.update(part.timed(partial(merge_lora, block, Lora(layers), 1e-3), 0.3))


def main() -> None:
    part = Part("training")
    measure_merge(part)
    measure_steps(part)


if __name__ == "__main__":
    main()
