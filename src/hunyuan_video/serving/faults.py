"""What goes wrong while a video is made: what to call it, what to say of it, and what to wait out. Imports no torch."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import InterfaceError, OperationalError

from hunyuan_video.errors import is_full, is_out_of_memory
from hunyuan_video.serving.jobs import INTERNAL, NO_SPACE, OUT_OF_MEMORY, REFUSED

log = logging.getLogger(__name__)

Result = TypeVar("Result")
_PAUSE = 1.0  # seconds before a database is asked again
_PATIENCE = 10.0  # seconds for which it is asked by whoever is to stop
_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/]+/)+")  # of the operator's paths


class BrokenError(RuntimeError):
    """What makes videos cannot make another, such as a GPU after an illegal access; its cause says why. Its process should end, and be
    started anew."""


def patiently(ask: Callable[[], Result], stop: Callable[[], bool]) -> Result:
    """What the database or whoever keeps the files answers, which may be away for a while, or full.

    Raises:
        OperationalError, ConnectionError: it has not come back, and the process is to `stop()`.
    """
    asked_to_stop: float | None = None
    said = False
    while True:
        try:
            return ask()
        except (OperationalError, InterfaceError, ConnectionError) as error:
            if not said:
                who, why = ("Who keeps the files", error) if isinstance(error, ConnectionError) else ("The database", error.orig)
                log.warning("%s does not answer (%s); asking on.", who, str(why).strip())
                said = True
            if stop():
                asked_to_stop = asked_to_stop or time.monotonic()
                if time.monotonic() - asked_to_stop > _PATIENCE:
                    raise
            time.sleep(_PAUSE)


def for_strangers(said: str) -> str:
    """A sentence without the folders of this machine: "/srv/weights/ckpts" is "ckpts"."""
    return _FOLDERS.sub("", said)


def reason_of(error: BaseException) -> tuple[str, str]:
    """The code and the sentence of a job that failed by an error. A sentence for strangers: no folder in it, nor what nobody foresaw."""
    if is_out_of_memory(error):
        return OUT_OF_MEMORY, "There was too little memory for this video; ask for a smaller one, or for fewer frames."
    if is_full(error):
        return NO_SPACE, "The server's disk is full, so the video could not be kept; ask for it again later."
    if isinstance(error, ValueError):
        return REFUSED, for_strangers(" ".join(str(error).split()))
    return INTERNAL, f"Something went wrong that nobody foresaw ({type(error).__name__}); the server's log says more."
