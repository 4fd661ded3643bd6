"""Work for other processes, which import it."""

from __future__ import annotations

import os
import signal
import time


def slower_first(number: int) -> int:
    time.sleep(0.2 if number == 0 else 0)
    return number * number


def ends(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    return number
