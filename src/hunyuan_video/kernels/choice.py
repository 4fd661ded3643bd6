"""The fastest attention kernel for a length, measured where it runs: it depends on the processor as much as on the length.

One with matrix units of its own for bfloat16 may be fastest with `sdpa` below 1,000 tokens, with `chunked` above, and with `sdpa` again
above 3,000; another is always faster with `chunked`.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Mapping

import torch

from hunyuan_video.models.attention import KINDS, AttentionFn

log = logging.getLogger(__name__)

CANDIDATES = ("sdpa", "chunked")  # on a CPU; the first one wins a tie
TIE = 0.9  # of its time: what must be beaten by more than the noise of a machine
# A kernel is tried on a share of the work that is in proportion: each query's work is the same, and so is each head's. `sdpa` gives blocks
# of 256 queries of a head to a thread, and smaller ones where there are fewer than 768 queries.
QUERIES = 1024
KEYS = 2**14  # beyond, no cache holds the scores, and more keys only take longer
ROUNDS = 6  # at most, and the first one only warms up
SECONDS = 0.25  # after which no other round begins

_fastest: dict[tuple[object, ...], str] = {}


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
