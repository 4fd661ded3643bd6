"""The memory of a training, before anything is loaded: a whole forward and backward pass on the meta device, with every byte counted.

Nothing is computed there, but PyTorch makes and frees the same tensors as in the real step. So the count follows the code and has no
formula of its own for what autograd saves, what is computed twice, or the fullest moment inside a block. Only what outlives the pass is
added by hand: weights, copies, optimizer, and what FSDP gathers.

PyTorch's attention counts as a fused kernel that saves q, k, v, its output and one float32 per query and head; other kernels run as they
are. Not counted: what an allocator loses between its blocks, what sequence parallelism sends, and the CUDA context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from hunyuan_video.assembly import Models, Training, assemble
from hunyuan_video.config import Runtime
from hunyuan_video.distributed.world import World
from hunyuan_video.kernels.choice import use_attention
from hunyuan_video.memory import LiveBytes
from hunyuan_video.models.attention import AttentionFn, sdpa
from hunyuan_video.models.transformer import Condition, HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.transforms.lora import add_lora, in_attention_and_mlp

META = torch.device("meta")


class MicroBatch(NamedTuple):
    """Samples that go through the model together, and the tokens of each on one device."""

    samples: int
    image_tokens: int
    text_tokens: int = 256

    def sum_over_samples(self, power: int) -> int:
        """Of the tokens to a power: 1 is what most of the memory goes with, 2 the scores of attention, where they are kept."""
        return self.samples * (self.image_tokens + self.text_tokens) ** power


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
    batch: MicroBatch,
    rank: int = 32,
    where: Callable[[str], bool] = in_attention_and_mlp,
    world_size: int = 1,
    activation_checkpointing: bool = False,
    ema: bool = True,
    fp8_base: bool = False,
    swap_blocks: bool = False,
    clean: bool = False,
    accumulate: bool = False,
    dtype: torch.dtype = torch.bfloat16,
    attention: AttentionFn = sdpa,
) -> MemoryPlan:
    """The memory on each device of training all weights, or a LoRA of `rank` at the layers `where` beside weights that may be in 8 bits.

    `swap_blocks` lets frozen blocks come and go; `clean` says that some latent frames are given without noise, whose tokens are modulated
    as such; `accumulate` that a rank does several micro-batches in a step. With a `world_size` above 1, FSDP shards everything over the
    ranks, block by block.
    """
    with META:
        model = HunyuanVideoTransformer(model_config).to(dtype)
    adapt = partial(add_lora, rank=rank, alpha=float(rank), where=where) if kind == "lora" else None
    runtime = Runtime(fp8=fp8_base, offload="blocks" if swap_blocks else "none")
    streamed = assemble(Models(model), runtime, World(META), training=Training(dtype, adapt, activation_checkpointing))
    use_attention(model, _fused_attention if attention is sdpa else attention)
    blocks = model.blocks
    trained = _count(model, trained=True)
    coming = {id(tensor) for tensor in streamed}  # which are counted when they come
    frozen = sum(parameter.nbytes for parameter in model.parameters() if not parameter.requires_grad and id(parameter) not in coming)
    held = {
        "frozen weights": frozen,
        "trained weights (float32)": 4 * trained,
        "AdamW's two moments (float32)": 8 * trained,
        "average of the weights (float32)": 4 * trained if ema else 0,
    }
    held = {name: -(-size // world_size) for name, size in held.items()}
    gradients = 4 * trained // world_size
    with LiveBytes(model) as seen:
        _loss(model, batch, dtype, clean=clean).backward()

    moments: dict[str, dict[str, int]] = {}
    # They are the masters'; the next backward pass makes a set of the worker's.
    earlier = {"gradients of earlier micro-batches (float32)": gradients if accumulate else 0}
    if world_size > 1:
        whole = partial(gathered, dtype=dtype)
        largest = max(blocks, key=whole)
        outside = whole(model) - sum(map(whole, blocks))
        moments["fullest moment of the backward pass"] = (
            held
            | earlier
            | {
                "gathered weights: two blocks, and what is outside": 2 * whole(largest) + outside,
                "gradients of one block, before they are reduced": (dtype.itemsize + 4) * _count(largest, trained=True),
                "gradients (float32)": gradients,
                "activations": seen.most_activations,
            }
        )
    else:
        if kind == "full" and dtype != torch.float32:
            held |= {f"copy of the weights that computes ({dtype})": dtype.itemsize * trained}
        moments["fullest moment of the backward pass"] = (
            held
            | earlier
            | {
                "gradients so far": seen.gradients,
                "activations" + ", and blocks that come and go" * swap_blocks: seen.most - seen.gradients,
            }
        )
        moments["update"] = held | {"gradients (float32)": gradients}
    moment, lines = max(moments.items(), key=lambda item: sum(item[1].values()))
    remedies = {
        "train a LoRA": kind == "full",
        "compute activations twice (activation checkpointing)": not activation_checkpointing,
        "keep the frozen weights in 8 bits": kind == "lora" and not fp8_base,
        "let the frozen blocks come and go (swap blocks)": kind == "lora" and world_size == 1 and not swap_blocks,
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


def _fused_attention(q: Tensor, k: Tensor, v: Tensor, _mask: Tensor | None) -> Tensor:
    return _FusedAttention.apply(q, k, v)


def _loss(model: HunyuanVideoTransformer, batch: MicroBatch, dtype: torch.dtype, *, clean: bool) -> Tensor:
    config, (samples, image_tokens, text_tokens) = model.config, batch
    time, height, width = config.patch_size
    make, frames = partial(torch.empty, device=META), 2 if clean else 1  # how many there are makes no difference but that
    size = frames * time, height, width * -(-image_tokens // frames)
    noisy, velocity = (make(samples, channels, *size) for channels in (config.in_channels, config.out_channels))
    states, pooled = make(samples, text_tokens, config.text_dim, dtype=dtype), make(samples, config.pooled_dim, dtype=dtype)
    mask = None if samples == 1 else make(samples, text_tokens, dtype=torch.bool)
    txt, context = model.txt_in.embed(states, mask)
    guidance = None if model.guidance_in is None else model.guidance_in(make(samples), dtype)
    # Not by model.condition, which looks at the mask: there is nothing to see on this device.
    condition = Condition(txt, context, model.vector_in(pooled), guidance, mask)
    return (model(noisy, make(samples), condition, (0,) if clean else ()).float() - velocity).square().mean()


def gathered(module: nn.Module, dtype: torch.dtype) -> int:
    """Bytes of a module's weights on a rank where it works: in the dtype of computing, but for those in 8 bits."""
    return sum(parameter.numel() * min(parameter.itemsize, dtype.itemsize) for parameter in module.parameters())


def _count(module: nn.Module, *, trained: bool = False) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad or not trained)
