"""Time that a noisy machine does not stretch, where there is one."""

from __future__ import annotations

import time

import torch


def clock(device: torch.device) -> float:
    """Seconds: of this process's work on a CPU, of the wall on CUDA, after everything queued is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()
