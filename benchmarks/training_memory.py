"""Planned memory of trainings of the 13B model, or with --measure a plan beside what a real step of a small model takes.

python benchmarks/training_memory.py                                    # the tables of docs/training-memory.md
python benchmarks/training_memory.py --measure [--device cuda]
"""

from __future__ import annotations

import argparse
import copy
from functools import partial

import torch
from measure import peak_memory

from hunyuan_video.models.attention import sdpa
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig, use_attention
from hunyuan_video.training.parallel import checkpointed_trunk
from hunyuan_video.training.plan import predict
from hunyuan_video.transforms import fp8
from hunyuan_video.transforms.lora import add_lora

SMALL = TransformerConfig(hidden_size=512, num_heads=4, num_double_blocks=2, num_single_blocks=4, text_dim=1024)
TEXT_TOKENS = 64


def train(
    config: TransformerConfig, kind: str, tokens: int, checkpointing: bool, ema: bool, fp8_base: bool, dtype: torch.dtype, device: str
) -> None:
    """Two whole steps of a training, as plainly as it can be written."""
    make = partial(torch.randn, device=device)
    with torch.device(device):
        model = HunyuanVideoTransformer(config)
    worker = model
    if kind == "lora":
        model.to(dtype)
        if fp8_base:
            fp8.quantize(model)
        add_lora(model, 4, 4.0)
    elif dtype != torch.float32:
        worker = copy.deepcopy(model).to(dtype)
    use_attention(worker, sdpa)
    if checkpointing:
        worker.trunk = checkpointed_trunk  # pyright: ignore[reportAttributeAccessIssue]
    masters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    averages = [master.detach().clone() for master in masters.values()] if ema else []
    optimizer = torch.optim.AdamW(list(masters.values()), lr=1e-3, fused=True)
    mask, guidance = torch.ones(1, TEXT_TOKENS, dtype=torch.bool, device=device), torch.ones(1, device=device)
    for _ in range(2):
        latents = make(1, config.in_channels, 1, 2, 2 * tokens)
        states, pooled = make(1, TEXT_TOKENS, config.text_dim, dtype=dtype), make(1, config.pooled_dim, dtype=dtype)
        condition = worker.condition(states, mask, pooled, guidance if config.guidance_embed else None)
        loss = (worker(torch.randn_like(latents), guidance, condition).float() - latents).square().mean()
        loss.backward()
        del loss, condition
        if worker is not model:
            for name, parameter in worker.named_parameters():
                assert parameter.grad is not None
                masters[name].grad, parameter.grad = parameter.grad.float(), None
        optimizer.step()
        optimizer.zero_grad()
        if ema:
            torch._foreach_lerp_(averages, [master.detach() for master in masters.values()], 0.1)


def measure(device: torch.device) -> None:
    for kind in ("full", "lora"):
        for tokens in (256, 2048):
            for checkpointing in (False, True):
                dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
                small = partial(predict, SMALL, kind=kind, rank=4, text_tokens=TEXT_TOKENS, dtype=dtype)
                plan = small(token_budget=tokens, activation_checkpointing=checkpointing)
                call = partial(train, SMALL, kind, tokens, checkpointing, True, False, dtype, str(device))
                taken = peak_memory(call, device) * 2**20
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
            print(planned(token_budget=tokens, activation_checkpointing=checkpointing).table(), "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    measure(torch.device(arguments.device)) if arguments.measure else plan()
