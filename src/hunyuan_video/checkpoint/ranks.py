"""Loading on many ranks: rank 0 alone reads weights, and sends every tensor to the device that each other rank wants it on.

Wherever a default process group is there, all its ranks must load the same together. What is read `once` is pickled on its way: there, a
`Lazy` is a shape and a dtype whose numbers come by `deliver`. Configurations and tokenizers, which are small, every rank reads for itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from hunyuan_video.checkpoint.lazy import Lazy
from hunyuan_video.distributed.once import deliver


class Delivered(NamedTuple):
    """A tensor of rank 0, as `fill` takes it."""

    tensor: Lazy

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    @property
    def pieces(self) -> tuple[Delivered, ...]:
        return tuple(map(Delivered, self.tensor.pieces))

    def to(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        return deliver(self.tensor, device, dtype)


def delivered(state: Mapping[str, Lazy]) -> dict[str, Delivered]:
    """A state whose tensors come from rank 0, one by one as they are taken."""
    return {name: Delivered(tensor) for name, tensor in state.items()}
