"""A process that ends when the one that started it does: it reads its standard input, which ends then, and takes that for a SIGTERM.

So a supervisor that is killed leaves nobody behind who keeps a port or a GPU; and letting go of the other end is how it asks for an end in
order, which also reaches ranks that a launcher has started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from multiprocessing import parent_process

_APART = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # on Windows
LEASH = "HUNYUAN_VIDEO_LEASH"  # set where the standard input is one


def hold(command: list[str], **environment: str) -> subprocess.Popen[bytes]:
    """Start a process on a leash, which is its `stdin`: closed, it ends. A signal from a terminal does not reach it."""
    environment = {**os.environ, **environment, LEASH: "1"}
    if os.name == "posix":
        return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, creationflags=_APART)


def is_held() -> bool:
    return LEASH in os.environ


def when_let_go(end: Callable[[], None]) -> None:
    """Call `end`, in a thread, once nobody holds the other end."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        end()

    threading.Thread(target=wait, name="leash", daemon=True).start()


def end_with_holder() -> None:
    """If this process is held, the end of that is a SIGTERM, as long as it is there."""
    if is_held():
        when_let_go(lambda: os.kill(os.getpid(), signal.SIGTERM))


def end_with_parent() -> None:
    """In a process of multiprocessing's: end when the one does that started it, also if that is killed, and so cannot say so."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()
