"""Triton's decorator, after which a checker of types no longer asks what a launch is given."""

from __future__ import annotations

from typing import Any

import triton


def kernel(function: Any) -> Any:
    """Compiled for the GPU where it is first launched: `kernel[grid](arguments, num_warps=…)`."""
    return triton.jit(function)
