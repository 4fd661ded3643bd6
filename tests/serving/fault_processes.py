"""A real API or a real worker in a process of its own, with a model that is fast and needs no torch.

python fault_processes.py api DATABASE FILES PORT
python fault_processes.py worker DATABASE FILES NAME
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from typing import Any

import uvicorn
from fake_studio import Studio

from hunyuan_video.config import FullSampling
from hunyuan_video.serving.api import create_app
from hunyuan_video.serving.jobs import Order
from hunyuan_video.serving.results import Results
from hunyuan_video.serving.rules import Rules
from hunyuan_video.serving.store import Store
from hunyuan_video.serving.worker import work
from hunyuan_video.signals import Waiting

LEASE = 5.0  # seconds: more than a loaded machine lets a process wait


def api(store: Store, results: Results, port: int) -> None:
    rules = Rules("fake", FullSampling(num_steps=3), lambda request: None, max_queue=100_000)
    sock = socket.create_server(("127.0.0.1", port), backlog=2048)
    uvicorn.Server(uvicorn.Config(create_app(store, results, rules), log_level="error")).run(sockets=[sock])


def take_time(order: Order, _step: int) -> None:
    if order.prompt == "poison":
        os._exit(1)
    time.sleep(0.005)


def run(what: str, database: str, files: str, which: str) -> None:
    """What `start` starts: an API at the port `which`, or a worker of this name."""
    store, results = Store(database, lease=LEASE), Results(files)
    if what == "api":
        return api(store, results, int(which))
    with Waiting() as waiting:
        work(store, results, Studio(take_time).craft(), name=f"{which}-{os.getpid()}", model="fake", stop=lambda: waiting.asked, poll=0.05)
        waiting.settle()
    store.close()


_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["uvicorn", "hunyuan_video.serving.api", "hunyuan_video.serving.worker"])


def start(*arguments: str) -> Any:
    """A process that does `run`."""
    process = _CONTEXT.Process(target=run, args=arguments, daemon=True)
    process.start()
    return process
