"""Where a model's memory is. Never changes a value, and never the tensors at home.

A model, or what one has besides its blocks, is on the device inside a `with` block. Blocks come one at a time: while one computes, a second
stream brings the next, so that the device holds two of them at most and does not wait where computing takes longer than copying. Only the
first block of the first of several passes is waited for.

In a training they come back the other way. A block that goes backward must have been computed again just then (`recompute`): what the
forward pass kept of it would keep its weights, too.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

PAGE = 4096  # bytes that are locked together
ALIGNMENT = 256  # bytes; what CUDA's own allocator gives, and its fastest kernels want


# Of blocks that come and go: which others come and go with them.
_rings: weakref.WeakKeyDictionary[nn.Module, Ring] = weakref.WeakKeyDictionary()


@contextmanager
def on_device(module: nn.Module, device: torch.device, besides: Iterable[Tensor] = (), *, repeated: bool = False) -> Iterator[None]:
    """The module is on `device` inside the block, and afterwards where it was. Costs nothing if it is there already.

    `besides` are those of its tensors that `offload_blocks` brings; `repeated` says that its blocks work pass after pass, so that the last
    one already brings the first one of the next pass, until the end of the block. Weights must not be changed inside: what was on the home
    device is kept there and put back, not copied back.
    """
    staying = {id(tensor) for tensor in besides}
    tensors = [tensor for tensor in tensors_of(module) if id(tensor) not in staying and tensor.device != device]
    home = [tensor.data for tensor in tensors]
    rings = {_rings[each] for each in module.modules() if each in _rings}
    try:
        for ring in rings:
            ring.closed = repeated
        for tensor in tensors:
            tensor.data = tensor.data.to(device, copy=True, non_blocking=True)  # which page-locked memory makes true
        yield
    finally:
        for tensor, data in zip(tensors, home, strict=True):
            tensor.data = data
        for ring in rings:
            ring.end()


def to_device(module: nn.Module, device: torch.device, besides: Iterable[Tensor]) -> None:
    """Move a module there for good, but for some of its tensors."""
    staying = {id(tensor) for tensor in besides}
    for tensor in tensors_of(module):
        if id(tensor) not in staying:
            tensor.data = tensor.data.to(device)


def offload_blocks(blocks: Sequence[nn.Module], device: torch.device, besides: Iterable[Tensor] = ()) -> list[Tensor]:
    """From now on each block is on `device` only while it works, but for the tensors given as `besides`, among which must be all that are
    trained. `blocks` are in the order in which they are called.

    Returns the tensors that come and go by themselves, for `on_device` to leave alone. They are now in host memory of their own, one piece
    a block, page-locked for CUDA. What is added to a block afterwards, such as an adapter, is not among them, and moves with the rest of
    the model. After a pass nothing is left on the device, unless it was interrupted from the keyboard; after a block of `on_device`, also
    then.
    """
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    staying = {id(tensor) for tensor in besides}
    travellers = [Traveller([tensor for tensor in tensors_of(block) if id(tensor) not in staying], device, stream) for block in blocks]
    ring = Ring(travellers)
    for index, block in enumerate(blocks):
        _rings[block] = ring
        _attend(block, ring, index)
    return [tensor for traveller in travellers for tensor in traveller.tensors]


def lock_at_home(module: nn.Module, device: torch.device, besides: Iterable[Tensor] = ()) -> None:
    """Put a module's tensors, but for `besides`, into page-locked host memory, once, so that CUDA copies them at full speed whenever they
    are needed; else pages, often a file's, would be staged piece by piece for each video. For another `device` nothing is to be done."""
    staying = {id(tensor) for tensor in besides}
    tensors = [tensor for tensor in tensors_of(module) if id(tensor) not in staying and tensor.device.type == "cpu"]
    if device.type == "cuda" and tensors:
        layout = Layout.of(tensors)
        layout.move(tensors, locked(layout.size, device, module))


def _attend(block: nn.Module, ring: Ring, index: int) -> None:
    """See to it that a block, with this number in the ring, is there when it works."""

    def before(_block: nn.Module, _inputs: object) -> None:
        if ring.returned == index:  # to be computed again; or for the next pass, which begins with the block that the last one ended with
            return
        ring.turn_back()
        ring.travellers[index].arrive()
        if (following := ring.after(index)) is not None:
            following.depart()

    def after(_block: nn.Module, _inputs: object, output: Any) -> Any:
        if ring.returned != index:
            ring.travellers[index].leave()
            if output is None and (following := ring.after(index)) is not None:  # the block failed: nobody will call the next one
                following.leave()
        if output is None or not torch.is_grad_enabled():
            return None
        whole = isinstance(output, Tensor)
        returning = _Returning.apply(partial(ring.come_back, index), *([output] if whole else output))
        return returning[0] if whole else returning

    block.register_forward_pre_hook(before)
    block.register_forward_hook(after, always_call=True)


