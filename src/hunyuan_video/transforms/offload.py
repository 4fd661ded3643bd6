"""Where a model's memory is. Never changes a value."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def on_device(module: nn.Module, device: torch.device) -> Iterator[None]:
    """The module is on `device` inside the block, and afterwards where it was. Costs nothing if it is there already."""
    home = next(module.parameters()).device
    module.to(device)
    try:
        yield
    finally:
        module.to(home)
