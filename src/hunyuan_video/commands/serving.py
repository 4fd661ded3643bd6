"""The commands of the server: `serve` and `worker`. They import torch only where a video is made."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from hunyuan_video.apps.rewrite import rewriting_by
from hunyuan_video.commands.common import Computes, Flat, Loads, Places, Repeatable, Which, rewrite_key
from hunyuan_video.commands.flags import flags_of
from hunyuan_video.config import Limits, LoadKey, Place, RewriteMode, Runtime, require
from hunyuan_video.rewriting.rewriter import Rewriter
from hunyuan_video.serving.rules import FOR_STRANGERS


@dataclass(frozen=True)
class Serve(Computes):
    """Serve the OpenAI videos API, with a queue that loses nothing."""

    host: str = "127.0.0.1"
    """any other address than this machine's own needs keys"""
    port: int = 8000
    place: Places = field(default_factory=Place)
    workers: int | Literal["ray"] = 1
    """how many processes make videos here; 0: none, they run elsewhere (`hunyuan-video worker`); ray: what a Ray cluster has room for"""
    gpus: int = 1
    """of each worker: so many make one video together"""
    api_key_file: Path | None = None
    """a file with lines NAME=KEY, of those who may ask (default: $HUNYUAN_VIDEO_API_KEYS, such lines)"""
    loras: Path | None = None
    """folder of LoRA files that may be asked for by name"""
    webhook_host: Annotated[tuple[str, ...], Repeatable] = ()
    """a host to which webhooks may be sent, as often as there are hosts; they are signed with $HUNYUAN_VIDEO_WEBHOOK_SECRET"""
    rewrite: RewriteMode | None = None
    """how prompts are rewritten, if a client says nothing else: normal, to be understood, also from Chinese; master, to look their best"""
    rewriter: Annotated[Rewriter, Flat] = field(default_factory=Rewriter)
    max_queue: int = 100
    """how many videos of each key may wait; who asks for one more is told when to come again"""
    limits: Annotated[Limits, Flat] = FOR_STRANGERS
    runtime: Annotated[Runtime, Flat] = field(default_factory=Runtime.open)
    which: Loads = field(default_factory=Which)
    load_key: LoadKey = "module"
    """of an official transformer's file: the weights, or their average"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.workers == "ray" or self.workers >= 0, f"workers is {self.workers}; it must be 0 or more, or ray.")
        require(self.gpus >= 1, f"gpus is {self.gpus}; it must be 1 or more.")
        require(0 < self.port < 2**16, f"port is {self.port}; it must be 1 to 65535.")
        require(self.max_queue >= 1, f"max_queue is {self.max_queue}; it must be 1 or more.")

    def run(self) -> None:
        found = self.which.find(self.load_key)
        secret = os.environ.get("HUNYUAN_VIDEO_WEBHOOK_SECRET")
        rewriter = rewriting_by(self.rewriter, rewrite_key())
        more = {
            "limits": self.limits, "loras": self.loras, "webhook_hosts": self.webhook_host, "max_queue": self.max_queue,
            "rewrite": self.rewrite, "rewriter": rewriter,
        }  # fmt: skip

        from hunyuan_video.apps import serve

        rules = serve.rules_of(found, self.host, keys_of(self.api_key_file), webhook_secret=secret, **more)
        address, api = (self.host, self.port), ["serve", *flags_of(replace(self, workers=0))]
        if self.workers == 0:
            serve.serve_api(address, self.place, rules)
        elif self.workers == "ray":
            from hunyuan_video.apps.ray_workers import Command

            on_cpu = self.runtime.device == "cpu"
            worker = self._worker().anywhere()
            command = Command(["worker", *flags_of(worker)], worker.place, self.gpus, on_cpu)
            serve.serve_with_ray(address, self.place, api, command)
        else:
            shares = serve.shares_of(self.workers, self.gpus, self.runtime.device)
            serve.serve_with_workers(address, self.place, api, ["worker", *flags_of(self._worker())], shares)

    def _worker(self) -> Worker:
        """One of this server's queue."""
        return Worker(self.place, self.gpus, self.loras, None, self.runtime, self.which, self.load_key)


@dataclass(frozen=True)
class Worker(Computes):
    """Make the videos of a server's queue, on any machine that reaches its database and files."""

    place: Places = field(default_factory=Place)
    gpus: int = 1
    """so many make one video together; with --device cpu, so many processes"""
    loras: Path | None = None
    """the server's folder of LoRA files"""
    name: str | None = None
    """what it is called in the database and the log (default: by machine and process)"""
    runtime: Annotated[Runtime, Flat] = field(default_factory=Runtime.open)
    which: Loads = field(default_factory=Which)
    load_key: LoadKey = "module"
    """of an official transformer's file: the weights, or their average"""

    def run(self) -> None:
        found = self.which.find(self.load_key)

        from hunyuan_video.apps.worker import run

        run(found, self.runtime, self.place, self.loras, self.name)

    def launch(self, arguments: list[str]) -> None:
        """The same in a process for each GPU, where `arguments` were the command's."""
        self.which.find(self.load_key)

        from hunyuan_video.apps.worker import launch_group

        launch_group(self.gpus, self.runtime.device, arguments)

    def anywhere(self) -> Worker:
        """The same for a process in another folder, or on another machine with the same files."""
        place = Place(self.place.data.absolute(), self.place.url, self.place.results)
        if "://" not in place.results:
            place = replace(place, files=str(Path(place.results).absolute()))
        which = Which(_absolute(self.which.weights), _absolute(self.which.transformer))
        return replace(self, place=place, which=which, loras=_absolute(self.loras))


def keys_of(file: Path | None) -> str:
    """Lines NAME=KEY of a file, or else of the environment. Raises a ValueError for a file that has none."""
    if file is None:
        return os.environ.get("HUNYUAN_VIDEO_API_KEYS", "")
    try:
        lines = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not a text file in UTF-8; write lines NAME=KEY into one.") from error
    has_some = any(line.strip() and not line.strip().startswith("#") for line in lines.splitlines())
    require(has_some, f"{file} holds no key; write lines NAME=KEY into it, or leave --api-key-file out.")
    return lines


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()
