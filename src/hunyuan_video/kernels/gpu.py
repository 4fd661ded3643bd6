"""Attention kernels for GPUs: PyTorch's own by name, and packages for it. None of them takes a mask: with one, it is `sdpa`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hunyuan_video.models.attention import AttentionFn, sdpa


def _without_mask(kernel: Callable[[Tensor, Tensor, Tensor], Tensor]) -> AttentionFn:
    def attention(
        q: Float[Tensor, "B L H D"],
        k: Float[Tensor, "B S H D"],
        v: Float[Tensor, "B S H D"],
        mask: Bool[Tensor, "B _ S"] | None,
    ) -> Float[Tensor, "B L H D"]:
        return kernel(q, k, v) if mask is None else sdpa(q, k, v, mask)

    return attention


def of_pytorch(backend: Literal["CUDNN_ATTENTION", "FLASH_ATTENTION"]) -> AttentionFn:
    """One of the kernels among which `sdpa` chooses by a fixed order of its own."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(getattr(SDPBackend, backend)):
            return sdpa(q, k, v, None)

    return _without_mask(kernel)


def of_package(module: str, name: str, install: str, **options: object) -> AttentionFn:
    """A function `(q, k, v, **options)` on `[B, L, H, D]`, which returns the output, or it and the log-sum-exp: releases differ.

    Raises:
        ImportError: the package is missing or does not work here; says how to install it.
    """
    try:
        function = partial(getattr(import_module(module), name), **options)
    except (ImportError, OSError, AttributeError) as error:  # OSError: a library in it is for another PyTorch or CUDA
        raise ImportError(f"{module}.{name} cannot be imported ({error}); {install}.") from error

    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = function(q, k, v)
        return out if isinstance(out, torch.Tensor) else out[0]

    return _without_mask(kernel)
