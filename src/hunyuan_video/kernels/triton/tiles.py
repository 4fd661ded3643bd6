"""How much of an attention a program does at a time, by the kind of GPU: what fits into registers without spills, and into shared memory.

tests/kernels/test_triton_compiled.py compiles every one, and holds it to that.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Tiles(NamedTuple):
    queries: int
    keys: int
    warps: int
    stages: int  # blocks of keys and values on their way while others are multiplied


# By bits. Hopper and the Blackwell of data centres have room for more on its way; others spill where keys of 16 bits are 64.
LARGE = {32: Tiles(64, 32, 8, 2), 16: Tiles(128, 64, 8, 3), 8: Tiles(128, 64, 8, 4)}
SMALL = {32: Tiles(64, 32, 8, 2), 16: Tiles(128, 32, 8, 3), 8: Tiles(128, 64, 8, 3)}


def capability(device: torch.device) -> tuple[int, int]:
    """Of a GPU; where Triton's interpreter stands in for one, that of a Hopper."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (9, 0)


def has_fp8(device: torch.device) -> bool:
    """Whether it multiplies float8_e4m3fn."""
    return capability(device) >= (8, 9)


def tiles_for(device: torch.device, bits: int) -> Tiles:
    """For operands of so many bits."""
    return (LARGE if 9 <= capability(device)[0] <= 10 else SMALL)[bits]
