"""What the page does, without Gradio: plain functions of who asks and what stands in the form."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from anyio import CapacityLimiter, to_thread

from hunyuan_video.config import RewriteMode
from hunyuan_video.demo import estimate, gallery, stage
from hunyuan_video.demo.aside import Aside
from hunyuan_video.demo.estimate import Planner
from hunyuan_video.demo.form import Form
from hunyuan_video.demo.offer import Offer
from hunyuan_video.pictures import picture_in
from hunyuan_video.request import Provenance
from hunyuan_video.rewriting import Rewritten
from hunyuan_video.serving.jobs import Job, Order
from hunyuan_video.serving.orders import image_of, lora_files, place
from hunyuan_video.serving.results import Results
from hunyuan_video.serving.rules import Rules
from hunyuan_video.serving.store import Store

REWRITTEN_AT_ONCE = 4  # prompts


@dataclass(frozen=True)
class View:
    """What the page shows now."""

    stage: str
    gallery: str
    job: str | None
    """which one is above"""
    can_cancel: bool
    is_moving: bool
    """whether anything of it will soon be another"""
    made: int
    """how many videos are there, of those in the gallery"""


@dataclass(frozen=True)
class Desk:
    """The queue and its files, what may be asked for, and what the page offers. Without a `planner` workers are elsewhere, and nothing is
    known of their memory. `rewriter` makes a prompt, in a mode, into the words that the model was trained on."""

    store: Store
    results: Results
    rules: Rules
    offer: Offer
    rewriter: Callable[[str, RewriteMode], Rewritten]
    planner: Planner | None = None
    aside: Aside = field(default_factory=Aside)
    rewriting: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(REWRITTEN_AT_ONCE))

    def make(self, owner: str, form: Form) -> Job:
        """Put what the form says into the queue. Raises as `orders.place`."""
        files = [None if path is None else Path(path).read_bytes() for path in (form.image, form.last, form.clip)]
        return place(self.store, self.results, self.rules, owner, form.asked(self.offer, *files))

    async def rewrite(self, form: Form) -> tuple[Form, str | None]:
        """With its prompt rewritten, and what did not go as asked. In a thread, of which others are left to the page: a language model
        may take minutes. Raises a ValueError for what is no prompt."""
        if form.rewrite_mode == "off":
            return replace(form, rewritten="", rewriter=""), None
        made = await to_thread.run_sync(self.rewriter, form.prompt, form.rewrite_mode, limiter=self.rewriting)
        return replace(form, rewritten=made.prompt, rewriter=made.backend), made.notice

    def view(self, owner: str, shown: str | None, pages: int = 1) -> View:
        """The page of an owner, with one of the jobs above; if that is none, the newest that is not over."""
        jobs, more = gallery.page_of(self.store, owner, pages)
        active = [job for job in jobs if not job.is_over]
        above = None if shown is None else self.store.get(shown, owner)
        if above is None and active:
            above = active[0]
        places = {job.id: self.store.place(job) for job in active if job.status == "queued"}
        events = self.store.events(above.id) if above is not None and above.status == "in_progress" else []
        return View(
            stage=stage.stage(above, places.get(above.id, 0) if above else 0, events),
            gallery=gallery.gallery(jobs, more, places),
            job=None if above is None else above.id,
            can_cancel=above is not None and not above.is_over and not above.cancelling,
            is_moving=bool(active),
            made=sum(job.status == "completed" for job in jobs),
        )

    def loras(self) -> list[str]:
        """By name, as they are in the folder now."""
        return list(lora_files(self.rules.loras))

    async def again(self, owner: str, job_id: str) -> tuple[Form, np.ndarray | None]:
        """The form and the first picture that make a job's video again: as its file tells of itself, or if there is none, as was ordered.

        Raises:
            LookupError: it is not there, or another's.
            ValueError: its file or its picture cannot be read.
        """
        job = await asyncio.to_thread(self.store.get, job_id, owner)
        if job is None:
            raise LookupError("This video is no longer there.")
        form = Form.of_order(job.order) if "video" not in job.files else Form.of_made(await self._made(job), job.order)
        return form, await asyncio.to_thread(self._picture, job.order)

    async def takes(self, form: Form) -> AsyncIterator[str]:
        """What the video will take, in a sentence; with a plan, in a better one. Raises a ValueError for settings that are none."""
        sampling = form.sampling(self.offer).over(self.offer.defaults)
        finished, _ = await asyncio.to_thread(self.store.list, limit=estimate.ASKED)
        here = estimate.seconds_here(finished, sampling)
        yield estimate.sentence(None, here)
        if self.planner is not None:
            yield estimate.sentence(await self.aside(self.planner.plan, sampling), here)

    async def _made(self, job: Job) -> Provenance:
        with tempfile.NamedTemporaryFile(suffix=".mp4") as copy:
            await asyncio.to_thread(self._copy, job.files["video"], copy)
            return Provenance.from_json(await self.aside(metadata_of, copy.name), Path(job.files["video"]))

    def _copy(self, name: str, to: IO[bytes]) -> None:
        with self.results.open(name) as file:
            shutil.copyfileobj(file, to)
        to.flush()

    def _picture(self, order: Order) -> np.ndarray | None:
        image = image_of(order, self.results)
        return None if image is None else picture_in(image, "The picture", self.rules.max_picture_pixels).pixels


def metadata_of(path: str) -> dict[str, Any]:
    """In this process. Imports torch."""
    from hunyuan_video.video import read_metadata

    return read_metadata(path)
