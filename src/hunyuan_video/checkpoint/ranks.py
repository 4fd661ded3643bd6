"""Loading on many ranks: rank 0 alone reads weights, and sends every tensor to the device that each other rank wants it on.

Wherever a default process group is there, all its ranks must load the same together. What fails there fails everywhere, with the same
words. Configurations and tokenizers, which are small, every rank reads for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hunyuan_video.checkpoint.lazy import Lazy

Result = TypeVar("Result")


def read_once(work: Callable[[], Result]) -> Result:
    """What `work` gives on rank 0, to all ranks, pickled: there, a `Lazy` is a shape and a dtype whose numbers come by `deliver`.

    Raises:
        Exception: as `work` does on rank 0.
    """
    if not dist.is_initialized():
        return work()
    outcome: list = [None, None]
    if reads():
        try:
            outcome[0] = work()
        except Exception as error:  # whatever it is, the others must not wait for what will never come
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    result, error = outcome
    if error is not None:
        raise error
    return result


def reads() -> bool:
    """Whether this process is the one that reads."""
    return not dist.is_initialized() or dist.get_rank() == 0


def deliver(tensor: Tensor | Lazy, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`tensor.to(device, dtype)`, of rank 0's numbers. All ranks must call it in the same order."""
    if not dist.is_initialized():
        return tensor.to(device, dtype)
    whole = torch.empty(0)

    def read() -> None:
        nonlocal whole
        whole = tensor.to(device, dtype).contiguous()

    read_once(read)
    if not reads():
        whole = torch.empty(tensor.shape, dtype=dtype, device=device)
    dist.broadcast(whole.view(-1).view(torch.uint8), src=0)  # as bytes, for not every backend knows 8-bit floats
    return whole


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
