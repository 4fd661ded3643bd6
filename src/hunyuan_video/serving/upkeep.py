"""What keeps the house between two videos: dead workers' jobs given back, what expired forgotten, and files removed that nobody wants."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sqlalchemy.exc import InterfaceError, OperationalError

from hunyuan_video.serving.results import Results
from hunyuan_video.serving.store import Store

log = logging.getLogger(__name__)

_OFTEN, _SELDOM = 10.0, 900.0  # seconds between looks at the database, and at all files
OLD = 3600.0  # seconds for which a folder must have been unwanted: a job's picture is there before the job
_ROOM, _PROBE = 2**20, f"video_{'0' * 32}/room"  # bytes, and where they are tried


class Upkeep:
    """Any number of processes may keep the same house."""

    def __init__(self, store: Store, results: Results, clock: Callable[[], float] = time.monotonic):
        self._store, self._results, self._clock = store, results, clock
        self._looked = self._searched = -_SELDOM
        self._unwanted: dict[str, float] = {}

    def do(self) -> None:
        """What is due; most times nothing. What fails is tried again next time."""
        now = self._clock()
        if now - self._looked < _OFTEN:
            return
        self._looked = now
        try:
            self._store.reap()
            self._remove_discarded()
            if now - self._searched >= _SELDOM:
                self._searched = now
                self._remove_forgotten(now)
        except (OperationalError, InterfaceError, OSError) as error:
            log.warning("Files could not be tidied up (%s).", error)

    def _remove_discarded(self) -> None:
        while names := self._store.unwanted():
            for name in names:
                self._results.remove(name)
                self._store.removed(name)

    def _remove_forgotten(self, now: float) -> None:
        """Of processes that ended between a file and what the database was to know of it."""
        unwanted = [folder for folder in self._results.folders() if not self._store.wanted(folder)]
        self._unwanted = {folder: self._unwanted.get(folder, now) for folder in unwanted}
        for folder, since in list(self._unwanted.items()):
            if now - since >= OLD:
                self._results.remove(folder)
                del self._unwanted[folder]


def has_room(results: Results) -> bool:
    """Whether a file can be put there, by putting one."""
    try:
        results.put(_PROBE, bytes(_ROOM))
    except OSError:
        return False
    finally:
        results.remove(_PROBE)
    return True
