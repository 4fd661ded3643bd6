"""The API over a small database, and a worker that makes nothing: what tests of the server share."""

from __future__ import annotations

import io
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastapi import FastAPI
from PIL import Image

from hunyuan_video.apps.serve import server_of
from hunyuan_video.config import FullSampling, Limits
from hunyuan_video.serving.api import create_app
from hunyuan_video.serving.jobs import Claim, Job, LeaseLostError
from hunyuan_video.serving.migrations import upgrade
from hunyuan_video.serving.results import Results
from hunyuan_video.serving.rules import Rules
from hunyuan_video.serving.security import digest_of
from hunyuan_video.serving.store import Store

HERE = "http://localhost"  # a Host that needs no key
ANN, BOB = "key-of-ann-0123456789", "key-of-bob-0123456789"
SMALL = FullSampling(height=64, width=64, num_frames=9, num_steps=4)
SECRET = "whsec_" + "QUJD" * 10
MP4 = b"\0\0\0\x18ftypisom" + bytes(range(256)) * 4
_migrated: list[Path] = []


def picture(height: int = 8, width: int = 8, level: int = 7, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (level,) * 3).save(file, kind)
    return file.getvalue()


def fresh_store(folder: Path) -> Store:
    """Migrated once, then copied."""
    if not _migrated or not _migrated[0].exists():
        path = folder / "migrated.db"
        upgrade(f"sqlite:///{path}")
        _migrated[:] = [path]
    shutil.copy(_migrated[0], folder / "jobs.db")
    return Store(f"sqlite:///{folder / 'jobs.db'}")


def rules(**more: object) -> Rules:
    given = {"keys": {"ann": digest_of(ANN), "bob": digest_of(BOB)}, "image_to_video": True, "limits": LIMITS} | more
    return Rules(**{"model": "tiny", "defaults": SMALL, "check": lambda request: None} | given)  # pyright: ignore[reportArgumentType]


LIMITS = Limits(max_side=2048, max_frames=257, max_pixels=2**28, max_steps=100, max_prompt_characters=2000)


class Served:
    """An app, what it keeps, and the hands of a worker."""

    def __init__(self, folder: Path, **more: object):
        self.folder = folder
        self.store, self.results, self.rules = fresh_store(folder), Results(folder / "files"), rules(**more)
        self.app: FastAPI = create_app(self.store, self.results, self.rules)

    def begin(self) -> Claim:
        claim = self.store.claim("w", "tiny")
        assert claim is not None
        return claim

    def finish(self, claim: Claim | None = None, video: bytes = MP4) -> Job:
        claim = claim or self.begin()
        total = claim.job.order.sampling.num_steps
        for step in range(1, total + 1):
            preview = self.results.put(f"{claim.folder}/preview.webp", picture(level=step, kind="WEBP"))
            self.store.report(claim, "denoise", step, total, preview=preview)
        files = {"video.mp4": video, "thumbnail.webp": picture(kind="WEBP"), "spritesheet.webp": picture(16, 16, kind="WEBP")}
        names = {name.partition(".")[0]: self.results.put(f"{claim.folder}/{name}", content) for name, content in files.items()}
        self.store.finish(claim, names, {})
        job = self.store.get(claim.job.id)
        assert job is not None
        return job

    @contextmanager
    def working(self) -> Iterator[None]:
        """A worker in a thread makes whatever waits."""
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                claim = self.store.claim("w", "tiny")
                if claim is None:
                    stop.wait(0.02)
                else:
                    with suppress(LeaseLostError):  # a test has deleted it
                        self.finish(claim)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @contextmanager
    def listening(self) -> Iterator[str]:
        """By a real server, on a free port; its address."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            server = server_of(self.app)
            server.config.timeout_graceful_shutdown = 1
            thread = threading.Thread(target=server.run, kwargs={"sockets": [free]})
            thread.start()
            try:
                while not server.started:
                    time.sleep(0.01)
                yield f"http://127.0.0.1:{free.getsockname()[1]}"
            finally:
                server.should_exit = True
                thread.join()

    def close(self) -> None:
        self.store.close()
