"""Processes for tests of many ranks."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from forked import server


def on_ranks(work: Callable[..., None], num_ranks: int, folder: Path, *more: Any, patience: float = 240) -> list[dict[str, Any]]:
    """What each of `num_ranks` processes that run `work(rank, num_ranks, folder, *more)` has left in `folder`, as RANK.pt;
    `patience` is in seconds."""
    context = mp.start_processes(work, (num_ranks, folder, *more), nprocs=num_ranks, join=False, start_method=server())
    deadline = time.monotonic() + patience
    while not context.join(timeout=1):
        if time.monotonic() > deadline:
            for process in context.processes:
                process.kill()
            pytest.fail("the ranks wait for each other")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(num_ranks)]
