"""Which attention kernel a model has: the one that was asked for, or the fastest for a length, measured where it runs.

Which that is depends on the processor as much as on the length. One with matrix units of its own for bfloat16 may be fastest with `sdpa`
below 1,000 tokens, with `chunked` above, and with `sdpa` again above 3,000; another is always faster with `chunked`; on one make of CPU a
native path is six times slower than on another.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from hunyuan_video.kernels import kept, measured, table
from hunyuan_video.kernels.blocks import BlockLists
from hunyuan_video.kernels.sparse import attend_to_blocks
from hunyuan_video.kernels.triton.by_name import BY_NAME
from hunyuan_video.models.attention import KINDS, AttentionFn, sdpa

CHOSEN = ("auto", "native")  # for each video: the fastest of all candidates, or of the native ones
# A kernel is tried on a share of the work that is in proportion: each query's work is the same, and so is each head's. `sdpa` gives blocks
# of 256 queries of a head to a thread, and smaller ones where there are fewer than 768 queries; a GPU is full with eight heads.
QUERIES = {"cpu": 1024, "cuda": 2**14}
KEYS = {"cpu": 2**14, "cuda": 2**20}  # on a CPU no cache holds the scores beyond, and more keys only take longer
GPU_HEADS = 8
BLOCK = 128  # tokens of a block where few pairs are computed


def use_attention(model: nn.Module, kernel: AttentionFn) -> None:
    """Give every block of a model another attention kernel."""
    for block in _holders(model):
        block.attention = kernel  # pyright: ignore[reportArgumentType] (a function)


def attention_of(model: nn.Module) -> set[AttentionFn]:
    """The kernels that the blocks of a model have."""
    return {block.attention for block in _holders(model)}  # pyright: ignore[reportReturnType]


def _holders(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if "attention" in vars(module)]  # a function; a module of that name would not be there


def for_training(device: torch.device) -> Literal["matmul", "sdpa"]:
    """The name of the kernel that trains: on a CPU the one that is faster in the backward pass."""
    return "matmul" if device.type == "cpu" else "sdpa"


def check_attention(
    name: str, device: torch.device, *, training: bool, dtype: torch.dtype | None = None, head_dim: int | None = None
) -> None:
    """Raises a ValueError for a kernel that cannot work: not on this device, not going backward, not in this dtype, or not installed."""
    if name == "auto":
        return
    names = [each for each in table.KERNELS if each.startswith("native-")] if name == "native" else [name]
    reasons = [why_not(each, device, dtype, head_dim, training=training) for each in names]
    if all(reasons):
        raise ValueError(f"attention is {name!r}, {reasons[0]}; use sdpa, or auto.")


def why_not(
    name: str, device: torch.device, dtype: torch.dtype | None = None, head_dim: int | None = None, *, training: bool = False
) -> str | None:
    """As `table.why_not`, also where a kernel is not installed, or is not for this very processor."""
    if reason := table.why_not(name, device, dtype, head_dim, training=training):
        return reason
    try:
        table.load(name)
    except (ImportError, RuntimeError) as error:
        return f"but {str(error).removesuffix('.')}"
    return None


def planned_as(name: str) -> str:
    """The kernel that stands for another where work is only counted: fused ones need what `sdpa` does, and may not be installed there;
    those in 8 bits count their copies themselves."""
    return name if name in (*KINDS, *BY_NAME, "auto") else "sdpa"


def kernel_of(name: str, device: torch.device) -> AttentionFn:
    """The kernel of that name, as `table.load`; on the meta device, where none computes, nothing that it needs must be installed."""
    return BY_NAME[name] if device.type == "meta" and name in BY_NAME else table.load(name)


def may_choose(model: nn.Module) -> bool:
    """Whether a model has kernels of ours, and none that somebody else has put there."""
    return attention_of(model) <= {sdpa, *KINDS.values(), *table.loaded()}


@torch.no_grad()
def fastest(
    heads: int, head_dim: int, num_tokens: int, dtype: torch.dtype, device: torch.device, among: str = "auto", density: float = 1.0
) -> str:
    """The name of the fastest kernel for one sequence of `num_tokens`: of all candidates ("auto"), of the "native" ones, or of those that
    a ring can ask for ("parts"); where only a share of all pairs is computed, the fastest for that.

    It is measured once on a machine for all lengths near the same half power of two, in tens of milliseconds; in a second where steps take
    hours. Native kernels are compiled before, once, in seconds.

    Raises:
        ValueError: no native kernel works here, and one was asked for.
    """
    names = [
        name
        for name, kernel in table.KERNELS.items()
        if kernel.is_candidate and _is_among(name, among)
        if table.why_not(name, device, dtype, head_dim, training=False) is None
    ]
    if device.type not in QUERIES or names == ["sdpa"]:
        return "sdpa"
    question: kept.Question = {"dtype": str(dtype), "heads": heads, "head_dim": head_dim}
    if density < 1:
        question |= {"density_in_tenths": max(1, round(10 * density))}
    name = measured.fastest(
        "attention",
        question | {"half_powers_of_two_tokens": round(2 * math.log2(num_tokens))},
        {name: table.KERNELS[name].version() for name in names},
        _loaded,
        lambda: _trial(heads, head_dim, num_tokens, dtype, device, density),
        device,
    )
    if name is None:
        raise ValueError("No native attention kernel works here; use --attention sdpa, or auto.")
    return name


def _is_among(name: str, among: str) -> bool:
    # PyTorch's flash kernel is what "sdpa" is there.
    return name in ("sdpa", "chunked") if among == "parts" else among == "auto" or name.startswith("native-")


def _trial(heads: int, head_dim: int, num_tokens: int, dtype: torch.dtype, device: torch.device, density: float) -> measured.Trial:
    of_blocks = torch.get_num_threads() * 256 // QUERIES["cpu"]  # heads that give every thread a block
    busy = min(heads, max(1, of_blocks) if device.type == "cpu" else GPU_HEADS)
    generator = torch.Generator(device).manual_seed(0)
    q = torch.randn(1, min(num_tokens, QUERIES[device.type]), busy, head_dim, generator=generator, device=device).to(dtype)
    k, v = torch.randn(2, 1, min(num_tokens, KEYS[device.type]), busy, head_dim, generator=generator, device=device).to(dtype)
    if density == 1:
        return measured.Trial(lambda kernel: kernel(q, k, v, None), sdpa(q, k, v, None))
    rows, blocks = (-(-x.shape[1] // BLOCK) for x in (q, k))
    seen = max(1, round(density * blocks))
    indices = torch.rand(1, rows, blocks, generator=generator, device=device).argsort(dim=-1)[:, :, :seen].int().contiguous()
    lists = BlockLists(indices, torch.full_like(indices[:, :, 0], seen), BLOCK, BLOCK)
    return measured.Trial(lambda kernel: attend_to_blocks(kernel, q, k, v, lists), attend_to_blocks(sdpa, q, k, v, lists))


def _loaded(name: str) -> AttentionFn | None:
    try:
        return table.load(name)
    except (ImportError, RuntimeError) as error:
        measured.say(f"Without {name} attention: {error}" if isinstance(error, ImportError) else f"Without native attention: {error}")
        return None
