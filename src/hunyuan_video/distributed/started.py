"""What torchrun tells a process of itself. Imports no torch, so that a command can ask before anything else is done."""

from __future__ import annotations

import os


def world_size() -> int:
    """How many processes torchrun has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this one is."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    return rank() == 0
