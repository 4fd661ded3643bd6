"""The next value is made by a thread while the one before is in use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def prefetched(make: Callable[[K], V], keys: Iterable[K]) -> Generator[V, None, None]:
    """The values of `map(make, keys)`, each made while its predecessor is in use.

    An error of `make` is raised where its value would have come. Closing the generator (`contextlib.closing` does, at whatever ends a
    loop) waits for the value that is being made, so no thread is left.
    """
    remaining = iter(keys)
    upcoming: deque[Future[V]] = deque()

    def submit_next() -> None:
        upcoming.extend(pool.submit(make, key) for key in islice(remaining, 1))

    with ThreadPoolExecutor(1) as pool:
        submit_next()
        while upcoming:
            value = upcoming.popleft().result()
            submit_next()
            yield value
