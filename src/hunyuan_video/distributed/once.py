"""What the first rank does for all: read a file, draw a seed, write a result. Where there is no process group, this process is all.

All ranks must call these functions together and in the same order. What fails on the first rank fails on every one, with the same words.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextvars import ContextVar
from typing import Protocol, TypeVar, runtime_checkable

import torch
import torch.distributed as dist
from torch import Tensor

Result = TypeVar("Result")
_working: ContextVar[bool] = ContextVar("_working", default=False)


@runtime_checkable
class Readable(Protocol):
    """A tensor, or what can give one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def to(self, device: torch.device, dtype: torch.dtype) -> Tensor: ...


def is_first() -> bool:
    """Whether this process is the one that works for all."""
    return not dist.is_initialized() or dist.get_rank() == 0


def once(work: Callable[[], Result]) -> Result:
    """What `work` gives on the first rank, to all ranks, pickled. Inside `work`, which only the first rank does, it is done and not sent.

    Raises:
        Exception: as `work` does there.
    """
    if not dist.is_initialized() or _working.get():
        return work()
    outcome: list = [None, None]
    if is_first():
        token = _working.set(True)
        try:
            outcome[0] = work()
        except Exception as error:  # whatever it is, the others must not wait for what will never come
            outcome[1] = sendable(error)
        finally:
            _working.reset(token)
    dist.broadcast_object_list(outcome, src=0)
    result, error = outcome
    if error is not None:
        raise error
    return result


def sendable(error: Exception) -> Exception:
    """The error itself, or where other processes could not make it again, its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # a class decides how it is pickled, and may fail in any way
        return RuntimeError(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__)
    return error


def deliver(tensor: Tensor | Readable, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`tensor.to(device, dtype)`, of the first rank's numbers. As in `once`, what the first rank does for all is not sent."""
    if not dist.is_initialized() or _working.get():
        return tensor.to(device, dtype)
    whole = torch.empty(0)

    def read() -> None:
        nonlocal whole
        whole = tensor.to(device, dtype).contiguous()

    once(read)
    if not is_first():
        whole = torch.empty(tensor.shape, dtype=dtype, device=device)
    dist.broadcast(whole.view(-1).view(torch.uint8), src=0)  # as bytes, for not every backend knows 8-bit floats
    return whole
