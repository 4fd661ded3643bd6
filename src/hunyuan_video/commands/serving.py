"""The commands of the server: `serve` and `worker`. They import torch only where a video is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from hunyuan_video.commands.common import Flat, Loads, Repeatable, Which
from hunyuan_video.config import Limits, LoadKey, Runtime, require


@dataclass(frozen=True)
class Place:
    """Where jobs and files are."""

    data: Path = Path("server")
    """folder for the database and the files, unless the next two say else"""
    database: str | None = None
    """of jobs: postgresql+psycopg://USER@HOST/NAME for workers on many machines (default: DATA/jobs.db, SQLite)"""
    files: str | None = None
    """of videos: a folder, or a URL that fsspec knows, such as s3://bucket/videos (default: DATA/files)"""


Places = Annotated[Place, Flat]


@dataclass(frozen=True)
class Serve:
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
    max_queue: int = 100
    """how many videos may wait; who asks for one more is told when to come again"""
    limits: Annotated[Limits, Flat] = Limits(max_side=2048, max_frames=257, max_pixels=250_000_000, max_steps=100)  # noqa: RUF009 (frozen)
    runtime: Annotated[Runtime, Flat] = field(default_factory=Runtime)
    which: Loads = field(default_factory=Which)
    load_key: LoadKey = "module"
    """of an official transformer's file: the weights, or their average"""

    def __post_init__(self) -> None:
        require(self.workers == "ray" or self.workers >= 0, f"workers is {self.workers}; it must be 0 or more, or ray.")
        require(self.gpus >= 1, f"gpus is {self.gpus}; it must be 1 or more.")
        require(0 < self.port < 2**16, f"port is {self.port}; it must be 1 to 65535.")
        require(self.max_queue >= 1, f"max_queue is {self.max_queue}; it must be 1 or more.")

    def run(self) -> None:
        from hunyuan_video.apps.serve import serve

        serve(self)


@dataclass(frozen=True)
class Worker:
    """Make the videos of a server's queue, on any machine that reaches its database and files."""

    place: Places = field(default_factory=Place)
    gpus: int = 1
    """so many make one video together; with --device cpu, so many processes"""
    loras: Path | None = None
    """the server's folder of LoRA files"""
    name: str | None = None
    """what it is called in the database and the log (default: by machine and process)"""
    runtime: Annotated[Runtime, Flat] = field(default_factory=Runtime)
    which: Loads = field(default_factory=Which)
    load_key: LoadKey = "module"
    """of an official transformer's file: the weights, or their average"""

    def run(self) -> None:
        from hunyuan_video.apps.worker import run

        run(self)

    def launch(self, arguments: list[str]) -> None:
        """The same in a process for each GPU, where `arguments` were the command's."""
        from hunyuan_video.apps.worker import launch_group

        launch_group(self, arguments)
