"""Kernels for GPUs, written in Triton. Its modules need it; this one says whether it is here, and works."""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec

import torch

log = logging.getLogger(__name__)


def is_here() -> bool:
    """Whether Triton is installed, without importing it."""
    return find_spec("triton") is not None


def need(what: str) -> None:
    """Raises an ImportError for what was asked for by name and needs Triton, if there is none."""
    if not is_here():
        raise ImportError(f"{what} is computed by Triton, which is missing; PyTorch for CUDA on Linux brings it, or pip install triton.")


@cache
def works(device: torch.device) -> bool:
    """Whether Triton is installed and computes on this device, which is a GPU: tried once, for it needs a C compiler and a driver that it
    knows."""
    if device.type != "cuda" or not is_here():
        return False
    try:
        from hunyuan_video.kernels.triton.trial import three

        three(device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # other people's compilers: what they raise on a machine that they do not know is their own
        log.info("Without Triton's kernels on %s: %s: %s", device, type(error).__name__, error)
        return False
    return True
