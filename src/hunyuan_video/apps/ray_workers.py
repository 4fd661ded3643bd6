"""`serve --workers ray`: a Ray cluster says where workers run, starts those anew that it loses, and has as many as there is work for.

Ray is not the queue: jobs stay in the database, so that nothing is lost with an actor. An actor holds one `hunyuan-video worker`, on a
leash: when Ray ends the actor, the worker keeps its state and gives its job back.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hunyuan_video.apps.supervisor import LOOK, Child
from hunyuan_video.config import Place, require
from hunyuan_video.serving.jobs import ACTIVE
from hunyuan_video.serving.store import Store
from hunyuan_video.signals import heard

try:
    import ray  # pyright: ignore[reportMissingImports] (an extra)
except ImportError as error:
    raise ImportError(
        "--workers ray needs Ray, which is not installed: pip install 'hunyuan-video[ray]', or '.[ray]' in a clone."
    ) from error

log = logging.getLogger(__name__)

_PAUSE = 2.0  # seconds between two looks at the queue
_IDLE = 300.0  # seconds for which more workers than work are kept: loading takes long


@dataclass(frozen=True)
class Command:
    """A `hunyuan-video` command that works in any folder, the database and files that it works for, and what it takes."""

    arguments: list[str]
    place: Place
    gpus: int
    on_cpu: bool


class Holder:
    """An actor: keeps a worker running on its node."""

    def __init__(self, name: str, arguments: list[str], place: Place, takes_all_cores: bool):
        cores = {"OMP_NUM_THREADS": str(os.cpu_count() or 1)} if takes_all_cores else {}  # Ray says 1 where nobody asked for more
        command = (sys.executable, "-m", "hunyuan_video", *arguments, "--name", name)
        self._child = Child(name, command, cores | place.environment, is_worker=True)
        self._url, self._over = place.url, False

    def run(self) -> int:
        """Until `stop`; or the exit code of what a restart cannot mend."""
        store = Store(self._url)
        try:
            while not self._over:
                self._child.look(store)
                time.sleep(LOOK)
        except SystemExit as end:
            return int(end.code or 0)
        finally:
            store.close()
        return 0

    def stop(self) -> None:
        """Let the worker end in order, and wait for that."""
        self._over = True
        self._child.let_go()
        while not self._child.has_ended():
            time.sleep(LOOK)


@dataclass
class Placed:
    """A worker somewhere in the cluster; `ending` is there once it has nothing more to do."""

    name: str
    actor: Any
    ending: Any


class Cluster:
    """As many workers as there are jobs, at least one, and at most as many as the cluster has GPUs for; without GPUs, one a node."""

    def __init__(self, command: Command, store: Store, clock: Callable[[], float] = time.monotonic):
        nodes = len(_alive())
        require(
            not command.place.url.startswith("sqlite") or nodes == 1,
            f"This Ray cluster has {nodes} machines, which cannot share a SQLite file; give --database the address of a PostgreSQL.",
        )
        self._command, self._store = command, store
        most = max((int(node["Resources"].get("GPU", 0)) for node in _alive()), default=0)
        require(
            command.on_cpu or most == 0 or most >= command.gpus,
            f"gpus is {command.gpus}, but no machine of this Ray cluster has more than {most}; give fewer --gpus.",
        )
        self._placed: list[Placed] = []
        self._clock, self._looked, self._busy_at = clock, -_PAUSE, clock()
        self._start, self._number = f"ray-{secrets.token_hex(2)}", 0

    def keep_enough(self) -> None:
        """Look, now and then, and place workers or let them go. Raises a SystemExit if no worker can start."""
        now = self._clock()
        if now - self._looked < _PAUSE:
            return
        self._looked = now
        if ended := [placed for placed in self._placed if ray.wait([placed.ending], timeout=0)[0]]:
            raise SystemExit(ray.get(ended[0].ending))
        counts = self._store.counts()
        wanted = max(1, min(self._room(), sum(counts[status] for status in ACTIVE)))
        while len(self._placed) < wanted:
            self._place()
        if len(self._placed) == wanted:
            self._busy_at = now
        elif now - self._busy_at > _IDLE:
            self._let_one_go()
            self._busy_at = now

    def stop(self) -> None:
        ray.get([placed.actor.stop.remote() for placed in self._placed])

    def _room(self) -> int:
        gpus = [] if self._command.on_cpu else [int(node["Resources"].get("GPU", 0)) for node in _alive()]
        return sum(number // self._command.gpus for number in gpus) if any(gpus) else len(_alive())

    def _place(self) -> None:
        self._number += 1
        name = f"{self._start}-{self._number}"
        has_gpus = not self._command.on_cpu and ray.cluster_resources().get("GPU", 0) > 0
        holder: Any = ray.remote(Holder)
        remote = holder.options(
            num_gpus=self._command.gpus if has_gpus else 0,
            num_cpus=1,
            max_restarts=-1,  # on another node, if its own is gone
            max_task_retries=-1,  # and there it runs again
            max_concurrency=2,  # to be stopped while it runs
            scheduling_strategy="SPREAD",
        )
        actor = remote.remote(name, self._command.arguments, self._command.place, not has_gpus)
        self._placed.append(Placed(name, actor, actor.run.remote()))
        log.info("%s is placed by Ray.", name)

    def _let_one_go(self) -> None:
        """Of those that have no job now."""
        working = {worker.id for worker in self._store.live_workers() if worker.job is not None}
        idle = [placed for placed in self._placed if placed.name not in working]
        if idle:
            self._placed.remove(idle[-1])
            ray.get(idle[-1].actor.stop.remote())
            ray.kill(idle[-1].actor)
            log.info("%s has nothing to do, and goes.", idle[-1].name)


def _alive() -> list[dict[str, Any]]:
    """The cluster's machines."""
    return [node for node in ray.nodes() if node["Alive"]]


@contextmanager
def placed_by_ray(command: Command, store: Store) -> Iterator[Callable[[], None]]:
    """Workers in the cluster of $RAY_ADDRESS or of this machine, or else in one that is started here; gives what keeps their number right.

    Raises:
        ValueError: several machines were to share a SQLite file, or none has GPUs enough for a worker.
    """
    before = heard()
    ray.init(logging_level=logging.WARNING)
    for number, handler in before.items():  # Ray leaves its own
        signal.signal(number, handler)
    try:
        cluster = Cluster(command, store)
        yield cluster.keep_enough
        cluster.stop()
    finally:
        ray.shutdown()
