"""Processes that need not import anything: they are forked from one that has. For tests whose claim is not how a command starts."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

# What takes a process six seconds, and what modules of tests import beside.
IMPORTED = ["torch.distributed.run", "torch.utils.tensorboard", "hunyuan_video.apps.generate", "hunyuan_video.apps.train"]
IMPORTED += ["pytest", "beartype.claw", "tensorboard.backend.event_processing.event_accumulator", "hunyuan_video.distributed.sharding"]
IMPORTED += [f"transformers.models.{name}" for name in ("clip.modeling_clip", "llama.modeling_llama", "llava.modeling_llava")]
IMPORTED += ["transformers.models.auto.tokenization_auto", "torch._dynamo"]


def server() -> str:
    """The start method, by its name: of a process that is forked from one that has imported `IMPORTED`."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    multiprocessing.set_forkserver_preload(IMPORTED)
    forkserver.ensure_running()  # whoever asks for fewer modules later gets this one, too
    return "forkserver"


@dataclass
class Forked:
    """A process, and the files that have what it says."""

    process: ForkServerProcess
    out: Path
    error: Path

    def send_signal(self, number: int) -> None:
        if self.process.is_alive():
            os.kill(self.process.pid or 0, number)

    def ended(self, seconds: float) -> int:
        """Its exit code; kills what has not ended in so many seconds, which fails the test."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            pytest.fail(f"it has not ended in {seconds:.0f} s: {self.error.read_text()[-3000:]}")
        return self.process.exitcode or 0

    def wait_until(self, reached: Callable[[], bool], seconds: float = 120) -> None:
        """Wait for that, or for its end."""
        deadline = time.monotonic() + seconds
        while not reached() and self.process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)


def python(*command: str, says: Path, **environment: str) -> Forked:
    """Like `python` with `-c CODE`, `-m MODULE` or a file, and arguments, in this directory; what it prints goes to `says`.out and
    `says`.err."""
    out, error = says.with_suffix(".out"), says.with_suffix(".err")
    error.touch()
    context = multiprocessing.get_context(server())
    process = context.Process(target=_begin, args=(command, out, error, os.getcwd(), os.environ | environment))
    process.start()
    return Forked(process, out, error)


def _begin(command: tuple[str, ...], out: Path, error: Path, folder: str, environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in ((1, out), (2, error)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    kind, *arguments = command
    if kind == "-m":
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = [kind, *arguments[1:]]
        exec(compile(arguments[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [*command]
        runpy.run_path(kind, run_name="__main__")
