"""Where a model's memory is. Never changes a value, and never the tensors at home.

A model, or what one has besides its blocks, is on the device inside a `with` block. Blocks come one at a time: while one computes, a second
stream brings the next, so that the device holds two of them at most and does not wait where computing takes longer than copying.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

PAGE = 4096  # bytes that are locked together
ALIGNMENT = 256  # bytes; what CUDA's own allocator gives, and its fastest kernels want


@contextmanager
def on_device(module: nn.Module, device: torch.device, besides: Iterable[Tensor] = ()) -> Iterator[None]:
    """The module is on `device` inside the block, and afterwards where it was. Costs nothing if it is there already.

    `besides` are those of its tensors that `offload_blocks` brings. Weights must not be changed inside: what was on the home device is kept
    there and put back, not copied back.
    """
    staying = {id(tensor) for tensor in besides}
    tensors = [tensor for tensor in tensors_of(module) if id(tensor) not in staying and tensor.device != device]
    home = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.to(device, copy=True)
        yield
    finally:
        for tensor, data in zip(tensors, home, strict=True):
            tensor.data = data


def to_device(module: nn.Module, device: torch.device, besides: Iterable[Tensor]) -> None:
    """Move a module there for good, but for some of its tensors."""
    staying = {id(tensor) for tensor in besides}
    for tensor in tensors_of(module):
        if id(tensor) not in staying:
            tensor.data = tensor.data.to(device)


def offload_blocks(blocks: Sequence[nn.Module], device: torch.device, besides: Iterable[Tensor] = ()) -> list[Tensor]:
    """From now on each block is on `device` only while it works, but for the tensors given as `besides`. `blocks` are in the order in which
    they are called.

    Returns the tensors that come and go by themselves, for `on_device` to leave alone. They are now in host memory of their own, one piece
    a block, page-locked for CUDA. What is added to a block afterwards, such as an adapter, is not among them, and moves with the rest of
    the model. After a pass, unless it was interrupted from the keyboard, nothing is left on the device.
    """
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    staying = {id(tensor) for tensor in besides}
    travellers = [Traveller([tensor for tensor in tensors_of(block) if id(tensor) not in staying], device, stream) for block in blocks]
    for block, traveller, following in zip(blocks, travellers, [*travellers, None][1:], strict=True):
        _attend(block, traveller, following)
    return [tensor for traveller in travellers for tensor in traveller.tensors]


def _attend(block: nn.Module, traveller: Traveller, following: Traveller | None) -> None:
    def before(_block: nn.Module, _inputs: object) -> None:
        traveller.arrive()
        if following is not None:
            following.depart()

    def after(_block: nn.Module, _inputs: object, output: object) -> None:
        traveller.leave()
        if output is None and following is not None:  # the block failed: nobody will call the next one
            following.leave()

    block.register_forward_pre_hook(before)
    block.register_forward_hook(after, always_call=True)


class Traveller:
    """The tensors of a block, at home in one piece of host memory, and for a while in a copy of it on the device.

    The copy is allocated and freed by the computing stream. So one that starts after everything computed so far can overwrite nothing that
    is still read, and it runs beside the block that is about to compute.
    """

    def __init__(self, tensors: list[Tensor], device: torch.device, stream: torch.cuda.Stream | None):
        self.tensors, self.device, self.stream = tensors, device, stream
        sizes = [-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for tensor in self.tensors]
        self.ends = [sum(sizes[:count]) for count in range(len(sizes) + 1)]
        # Home may be the meta device, on which memory is planned.
        where = self.tensors[0].device if self.tensors else torch.device("cpu")
        self.home = torch.empty(self.ends[-1], dtype=torch.uint8, device=where) if stream is None else self._locked(self.ends[-1])
        for tensor, place in zip(self.tensors, self._views(self.home), strict=True):
            place.copy_(tensor.data)
            tensor.data = place
        self.copy: Tensor | None = None

    def depart(self) -> None:
        """Start for the device."""
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
        for tensor, place in zip(self.tensors, self._views(piece), strict=True):
            tensor.data = place

    def _views(self, piece: Tensor) -> list[Tensor]:
        places = []
        for tensor, (start, end) in zip(self.tensors, pairwise(self.ends), strict=True):
            used = piece[start:end][: prod(tensor.shape) * tensor.itemsize]
            places.append(used.view(tensor.dtype).view(tensor.shape))
        return places

    def _locked(self, size: int) -> Tensor:
        """Page-locked memory. Not by pin_memory, which rounds every size up to a power of two."""
        runtime, whole_pages = torch.cuda.cudart(), -(-size // PAGE) * PAGE
        assert runtime is not None
        piece = torch.empty(whole_pages + PAGE, dtype=torch.uint8)
        start = -piece.data_ptr() % PAGE  # a page that two blocks share could not be locked twice
        address = piece.data_ptr() + start
        with torch.cuda.device(self.device):  # else on whichever is current, where that would make a context
            error = int(runtime.cudaHostRegister(address, whole_pages, 0))
        if error:
            log.warning("The memory of a block could not be page-locked (CUDA error %d): copies will not overlap computing.", error)
            with suppress(RuntimeError):  # the next kernel, whichever it is, gets the error reported, and clears it
                torch.zeros(1, device=self.device)
        else:
            weakref.finalize(self, runtime.cudaHostUnregister, address)
        return piece[start : start + size]


def tensors_of(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
