"""`hunyuan-video serve`: the API in this process, or with workers a supervisor of both. Imports no torch."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hunyuan_video.apps.queue import model_name, open_place
from hunyuan_video.apps.supervisor import Child, supervise
from hunyuan_video.config import Place, require
from hunyuan_video.leash import end_with_holder
from hunyuan_video.serving.rules import Rules
from hunyuan_video.serving.security import is_own, read_keys
from hunyuan_video.serving.store import Store
from hunyuan_video.weights import Weights

if TYPE_CHECKING:
    from fastapi import FastAPI
    from uvicorn import Server

    from hunyuan_video.apps.ray_workers import Command

log = logging.getLogger(__name__)

_GRACE = 5  # seconds for which open connections may go on when the server is to end
_US = (sys.executable, "-m", "hunyuan_video")


def rules_of(found: Weights, host: str, keys: str, **more: Any) -> Rules:
    """What is allowed; `keys` are lines NAME=KEY, and `more` is as in `Rules`. Raises a ValueError if anybody could ask, from anywhere."""
    digests = read_keys(keys.splitlines())
    require(
        is_own(host) or bool(digests),
        f"host is {host!r}, where others can ask for videos, but there are no keys; give --api-key-file a file with lines NAME=KEY, or "
        "stay at 127.0.0.1.",
    )
    return Rules(
        model=model_name(found),
        defaults=found.sampling(),
        check=found.check,
        image_to_video=found.image_to_video,
        overlap=found.overlap,
        keys=digests,
        **more,
    )


def serve_api(address: tuple[str, int], place: Place, rules: Rules) -> None:
    """The API, in this process, until a signal says to stop. Raises an OSError if the address is taken."""
    from hunyuan_video.serving.api import create_app

    store, results = open_place(place)
    try:
        listen_and_serve(address, create_app(store, results, rules), "/v1/videos")
    finally:
        store.close()


def listen_and_serve(address: tuple[str, int], app: FastAPI, path: str) -> None:
    """An application, whose `path` is said to the user, until a signal says to stop. Raises an OSError if the address is taken."""
    sock = _listen(*address)
    server = server_of(app)
    end_with_holder()
    host, port = address
    log.info("Serving on http://%s:%d%s", f"[{host}]" if ":" in host else host, port, path)
    server.run(sockets=[sock])


def server_of(app: FastAPI) -> Server:
    """Without a log of who asked for what: somebody may have put a key into an address."""
    import uvicorn

    return uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE))


def serve_with_workers(
    address: tuple[str, int], place: Place, front: list[str], worker: list[str], shares: Sequence[dict[str, str]]
) -> None:
    """The API or the page, and workers, each in a process of its own, by the arguments of their commands, with this place; a worker with
    its share of the machine."""
    start = f"{socket.gethostname()}-{secrets.token_hex(2)}"
    names = [f"{start}-{number}" for number in range(1, len(shares) + 1)]
    command = (*_US, *worker)
    workers = [
        Child(name, (*command, "--name", name), share | place.environment, is_worker=True)
        for name, share in zip(names, shares, strict=True)
    ]
    supervise(_checked(address, place), [Child(front[0], (*_US, *front), place.environment), *workers])


def serve_with_ray(address: tuple[str, int], place: Place, api: list[str], command: Command) -> None:
    """The API in a process of its own, and workers where Ray has room for them."""
    from hunyuan_video.apps.ray_workers import placed_by_ray

    store = _checked(address, place)
    with placed_by_ray(command, store) as keep_enough:
        supervise(store, [Child("api", (*_US, *api), place.environment)], keep_enough)


def _checked(address: tuple[str, int], place: Place) -> Store:
    """The database; says what is wrong with it, the files or the address before anything is started."""
    _listen(*address).close()
    store, _ = open_place(place)
    return store


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048)
    except OSError as error:
        raise OSError(
            f"Cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}; choose another --port or --host."
        ) from error


def shares_of(number: int, gpus: int, device: str) -> list[dict[str, str]]:
    """The environment of each of several workers: GPUs of its own, or its part of the cores. Raises a ValueError for more than there are
    GPUs for."""
    there = _visible_gpus() if device in ("auto", "cuda") and number > 1 else []
    if not there:
        cores = {} if number == 1 or "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // number))}
        return [cores] * number
    require(
        number * gpus <= len(there),
        f"{number} workers with {gpus} GPUs each need {number * gpus}, but this machine has {len(there)}; give fewer --workers or --gpus.",
    )
    return [{"CUDA_VISIBLE_DEVICES": ",".join(there[index * gpus : (index + 1) * gpus])} for index in range(number)]


def _visible_gpus() -> list[str]:
    """Their names for $CUDA_VISIBLE_DEVICES. Only PyTorch knows surely, in a process of its own."""
    code = "import torch; print(torch.cuda.device_count())"
    number = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[:number] if given else [str(index) for index in range(number)]
