"""Kernels for GPUs, written in Triton. Its modules need it; this one says whether it is here."""

from __future__ import annotations

from importlib.util import find_spec


def is_here() -> bool:
    """Whether Triton is installed, without importing it."""
    return find_spec("triton") is not None


def need(what: str) -> None:
    """Raises an ImportError for what was asked for by name and needs Triton, if there is none."""
    if not is_here():
        raise ImportError(f"{what} is computed by Triton, which is missing; PyTorch for CUDA on Linux brings it, or pip install triton.")
