"""Another process, for what needs torch: that takes seconds to import and 300 MB, and the page shall be there at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from hunyuan_video.leash import end_with_parent

T = TypeVar("T")


class Aside:
    """Started when it is first asked, and again if it has died; it ends with this process, however that ends."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    async def __call__(self, work: Callable[..., T], *arguments: Any) -> T:
        """What `work` returns or raises there."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=end_with_parent)
        try:
            return await asyncio.wrap_future(self._pool.submit(work, *arguments))
        except BrokenProcessPool:
            self._pool = None
            raise

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
