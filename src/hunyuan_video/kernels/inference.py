"""What kernels of ours have no gradient for is said, and not lost."""

from __future__ import annotations

import torch
from torch import Tensor


def refuse_gradient(*given: Tensor) -> None:
    """Raises a ValueError where a gradient would be asked for what was computed from these."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in given):
        raise ValueError(
            "Kernels and blocks for inference have no gradient, but gradients are on and one of the inputs needs its; compute inside "
            "torch.no_grad(), or train with attention sdpa or matmul and a model as it was loaded."
        )
