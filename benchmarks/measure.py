"""What the benchmarks share: weights without zeros, and the peak memory of a call."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

PAGE = 4096


def randomize(module: nn.Module, seed: int = 0, std: float = 0.02) -> nn.Module:
    """Normal weights everywhere: a zero-initialized layer would hide a difference between two implementations."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.normal_(0, std, generator=generator)
    return module.eval().requires_grad_(False)


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


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
