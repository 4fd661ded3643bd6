"""Blocks whose weights are mapped from a file: the next is read from the disk while one computes. Never changes a value.

Left to itself the system reads a page when somebody waits for it. And where a model is larger than memory it forgets the page that was
used longest ago, which in blocks that take turns is always the one needed next: every step would read the whole file. So blocks for which
there is no room are let go as soon as they have worked, and the others stay.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

# Of Linux's madvise: begin to read; be read, and in the page table; be forgotten before others; be forgotten now, which is only for those
# who may write to the file. Where the system is older, or another, less happens or nothing, and pages come when they are touched.
WILL_NEED, POPULATE_READ, COLD, PAGE_OUT = 3, 22, 20, 21


class Span(NamedTuple):
    """Whole pages of the address space."""

    start: int
    end: int


def mapped_spans(module: nn.Module, besides: Iterable[Tensor] = ()) -> list[Span]:
    """Where a module's tensors lie in files, but for some; nothing of what lies in memory."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return []
    files = []
    for line in maps.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        addresses, _, _, _, inode, *_ = line.split()
        if inode != "0":
            start, end = addresses.split("-")
            files.append(Span(int(start, 16), int(end, 16)))
    spans: list[Span] = []
    others = {id(tensor) for tensor in besides}
    tensors = [tensor for tensor in (*module.parameters(), *module.buffers()) if id(tensor) not in others]
    for address, size in sorted({(tensor.data_ptr(), tensor.nbytes) for tensor in tensors}):
        if not size or not any(file.start <= address and address + size <= file.end for file in files):
            continue
        start, end = address // mmap.PAGESIZE * mmap.PAGESIZE, -(-(address + size) // mmap.PAGESIZE) * mmap.PAGESIZE
        if spans and start <= spans[-1].end + mmap.PAGESIZE:
            spans[-1] = Span(spans[-1].start, max(end, spans[-1].end))
        else:
            spans.append(Span(start, end))
    return spans


def size_of(spans: Sequence[Span]) -> int:
    return sum(span.end - span.start for span in spans)


def read_ahead(blocks: Sequence[nn.Module], room: int, besides: Iterable[Tensor] = ()) -> None:
    """From now on a mapped block is read before its turn, and of all together `room` bytes stay in memory from one pass to the next.

    `blocks` are in the order in which they are called, again and again. Those that lie in memory are left alone, and so are tensors that
    are given as `besides`, which come when they are used.
    """
    others = list(besides)
    spans = [mapped_spans(block, others) for block in blocks]
    if any(spans):
        reader = Reader(spans, room)
        for index, block in enumerate(blocks):
            block.register_forward_pre_hook(lambda *_, index=index: reader.begin(index))
            block.register_forward_hook(lambda *_, index=index: reader.end(index), always_call=True)


class Reader:
    """A thread that fetches blocks, given by their pages, and lets them go."""

    def __init__(self, spans: list[list[Span]], room: int):
        self.spans = spans
        self.passing = passing(list(map(size_of, spans)), room)
        self.coming: dict[int, Future[None]] = {}
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")

    def begin(self, index: int) -> None:
        """Have block `index` in memory, and what comes after it under way: the next, and the next of those that do not stay."""
        self._fetch(index)
        self.coming.pop(index).result()
        count = len(self.spans)
        following = [(index + step) % count for step in range(1, count)]
        for other in (*following[:1], *[other for other in following if self.passing[other]][:1]):
            self._fetch(other)

    def end(self, index: int) -> None:
        if self.passing[index]:
            self.thread.submit(advise, self.spans[index], COLD, PAGE_OUT)

    def _fetch(self, index: int) -> None:
        if index not in self.coming:
            self.coming[index] = self.thread.submit(advise, self.spans[index], WILL_NEED, POPULATE_READ)


def passing(sizes: Sequence[int], room: int) -> list[bool]:
    """Which blocks do not stay, so that the others fit into `room` bytes: evenly spread, so that between two there is time to read."""
    share, owed, out = max(0.0, 1 - room / max(1, sum(sizes))), 0.0, []
    for size in sizes:
        owed += share * size
        out.append(owed > 0)
        owed -= size if owed > 0 else 0
    return out


def advise(spans: Sequence[Span], *advice: int) -> None:
    """Tell the system what comes. It may not know the advice, or not permit it: it is only advice."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    for word in advice:
        for start, end in spans:
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), word)
