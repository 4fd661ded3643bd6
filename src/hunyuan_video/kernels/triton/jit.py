"""Triton's decorator, after which a checker of types no longer asks what a launch is given."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import triton


class Kernel:
    """Launched on the GPU where its first tensor lies: Triton itself launches on the current one, whatever it is given."""

    def __init__(self, function: Any):
        self.jitted = triton.jit(function)

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*arguments: Any, **options: Any) -> None:
            device = next(argument.device for argument in arguments if isinstance(argument, torch.Tensor))
            with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
                self.jitted[grid](*arguments, **options)

        return launch


def kernel(function: Any) -> Kernel:
    """Compiled for the GPU where it is first launched: `kernel[grid](arguments, num_warps=…)`."""
    return Kernel(function)


def part(function: Any) -> Any:
    """What kernels call, and nobody launches."""
    return triton.jit(function)
