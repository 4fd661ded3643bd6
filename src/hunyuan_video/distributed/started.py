"""What torchrun tells a process of itself. Imports no torch, so that a command can ask before anything else is done."""

from __future__ import annotations

import os

LAUNCHED = "HUNYUAN_VIDEO_LAUNCHED"  # set by our own launcher, which knows how a process ended, and says it


class RanksError(RuntimeError):
    """A rank has failed, and all have ended; says which, and why. `code` is what the process should end with."""

    def __init__(self, sentence: str, code: int):
        super().__init__(sentence)
        self.code = code


def world_size() -> int:
    """How many processes torchrun has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_size() -> int:
    """How many of them are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this one is."""
    return int(os.environ.get("RANK", "0"))


def is_main_process() -> bool:
    return rank() == 0