class _Returning(torch.autograd.Function):
    """The same tensors. When the gradients of all of them are there, `come` is called: before anything that made them goes backward, and
    after everything that was made of them has."""

    @staticmethod
    def forward(ctx: Any, come: Callable[[], None], *outputs: Tensor) -> tuple[Tensor, ...]:
        ctx.come = come
        return tuple(output.view_as(output) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        ctx.come()
        return None, *gradients


class Ring:
    """Who follows whom; the first one the last one only while it is closed. `returned` is the block that goes backward, or did so last."""

    def __init__(self, travellers: Sequence[Traveller]):
        self.travellers, self.closed = travellers, False
        self.returned: int | None = None

    def come_back(self, index: int) -> None:
        """A block is about to go backward, and those behind it have."""
        self.turn_back(index)
        self.travellers[index].arrive()
        if index > 0:
            self.travellers[index - 1].depart()

    def turn_back(self, index: int | None = None) -> None:
        """Nobody, or another block, goes backward from now on."""
        if self.returned is not None and self.returned != index:
            self.travellers[self.returned].leave()
        self.returned = index

    def after(self, index: int) -> Traveller | None:
        if index + 1 < len(self.travellers):
            return self.travellers[index + 1]
        return self.travellers[0] if self.closed and index > 0 else None

    def end(self) -> None:
        """No pass follows."""
        self.closed, self.returned = False, None
        for traveller in self.travellers:
            traveller.leave()


@dataclass(frozen=True)
class Layout:
    """Places of tensors in one piece of memory, in bytes."""

    ends: list[int]

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> Layout:
        return cls([0, *accumulate(-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for tensor in tensors)])

    @property
    def size(self) -> int:
        return self.ends[-1]

    def views(self, tensors: Sequence[Tensor], piece: Tensor) -> list[Tensor]:
        """The tensors' places, with their types and shapes."""
        used = [piece[start:end] for start, end in pairwise(self.ends)]
        return [
            place[: prod(tensor.shape) * tensor.itemsize].view(tensor.dtype).view(tensor.shape)
            for tensor, place in zip(tensors, used, strict=True)
        ]

    def move(self, tensors: Sequence[Tensor], piece: Tensor) -> None:
        """Copy tensors to their places, where they are from then on."""
        for tensor, place in zip(tensors, self.views(tensors, piece), strict=True):
            place.copy_(tensor.data)
            tensor.data = place


def locked(size: int, device: torch.device, owner: object) -> Tensor:
    """Page-locked memory for a CUDA device. It is unlocked when its `owner` goes. Not by pin_memory, which rounds every size
    up to a power of two."""
    runtime, whole_pages = torch.cuda.cudart(), -(-size // PAGE) * PAGE
    assert runtime is not None
    piece = torch.empty(whole_pages + PAGE, dtype=torch.uint8)
    start = -piece.data_ptr() % PAGE  # a page that two pieces share could not be locked twice
    address = piece.data_ptr() + start
    with torch.cuda.device(device):  # else on whichever is current, where that would make a context
        error = int(runtime.cudaHostRegister(address, whole_pages, 0))
    if error:
        log.warning("Host memory could not be page-locked (CUDA error %d): copies to the GPU are slower, and delay computing.", error)
        with suppress(RuntimeError):  # the next kernel, whichever it is, gets the error reported, and clears it
            torch.zeros(1, device=device)
    else:
        weakref.finalize(owner, runtime.cudaHostUnregister, address)
    return piece[start : start + size]


class Traveller:
    """The tensors of a block, at home in one piece of host memory, and for a while in a copy of it on the device.

    The copy is allocated and freed by the computing stream. So one that starts after everything computed so far can overwrite nothing that
    is still read, and it runs beside the block that is about to compute.
    """

    def __init__(self, tensors: list[Tensor], device: torch.device, stream: torch.cuda.Stream | None):
        self.tensors, self.device, self.stream = tensors, device, stream
        self.layout = Layout.of(self.tensors)
        # Home may be the meta device, on which memory is planned.
        where = self.tensors[0].device if self.tensors else torch.device("cpu")
        size = self.layout.size
        self.home = torch.empty(size, dtype=torch.uint8, device=where) if stream is None else locked(size, device, self)
        self.layout.move(self.tensors, self.home)
        self.copy: Tensor | None = None

    def depart(self) -> None:
        """Start for the device, unless on the way already."""
        if self.copy is not None:
            return
        self.copy = torch.empty_like(self.home, device=self.device)
        if self.stream is None:
            self.copy.copy_(self.home)
            return
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            self.copy.copy_(self.home, non_blocking=True)

    def arrive(self) -> None:
        """Be on the device for what is computed from now on."""
        if self.copy is None:
            self.depart()
        assert self.copy is not None
        if self.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
        self._move_to(self.copy)

    def leave(self) -> None:
        """Be home; what was on the device is free once it has been used."""
        if self.copy is not None and self.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
        self._move_to(self.home)
        self.copy = None

    def _move_to(self, piece: Tensor) -> None:
        for tensor, place in zip(self.tensors, self.layout.views(self.tensors, piece), strict=True):
            tensor.data = place


def tensors_of(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
