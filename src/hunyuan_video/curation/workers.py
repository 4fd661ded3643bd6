"""Who does the work: processes of this machine; results come in the order of what was given, whoever is faster."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Protocol, TypeVar

J = TypeVar("J")
R = TypeVar("R")

AHEAD = 4  # jobs of each worker that wait, so that none is idle while the slowest is waited for
LOOK = 1.0  # seconds between two looks for the process that started this one


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
        self._pool = ProcessPoolExecutor(count, context, initializer=end_with, initargs=(os.getpid(),))

    def map(self, work: Callable[[J], R], jobs: Iterable[J]) -> Iterator[R]:
        """Raises a ChildProcessError if a process was killed, such as for its memory."""
        jobs, waiting = iter(jobs), deque[Future[R]]()
        try:
            while True:
                waiting.extend(self._pool.submit(work, job) for job in islice(jobs, AHEAD * self._count - len(waiting)))
                if not waiting:
                    return
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise ChildProcessError("A worker was killed, most likely for want of memory; go on with fewer --workers.") from error
        finally:
            for future in waiting:
                future.cancel()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def end_with(parent: int) -> None:
    """In a new process: see that it ends with the one that started it, also where that is killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
