"""The memory of a training, before anything is loaded: a whole forward and backward pass on the meta device, with every byte counted.

Nothing is computed there, but PyTorch makes and frees the same tensors as in the real step. So the count follows the code and has no
formula of its own for what autograd saves, what is computed twice, or the fullest moment inside a block. Only what outlives the pass is
added by hand: weights, copies, optimizer, and what FSDP gathers.

Attention counts as a fused kernel that saves q, k, v, its output and one float32 per query and head. Not counted: what an allocator loses
between its blocks, and the CUDA context.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hunyuan_video.memory import LiveBytes
from hunyuan_video.models.transformer import Condition, HunyuanVideoTransformer, TransformerConfig, use_attention
from hunyuan_video.training.parallel import checkpointed_trunk
from hunyuan_video.transforms import fp8
from hunyuan_video.transforms.lora import add_lora


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on each device at the fullest moment of a step, line by line, and what would make them fewer."""

    lines: dict[str, int]
    moment: str
    remedies: tuple[str, ...]

    @property
    def total(self) -> int:
        return sum(self.lines.values())

    def table(self) -> str:
        """One line each, in GB (10^9 bytes)."""
        rows = self.lines | {f"together, at the {self.moment}": self.total}
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}} {size / 1e9:8.2f} GB" for name, size in rows.items())


def predict(
    model_config: TransformerConfig,
    *,
    kind: Literal["full", "lora"],
    token_budget: int,
    text_tokens: int = 256,
    rank: int = 32,
    world_size: int = 1,
    activation_checkpointing: bool = False,
    ema: bool = True,
    fp8_base: bool = False,
    accumulate: bool = False,
    dtype: torch.dtype = torch.bfloat16,
) -> MemoryPlan:
    """The memory on each device of training all weights, or a LoRA of `rank` beside weights that may be in 8 bits.

    `token_budget` and `text_tokens` are the image and text tokens of a micro-batch; `accumulate` says that a rank does several of those in
    a step. With a `world_size` above 1, FSDP shards everything over the ranks, block by block.
    """
    model = _build(model_config, kind, rank, fp8_base, dtype)
    blocks = [*model.double_blocks, *model.single_blocks]
    if activation_checkpointing:
        model.trunk = checkpointed_trunk  # pyright: ignore[reportAttributeAccessIssue]
    trained = _count(model, trained=True)
    frozen = sum(parameter.nbytes for parameter in model.parameters() if not parameter.requires_grad)
    held = {
        "frozen weights": frozen,
        "trained weights (float32)": 4 * trained,
        "AdamW's two moments (float32)": 8 * trained,
        "average of the weights (float32)": 4 * trained if ema else 0,
    }
    held = {name: -(-size // world_size) for name, size in held.items()}
    gradients = 4 * trained // world_size
    seen = _pass(model, token_budget, text_tokens, dtype)

    moments: dict[str, dict[str, int]] = {}
    if world_size > 1:
        largest = max(blocks, key=_count)
        outside = _count(model) - sum(map(_count, blocks))
        moments["fullest moment of the backward pass"] = held | {
            "gathered weights: two blocks, and what is outside": dtype.itemsize * (2 * _count(largest) + outside),
            "gradients of one block, before they are reduced": (dtype.itemsize + 4) * _count(largest, trained=True),
            "gradients (float32)": gradients,
            "activations": seen.most_activations,
        }
    else:
        copied = kind == "full" and dtype != torch.float32
        if copied:
            held |= {f"copy of the weights that computes ({dtype})": dtype.itemsize * trained}
        moments["fullest moment of the backward pass"] = held | {
            "gradients of earlier micro-batches (float32)": gradients if accumulate and copied else 0,
            "gradients so far": seen.gradients,
            "activations": seen.most - seen.gradients,
        }
        moments["update"] = held | {"gradients (float32)": gradients}
    moment, lines = max(moments.items(), key=lambda item: sum(item[1].values()))
    remedies = {
        "train a LoRA": kind == "full",
        "compute activations twice (activation checkpointing)": not activation_checkpointing,
        "keep the frozen weights in 8 bits": kind == "lora" and not fp8_base,
        "take smaller buckets": True,
        "use more ranks": True,
    }
    return MemoryPlan(
        {name: size for name, size in lines.items() if size}, moment, tuple(name for name, helps in remedies.items() if helps)
    )


def check(plan: MemoryPlan, available: int) -> None:
    """Refuse a training that cannot fit.

    Raises:
        ValueError: it cannot; says what takes how much, and what would help.
    """
    if plan.total > available:
        parts = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in plan.lines.items())
        raise ValueError(
            f"This training needs {plan.total / 1e9:.1f} GB on each device, and {available / 1e9:.1f} GB are free ({parts}): "
            f"{', or '.join(plan.remedies)}."
        )


class _FusedAttention(torch.autograd.Function):
    """Saves what fused kernels save. On the meta device PyTorch itself would choose the one that keeps all scores."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:3], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, _, _ = ctx.saved_tensors
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _build(config: TransformerConfig, kind: str, rank: int, fp8_base: bool, dtype: torch.dtype) -> HunyuanVideoTransformer:
    with torch.device("meta"):
        model = HunyuanVideoTransformer(config).to(dtype)
    if kind == "lora":
        if fp8_base:
            fp8.quantize(model)
        add_lora(model, rank, float(rank))
    use_attention(model, lambda q, k, v, _mask: _FusedAttention.apply(q, k, v))
    return model


def _pass(model: HunyuanVideoTransformer, image_tokens: int, text_tokens: int, dtype: torch.dtype) -> LiveBytes:
    """One forward and backward pass of the loss."""
    config = model.config
    time, height, width = config.patch_size
    make = partial(torch.empty, device="meta")
    with LiveBytes(model) as seen:
        latents = make(1, config.in_channels, time, height, width * image_tokens)
        states, pooled = make(1, text_tokens, config.text_dim, dtype=dtype), make(1, config.pooled_dim, dtype=dtype)
        txt, context = model.txt_in.embed(states, None)
        guidance = None if model.guidance_in is None else model.guidance_in(make(1))
        # Not by model.condition, which looks at the mask: there is nothing to see on this device.
        condition = Condition(txt, context, model.vector_in(pooled), guidance, None)
        noisy = latents.clone()
        (model(noisy, make(1), condition).float() - latents).square().mean().backward()
    return seen


def _count(module: nn.Module, *, trained: bool = False) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad or not trained)
