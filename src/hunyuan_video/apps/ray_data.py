"""`data curate --ray`: Ray Data spreads the work over a cluster's machines, one core for each job."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

try:
    import ray  # pyright: ignore[reportMissingImports] (an extra)
    import ray.data  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise ImportError("--ray needs Ray Data, which is not installed: pip install 'hunyuan-video[ray]', or '.[ray]' in a clone.") from error

J = TypeVar("J")
R = TypeVar("R")


class Cluster:
    """The cluster of $RAY_ADDRESS or of this machine, or else one that is started here."""

    def map(self, work: Callable[[J], R], jobs: Iterable[J]) -> Iterator[R]:
        """In the order of the jobs."""
        items = [{"job": pickle.dumps(job)} for job in jobs]  # as bytes: columns of records would have all of their keys
        if not items:
            return
        ray.data.DataContext.get_current().execution_options.preserve_order = True

        def row(item: dict[str, Any]) -> dict[str, Any]:
            return {"found": pickle.dumps(work(pickle.loads(item["job"])))}

        blocks = min(len(items), 4 * int(ray.cluster_resources()["CPU"]))
        for item in ray.data.from_items(items, override_num_blocks=blocks).map(row).iter_rows():
            yield pickle.loads(item["found"])

    def __enter__(self) -> Cluster:
        ray.init(ignore_reinit_error=True, log_to_driver=False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        ray.shutdown()
