"""What the benchmarks share: weights without zeros, times taken alone and in turns, and the peak memory of a call."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import statistics
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from hunyuan_video.evaluation.clock import clock

PAGE = 4096
Model = TypeVar("Model", bound=nn.Module)


def randomize(module: Model, seed: int = 0, std: float = 0.1) -> Model:
    """Normal weights everywhere: a zero-initialized layer would hide a difference between two implementations."""
    generator = torch.Generator(next(module.parameters()).device).manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.normal_(0, std, generator=generator)
    return module.eval().requires_grad_(False)


class Spread(NamedTuple):
    """Seconds of several measurements of one thing."""

    median: float
    least: float
    iqr: float
    """between the quartiles"""
    repeats: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        low, _, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [0.0] * 3
        return cls(statistics.median(seconds), min(seconds), high - low, len(seconds))


def take_turns(calls: Mapping[str, Callable[[], object]], device: torch.device, repeats: int) -> dict[str, Spread]:
    """Seconds of each call. They alternate, so that a noisy machine is unfair to all alike."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = clock(device)
            call()
            taken[name].append(clock(device) - start)
    return {name: Spread.of(seconds) for name, seconds in taken.items()}


def timed(call: Callable[[], object], device: torch.device, seconds: float = 1.0) -> dict[str, float]:
    """Milliseconds of one call: median, least and most of at least three measurements, and of as many more as fit in `seconds`. The call
    before them warms up, and tells the peak memory. A short call is repeated within a measurement, so that a clock's own time is nothing.
    """
    peak = peak_memory(call, device)

    def once(times: int) -> float:
        start = clock(device)
        for _ in range(times):
            call()
        return 1000 * (clock(device) - start) / times

    first = once(1)
    times = max(1, round(20 / max(first, 1e-3)))
    samples = [first] if times == 1 else []
    wanted = min(20, max(3, int(1000 * seconds / max(first * times, 1e-3))))
    samples += [once(times) for _ in range(wanted - len(samples))]
    return {"ms": statistics.median(samples), "least_ms": min(samples), "most_ms": max(samples), "repeats": len(samples), "peak_mib": peak}


def deviation(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The relative error, as a root mean square."""
    expected = expected.float()
    return ((actual.float() - expected).norm() / expected.norm()).item()


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE / 2**20


def peak_memory(call: Callable[[], object], device: torch.device) -> float:
    """MiB above what was in use before the call: allocated on CUDA, resident in RAM otherwise (sampled every millisecond)."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # else the allocator serves the call from memory that it kept from the last one
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    before = peak = resident_mib()
    finished = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not finished.wait(0.001):
            peak = max(peak, resident_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        call()
    finally:
        finished.set()
        watcher.join()
    return peak - before


def fresh_peak(make: Callable[..., Callable[[], object]], *args: object, device: torch.device) -> float:
    """Peak memory of the first call of what `make(*args, device)` returns, in a process of its own: memory that an earlier call gave
    back is still resident. `make` is a function of a module, so that the other process finds it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_first_peak, make, args, device).result()


@torch.no_grad()
def _first_peak(make: Callable[..., Callable[[], object]], args: tuple[object, ...], device: torch.device) -> float:
    torch.set_num_threads(1)
    return peak_memory(make(*args, device), device)
