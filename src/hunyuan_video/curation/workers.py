"""Who does the work: processes of this machine; results come in the order of what was given, whoever is faster."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Protocol, TypeVar, runtime_checkable

from hunyuan_video.leash import end_with_parent

J = TypeVar("J")
R = TypeVar("R")

AHEAD = 4  # jobs of each worker that wait, so that none is idle while the slowest is waited for


@runtime_checkable
class Workers(Protocol):
    def map(self, work: Callable[[J], R], jobs: Iterable[J]) -> Iterator[R]:
        """What `work`, a function of a module, makes of each job, in their order."""
        ...


class Here:
    """This process."""

    def map(self, work: Callable[[J], R], jobs: Iterable[J]) -> Iterator[R]:
        return map(work, jobs)


class Processes:
    """So many of them, which end with this one, whatever ends it."""

    def __init__(self, count: int):
        self._count = count
        context = multiprocessing.get_context("spawn")  # threads of PyTorch and ONNX do not survive a fork
        self._pool = ProcessPoolExecutor(count, context, initializer=end_with_parent)

    def map(self, work: Callable[[J], R], jobs: Iterable[J]) -> Iterator[R]:
        """Raises a ChildProcessError if a process was killed, such as for its memory."""
        try:
            yield from in_order(self._pool, self._count, work, jobs)
        except BrokenProcessPool as error:
            raise ChildProcessError("A worker was killed, most likely for want of memory; go on with fewer --workers.") from error

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def in_order(pool: Executor, count: int, work: Callable[[J], R], jobs: Iterable[J]) -> Iterator[R]:
    """What the `count` workers of a pool make of jobs, which are taken as they are needed."""
    jobs, waiting = iter(jobs), deque[Future[R]]()
    try:
        while True:
            waiting.extend(pool.submit(work, job) for job in islice(jobs, AHEAD * count - len(waiting)))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
