"""Which attention kernel a model has: the one that was asked for, or the fastest for a length, measured where it runs.

Which that is depends on the processor as much as on the length. One with matrix units of its own for bfloat16 may be fastest with `sdpa`
below 1,000 tokens, with `chunked` above, and with `sdpa` again above 3,000; another is always faster with `chunked`.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from hunyuan_video.kernels.triton import by_name
from hunyuan_video.models.attention import KINDS, AttentionFn, sdpa

log = logging.getLogger(__name__)

CANDIDATES = ("sdpa", "chunked")  # on a CPU; the first one wins a tie
TIE = 0.9  # of its time: what must be beaten by more than the noise of a machine
# A kernel is tried on a share of the work that is in proportion: each query's work is the same, and so is each head's. `sdpa` gives blocks
# of 256 queries of a head to a thread, and smaller ones where there are fewer than 768 queries.
QUERIES = 1024
KEYS = 2**14  # beyond, no cache holds the scores, and more keys only take longer
ROUNDS = 6  # at most, and the first one only warms up
SECONDS = 0.25  # after which no other round begins

ATTENTION: dict[str, AttentionFn] = {**KINDS, **by_name.BY_NAME}  # by the names of `Runtime.attention`

_fastest: dict[tuple[object, ...], str] = {}


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


def check_attention(name: str, device: torch.device, *, training: bool) -> None:
    """Raises a ValueError for a kernel that is not made for a device, or for going backward; an ImportError for one that needs Triton."""
    if name in by_name.BY_NAME:
        by_name.check(name, device, training=training)
    if name == "chunked" and (training or device.type != "cpu"):
        where = "trainings need its gradient" if training else f"the device is {device}"
        raise ValueError(f"attention is 'chunked', which is written for a CPU's caches and for inference, but {where}; use sdpa, or auto.")


def may_choose(model: nn.Module) -> bool:
    """Whether a model has kernels of ours, and none that somebody else has put there."""
    return attention_of(model) <= {sdpa, *ATTENTION.values()}


@torch.no_grad()
def fastest(heads: int, head_dim: int, num_tokens: int, dtype: torch.dtype, device: torch.device) -> str:
    """The name in `KINDS` of the fastest kernel for one sequence of `num_tokens`.

    It is measured once a process for all lengths near the same half power of two, in tens of milliseconds; in a second where steps take
    hours.
    """
    if device.type != "cpu":
        return "sdpa"  # the others are written for a CPU's caches
    threads = torch.get_num_threads()
    key = (heads, head_dim, round(2 * math.log2(num_tokens)), dtype, device, threads)
    if key not in _fastest:
        busy = min(heads, max(1, threads * 256 // QUERIES))  # heads: enough to give every thread a block
        generator = torch.Generator().manual_seed(0)
        q = torch.randn(1, min(num_tokens, QUERIES), busy, head_dim, generator=generator).to(dtype)
        k, v = torch.randn(2, 1, min(num_tokens, KEYS), busy, head_dim, generator=generator).to(dtype)
        seconds = measure({name: KINDS[name] for name in CANDIDATES}, q, k, v)
        first, *_ = CANDIDATES
        best = min(seconds, key=lambda name: seconds[name])
        _fastest[key] = best if seconds[best] < TIE * seconds[first] else first
        times = ", ".join(f"{name} {1000 * time:.2f} ms" for name, time in seconds.items())
        log.info("Attention at %d tokens in %s: %s (%s).", num_tokens, str(dtype).removeprefix("torch."), _fastest[key], times)
    return _fastest[key]


def measure(kernels: Mapping[str, AttentionFn], q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> dict[str, float]:
    """Median seconds of each kernel. They take turns, so that a noisy machine is unfair to all alike."""
    taken: dict[str, list[float]] = {name: [] for name in kernels}
    end = time.perf_counter() + SECONDS
    for number in range(ROUNDS):
        for name, kernel in kernels.items():
            start = time.perf_counter()
            kernel(q, k, v, None)
            taken[name].append(time.perf_counter() - start)
        if number > 0 and time.perf_counter() > end:
            break
    return {name: statistics.median(times[1:]) for name, times in taken.items()}
