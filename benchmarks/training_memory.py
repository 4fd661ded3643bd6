"""Planned memory of trainings of the 13B model, or with --measure a plan beside what a real step of a small model takes.

python benchmarks/training_memory.py                                    # the tables of docs/training-memory.md
python benchmarks/training_memory.py --measure [--device cuda]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from measure import peak_memory

from hunyuan_video.distributed.world import World
from hunyuan_video.kernels.choice import use_attention
from hunyuan_video.models.attention import AttentionFn, sdpa
from hunyuan_video.models.text import TextFeatures
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.training.master import MasterWeights
from hunyuan_video.training.objectives import Noisy, loss_of
from hunyuan_video.training.plan import MicroBatch, predict
from hunyuan_video.training.settings import TrainingRuntime
from hunyuan_video.training.train import make_ready
from hunyuan_video.transforms import fp8
from hunyuan_video.transforms.lora import add_lora

SMALL = TransformerConfig(hidden_size=512, num_heads=4, num_double_blocks=2, num_single_blocks=4, text_dim=1024)


def train(
    config: TransformerConfig,
    device: torch.device,
    *,
    kind: Literal["full", "lora"],
    batch: MicroBatch,
    rank: int,
    activation_checkpointing: bool = False,
    ema: bool = True,
    fp8_base: bool = False,
    swap_blocks: bool = False,
    clean: bool = False,
    accumulate: bool = False,
    dtype: torch.dtype = torch.bfloat16,
    attention: AttentionFn = sdpa,
) -> None:
    """Two steps of a real training with the settings that `predict` takes."""
    with device:
        model = HunyuanVideoTransformer(config)
    step = stepping(
        *(model, device),
        kind=kind,
        rank=rank,
        activation_checkpointing=activation_checkpointing,
        ema=ema,
        fp8_base=fp8_base,
        swap_blocks=swap_blocks,
        clean=clean,
        dtype=dtype,
        attention=attention,
    )
    for number in range(2):
        step(number, batch, 2 if accumulate else 1)


def stepping(
    model: HunyuanVideoTransformer,
    device: torch.device,
    *,
    kind: Literal["full", "lora"],
    rank: int,
    activation_checkpointing: bool,
    ema: bool,
    fp8_base: bool,
    swap_blocks: bool = False,
    clean: bool = False,
    dtype: torch.dtype,
    attention: AttentionFn = sdpa,
) -> Callable[[int, MicroBatch, int], None]:
    """A training of the model, as a function that does the step of a number with so many equal micro-batches."""
    if kind == "lora":
        model.to(dtype)
        if fp8_base:
            fp8.quantize(model)
        add_lora(model, rank, float(rank))
    how = TrainingRuntime(checkpoint_activations=activation_checkpointing, swap_blocks=swap_blocks)
    worker, _ = make_ready(model, how, World(device), dtype)
    use_attention(worker, attention)
    masters = MasterWeights(model, betas=(0.9, 0.97), weight_decay=0.01, clip_norm=1.0, ema_decay=0.999 if ema else None)

    def step(number: int, batch: MicroBatch, batches: int) -> None:
        for _ in range(batches):
            loss_of(worker, *draw(model.config, device, batch, dtype, clean=clean)).backward()
            masters.accumulate(worker)
        masters.step(worker, number, 1e-3)

    return step


def draw(
    config: TransformerConfig, device: torch.device, batch: MicroBatch, dtype: torch.dtype, *, clean: bool = False
) -> tuple[Noisy, torch.Tensor]:
    """A micro-batch, whose first text is shorter than the others, and its velocity; of two frames, if one is given clean."""
    samples, image_tokens, text_tokens = batch
    frames = 2 if clean else 1
    x, velocity = (torch.randn(samples, config.in_channels, frames, 2, 2 * image_tokens // frames, device=device) for _ in range(2))
    states = torch.randn(samples, text_tokens, config.text_dim, device=device, dtype=dtype)
    mask = torch.ones(samples, text_tokens, device=device, dtype=torch.bool)
    mask[0, -1] = samples == 1
    pooled, sigma = torch.randn(samples, config.pooled_dim, device=device, dtype=dtype), torch.rand(samples, device=device)
    return Noisy(x, sigma, TextFeatures(states, mask, pooled), sigma.to(dtype), (0,) if clean else ()), velocity


def measure(device: torch.device) -> None:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    for kind in ("full", "lora"):
        for tokens in (256, 2048):
            for checkpointing in (False, True):
                batch = MicroBatch(1, tokens, 64)
                settings = {"kind": kind, "batch": batch, "rank": 4, "activation_checkpointing": checkpointing, "dtype": dtype}
                plan = predict(SMALL, **settings)
                taken = peak_memory(partial(train, SMALL, device, **settings), device) * 2**20
                how = "computed twice" if checkpointing else "kept"
                print(f"{kind}, {tokens} tokens, activations {how}: planned {plan.total / 1e9:.3f} GB, measured {taken / 1e9:.3f} GB")


def plan() -> None:
    size = TransformerConfig()
    for title, tokens, planned in (
        ("LoRA of rank 32, 17x320x544", 5 * 20 * 34, partial(predict, size, kind="lora")),
        ("LoRA of rank 32, 33x544x960", 9 * 34 * 60, partial(predict, size, kind="lora")),
        ("LoRA of rank 32 beside 8 bits, 33x544x960", 9 * 34 * 60, partial(predict, size, kind="lora", fp8_base=True)),
        ("All weights on 8 ranks, 33x544x960", 9 * 34 * 60, partial(predict, size, kind="full", world_size=8)),
    ):
        for checkpointing in (True, False):
            how = "computed twice" if checkpointing else "kept"
            print(f"{title}, {tokens} tokens, activations {how}")
            print(planned(batch=MicroBatch(1, tokens), activation_checkpointing=checkpointing).table(), "\n")
    for title, sizes, text in (
        ("image to video, token replace", size, 396),
        ("image to video, latent concat", TransformerConfig(in_channels=33), 540),
    ):
        batch, how = MicroBatch(1, 33 * 30 * 30, text), {"rank": 64, "activation_checkpointing": True, "clean": text == 396}
        for in_8_bits in (True, False):
            print(f"LoRA of rank 64, {title}, 129x480x480, blocks come and go, {'8' if in_8_bits else '16'} bits")
            print(predict(sizes, kind="lora", batch=batch, fp8_base=in_8_bits, swap_blocks=True, **how).table(), "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    measure(torch.device(arguments.device)) if arguments.measure else plan()
