"""Where a model's memory is. Never changes a value."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def on_device(module: nn.Module, device: torch.device) -> Iterator[None]:
    """The module is on `device` inside the block, and afterwards where it was. Costs nothing if it is there already.

    Its weights must not be changed inside: what was on the home device is kept there and put back, not copied back.
    """
    tensors = [*module.parameters(), *module.buffers()]
    if all(tensor.device == device for tensor in tensors):
        yield
        return
    home = [tensor.data for tensor in tensors]
    try:
        module.to(device)
        yield
    finally:
        for tensor, data in zip(tensors, home, strict=True):
            tensor.data = data
