"""A desk over a small database, with videos that are files: what tests of the page share."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any, TypeVar

import numpy as np
import uvicorn
from fastapi import FastAPI
from served import Served, picture

from hunyuan_video.config import FullSampling, Runtime, Sampling
from hunyuan_video.demo.desk import Desk
from hunyuan_video.demo.form import Form
from hunyuan_video.demo.offer import Offer
from hunyuan_video.request import Provenance
from hunyuan_video.rewriting import Rewritten
from hunyuan_video.serving.jobs import Claim, Job
from hunyuan_video.video import save_video

T = TypeVar("T")
SMALL = FullSampling(height=64, width=64, num_frames=17, num_steps=4)
OFFER = Offer("small weights", SMALL, ((64, 64), (96, 64)), (9, 17), embedded_guidance=True, image_to_video=True)


def rewritten(prompt: str, mode: str) -> Rewritten:
    """What a rewriter would make of it."""
    return Rewritten(f"{prompt}, {mode}", prompt, mode, "test", "Half of it was understood." if prompt == "half" else None)  # pyright: ignore


class Kept:
    """A desk, what it keeps, and the hands of a worker."""

    def __init__(self, folder: Path, keys: dict[str, str] | None = None, **more: Any):
        self.served = Served(folder, keys=keys or {}, **more)
        self.store, self.results = self.served.store, self.served.results
        self.desk = Desk(self.store, self.results, self.served.rules, OFFER, rewritten)

    def make(self, owner: str = "local", prompt: str = "a cat", **more: Any) -> Job:
        return self.desk.make(owner, form(prompt=prompt, **more))

    def begin(self) -> Claim:
        return self.served.begin()

    def step(self, claim: Claim, step: int) -> None:
        """With a preview that is like no other."""
        preview = self.results.put(f"{claim.folder}/preview.webp", picture(8, 8, 50 * step, "WEBP"))
        self.store.report(claim, "denoise", step, claim.job.order.sampling.num_steps, preview=preview)

    def finish(self, claim: Claim) -> Job:
        """By a video that tells of itself."""
        order = claim.job.order
        made = provenance(order.prompt, order.sampling, order.negative_prompt)
        path = self.served.folder / "video.mp4"
        frames = np.random.default_rng(0).integers(0, 255, (order.sampling.num_frames, 64, 64, 3), np.uint8)
        save_video(frames, path, metadata=made.to_json())
        self.served.finish(claim, path.read_bytes())
        job = self.store.get(claim.job.id)
        assert job is not None
        return job

    def close(self) -> None:
        self.desk.aside.close()
        self.served.close()


def form(**more: Any) -> Form:
    return Form.of_sampling(SMALL, **{"prompt": "a cat", "seed": "-1"} | more)


def provenance(prompt: str, sampling: FullSampling, negative_prompt: str | None = None) -> Provenance:
    names = dict.fromkeys(("model", "transformer", "device", "hunyuan_video", "torch"), "x")
    return Provenance(prompt, negative_prompt, sampling, Runtime(), load_key="module", **names)  # pyright: ignore


def said_by(words: AsyncIterator[T]) -> list[T]:
    async def collect() -> list[T]:
        return [word async for word in words]

    return asyncio.run(collect())


def site_of(desk: Desk) -> FastAPI:
    """Made inside a loop of events, for Gradio leaves one behind where there is none."""

    async def make() -> FastAPI:
        return _site(desk)

    return asyncio.run(make())


def _site(desk: Desk) -> FastAPI:
    from hunyuan_video.demo.site import create_site

    return create_site(desk, Form.at(Sampling(), desk.offer))


@contextmanager
def listening(desk: Desk) -> Iterator[str]:
    """Its site, on a free port of this machine; the address."""
    made: Queue[uvicorn.Server] = Queue()

    async def serve(sock: socket.socket) -> None:
        server = uvicorn.Server(uvicorn.Config(_site(desk), log_config=None, access_log=False, timeout_graceful_shutdown=1))
        made.put(server)
        await server.serve([sock])

    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=lambda: asyncio.run(serve(sock)))
        thread.start()
        server = made.get(timeout=60)
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"  # where connections wait until it has started
        finally:
            server.should_exit = True
            thread.join()
