"""`--gpus N`: N processes of the same command, each for one GPU, as torchrun starts them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from hunyuan_video.assembly import check
from hunyuan_video.checkpoint import fitting_sizes
from hunyuan_video.config import Runtime
from hunyuan_video.distributed.started import LAUNCHED, RanksError
from hunyuan_video.distributed.world import CPU
from hunyuan_video.pipeline import degrees_of
from hunyuan_video.plan import first_of
from hunyuan_video.request import Request
from hunyuan_video.signals import heard
from hunyuan_video.weights import Weights

_GRACE = 15  # seconds for ranks to end that are told to, before they are killed; they take 5


def launch(gpus: int, device: str, arguments: list[str], *, ends_by_signals: bool = True) -> None:
    """Run `hunyuan-video` with `arguments` on so many GPUs of this machine, or where the device is cpu, in so many processes. Signals end
    all, unless the caller has another way to do so in order.

    Raises:
        ValueError: there are not so many.
        RanksError: one has failed.
        KeyboardInterrupt: stopped by the user. Whatever is raised, no process is left.
    """
    check_gpus(gpus, device)
    environment = {LAUNCHED: "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // gpus)))}
    quiet = logging.getLogger("torch.distributed.elastic")  # it tells what we say in one sentence
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    before = heard()
    stopped: int | None = None
    with tempfile.TemporaryDirectory(prefix="hunyuan-video-") as folder, added(environment):
        config = LaunchConfig(
            1, 1, gpus,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",  # a machine need not know its own name
            max_restarts=0,
            signals_to_handle=",".join(number.name for number in before if ends_by_signals) or "SIGQUIT",
            shutdown_timeout=_GRACE,
        )  # fmt: skip
        try:
            elastic_launch(config, sys.executable)("-m", "hunyuan_video", *arguments)
        except SignalException as error:
            stopped = error.sigval
        except ChildFailedError as error:
            raise RanksError(*_reason(error, Path(folder))) from None
        finally:
            for number, handler in before.items():  # PyTorch leaves its own
                signal.signal(number, handler)
    if stopped is not None:
        signal.raise_signal(stopped)  # as if it had come to a single process


@contextlib.contextmanager
def added(variables: dict[str, str]) -> Iterator[None]:
    """Inside the block processes that are started have these variables, too."""
    before = os.environ.copy()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def check_shared(gpus: int, runtime: Runtime, found: Weights, request: Request) -> None:
    """Raises a ValueError for what so many ranks would refuse when they have started, each on its own."""
    check_gpus(gpus, runtime.device)
    sampling, sizes = request.complete(found.sampling()), fitting_sizes(found)
    world = first_of(degrees_of(runtime, sampling, sizes, ranks=gpus))
    world = replace(world, device=CPU if runtime.device == "cpu" else torch.device("cuda"), size=gpus)
    check(replace(runtime, fp8_matmul=False), world, num_heads=sizes.num_heads)  # whether a GPU multiplies in 8 bits, only a rank asks


def check_gpus(gpus: int, device: str) -> None:
    """Raises a ValueError for more GPUs than this machine has."""
    if gpus < 1:
        raise ValueError(f"--gpus is {gpus}; it must be 1 or more.")
    if device != "cpu" and gpus > (there := torch.cuda.device_count()):
        raise ValueError(
            f"--gpus is {gpus}, but this machine has {there}; give a smaller number, or --device cpu, which starts {gpus} processes."
        )


def _reason(error: ChildFailedError, folder: Path) -> tuple[str, int]:
    """What the ranks have agreed on, or where the first to end could say nothing, how it ended; and the exit code."""
    for file in sorted(folder.rglob("error.json"), key=lambda file: file.stat().st_mtime):
        said = json.loads(file.read_text(encoding="utf-8"))
        return said["message"], said["code"]
    rank, failure = error.get_first_failure()
    if failure.exitcode == -getattr(signal, "SIGKILL", 0):
        return f"Rank {rank} was killed (SIGKILL); if nobody did that, this machine had too little memory for all ranks.", 1
    if failure.exitcode == -getattr(signal, "SIGABRT", 0):
        return f"Rank {rank} was ended by SIGABRT; NCCL does that where another rank does not answer within --timeout.", 1
    how = f"by {failure.signal_name()}" if failure.exitcode < 0 else f"with exit code {failure.exitcode}"
    return f"Rank {rank} was ended {how}, and did not say why.", 1
