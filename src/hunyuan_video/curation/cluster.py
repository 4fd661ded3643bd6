"""`data curate --ray`: Ray Data spreads the work over a cluster's machines, one core for each job."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from hunyuan_video.curation.extras import extra

J = TypeVar("J")
R = TypeVar("R")

TOGETHER = 16  # jobs whose results come together, and are lost together


def _row(work: Callable[[Any], Any], item: dict[str, Any]) -> dict[str, Any]:
    return {"found": pickle.dumps(work(pickle.loads(item["job"])))}


class Cluster:
    """The cluster of $RAY_ADDRESS or of this machine, or else one that is started here."""

    def map(self, work: Callable[[J], R], jobs: Iterable[J]) -> Iterator[R]:
        """In the order of the jobs."""
        items = [{"job": pickle.dumps(job)} for job in jobs]  # as bytes: columns of records would have all of their keys
        if not items:
            return
        data = extra("ray.data")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of settings that it makes itself
            data.DataContext.get_current().execution_options.preserve_order = True
        for item in data.from_items(items, override_num_blocks=-(-len(items) // TOGETHER)).map(partial(_row, work)).iter_rows():
            yield pickle.loads(item["found"])

    def __enter__(self) -> Cluster:
        extra("ray").init(ignore_reinit_error=True, log_to_driver=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        extra("ray").shutdown()
