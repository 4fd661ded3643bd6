"""How work ends that is asked to end, by Ctrl-C, SIGTERM or SIGHUP, and how it goes on when nobody reads what it prints. Imports little."""

from __future__ import annotations

import _thread
import contextlib
import errno
import io
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

log = logging.getLogger(__name__)

STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no hang-up
_SAME = 1.0  # seconds in which a second signal is the first one again: torchrun passes on what a terminal has sent to all


def enter(work: Callable[[], int]) -> NoReturn:
    """Do the work of a command and end the process with the code it gives. A signal of `STOPS` is Ctrl-C, at any moment, and the code then
    128 and its number, as shells have it. A closed pipe, as after `| head -1`, ends nothing."""
    asked: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        raise _Asked

    def lost(error: Any) -> None:
        """Where nothing can be raised, as in the callback of a weak reference, a stop is printed and forgotten; so it comes once more."""
        if error.exc_type is not _Asked:
            return sys.__unraisablehook__(error)
        again = threading.Timer(0.05, _send, asked[:1])
        again.daemon = True
        again.start()

    sys.unraisablehook = lost
    for number in heard():
        signal.signal(number, stop)
    sys.stdout, sys.stderr = _patient(sys.stdout), _patient(sys.stderr)
    try:
        code = work()
    except BaseException:  # what is cut short, such as an import, may make anything of it
        if not asked:
            raise
        code = 0
    sys.exit(128 + asked[0] if asked else code)


@contextlib.contextmanager
def goes_on() -> Iterator[None]:
    """Inside, whoever stops is told that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        log.info("Stopped; the same command goes on from here.")
        raise


def heard() -> dict[signal.Signals, Any]:
    """Those of `STOPS` that are not ignored, as under nohup, and what each does."""
    return {number: handler for number in STOPS if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)}


def _send(number: int) -> None:
    """A signal to the main thread, from another one; where that can be sent, it also ends a wait."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        _thread.interrupt_main(signal.Signals(number))


class _Asked(KeyboardInterrupt):
    """Python ends by SIGINT, whatever code it is given, once KeyboardInterrupt itself has passed a string that was executed, such as the
    code of a dataclass."""


class Waiting:
    """Inside the block the first signal of `STOPS` only makes `asked` true, and who works there ends where nothing is lost. A second one
    does what it did before; so does the first when the block ends, unless it is settled by then."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        return self._number is not None

    def settle(self) -> None:
        """What was asked is done: the end of the block raises nothing."""
        self._number = None

    def __enter__(self) -> Waiting:
        if threading.current_thread() is threading.main_thread():  # no other one is told of signals
            self._before = {number: signal.signal(number, self._wait) for number in heard()}
        return self

    def _wait(self, number: int, _frame: FrameType | None) -> None:
        if self._number is None:
            self._number, self._since = number, time.monotonic()
            if log.isEnabledFor(logging.INFO):
                with contextlib.suppress(OSError):  # past the stream, in which this may have come while it was written to
                    os.write(2, b"\nStopping after this step; once more to stop at once.\n")
        elif time.monotonic() - self._since > _SAME:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def __exit__(self, *_error: object) -> None:
        self._restore()
        if self._number is not None:
            signal.raise_signal(self._number)


class _Patient(io.FileIO):
    """Takes everything, also when it is a pipe that nobody reads any more."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EINVAL):  # Windows says the latter
                raise
            return len(data)


def _patient(stream: Any) -> Any:
    if not isinstance(stream, io.TextIOWrapper) or stream.isatty():
        return stream
    stream.flush()
    raw = _Patient(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, stream.errors, line_buffering=True)
