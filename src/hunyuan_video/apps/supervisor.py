"""Keeps processes running, on a leash: whoever ends without being asked is started again, a little later each time."""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy.exc import InterfaceError, OperationalError

from hunyuan_video.leash import hold
from hunyuan_video.serving.store import Store
from hunyuan_video.signals import Waiting

log = logging.getLogger(__name__)

LOOK = 0.2  # seconds between two looks at them
FIRST, LONGEST = 1.0, 60.0  # seconds before one is started again; one that has run for longer than `LONGEST` begins anew
_HOPELESS = 2  # the exit code of what a restart cannot mend; it has said why
_GRACE = 5.0  # seconds for a process to end that is told to end at once


@dataclass
class Child:
    """A process to keep running. `name` is also a worker's in the database."""

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    is_worker: bool = False
    process: subprocess.Popen[bytes] | None = None
    since: float = 0.0
    pause: float = FIRST
    due: float = 0.0

    def look(self, store: Store) -> None:
        """Start it if it is due; if it has ended, say why. Raises a SystemExit if starting it again is no use."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.due:
                self.process, self.since = hold([*self.command], **self.environment), now
            return
        if (code := self.process.poll()) is None:
            return
        self._close()
        if self.is_worker:
            with contextlib.suppress(OperationalError, InterfaceError):  # its lease then ends by itself
                store.lost(self.name)
        if code == _HOPELESS:
            raise SystemExit(code)
        self.pause = FIRST if now - self.since > LONGEST else min(2 * self.pause, LONGEST)
        self.due = now + self.pause
        log.warning("%s ended, %s; it is started again in %.0f s.", self.name, how(code), self.pause)

    def let_go(self) -> None:
        """Ask it to end in order."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()

    def has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def end(self) -> None:
        """At once."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._close()

    def _close(self) -> None:
        self.let_go()
        self.process = None


def supervise(store: Store, children: Sequence[Child], also: Callable[[], None] = lambda: None) -> None:
    """Keep them running until a signal says to stop, and then let each end in order; a second signal ends them at once. `also` is done
    meanwhile, again and again."""
    try:
        with Waiting() as waiting:
            while not waiting.asked:
                for child in children:
                    child.look(store)
                try:
                    also()
                except (OperationalError, InterfaceError) as error:  # the database is away, and who runs goes on running
                    log.warning("The database does not answer (%s); asking on.", str(error.orig).strip())
                time.sleep(LOOK)
            _let_go(children)
    except SystemExit:
        _let_go(children)
        raise
    finally:
        for child in children:
            child.end()
        store.close()


def _let_go(children: Sequence[Child]) -> None:
    for child in children:
        child.let_go()
    while not all(child.has_ended() for child in children):
        time.sleep(LOOK)


def how(code: int) -> str:
    """A process ended."""
    if code >= 0:
        return f"with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"by {signal.Signals(-code).name}"
    return f"by signal {-code}"
