"""What happens to a job, as server-sent events. A follower is a coroutine that looks into the database now and then: it holds no thread,
and it does not matter which process it asks. Imports no torch."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool

from hunyuan_video.serving.errors import ApiError
from hunyuan_video.serving.jobs import Event, Job
from hunyuan_video.serving.results import Results
from hunyuan_video.serving.schema import video_of
from hunyuan_video.serving.store import Store

LOOK = 0.5  # seconds between looks
KEEP_ALIVE = 15.0  # seconds of silence after which a comment says that the connection lives
RECONNECT = 2000  # milliseconds after which a browser comes again
LARGEST_PREVIEW = 2**21  # bytes that are sent inside an event


def last_seen(header: str | None) -> int:
    """The number in a Last-Event-ID; 0 without one. Raises an ApiError for what is no number of an event."""
    if header is None or header == "":
        return 0
    if not (header.isascii() and header.isdigit() and len(header) < 19):
        raise ApiError(400, "Last-Event-ID is no id of an event; leave it out to begin at the first.", param="Last-Event-ID")
    return int(header)


async def follow(store: Store, results: Results, job: Job, after: int, fps: int) -> AsyncIterator[str]:
    """Events of a job after the one with a number, as text, until it is over or gone."""
    yield f"retry: {RECONNECT}\n\n"
    silent_since = time.monotonic()
    while True:
        now, found = await run_in_threadpool(_look, store, job.id, after)
        if now is None:
            yield _message("deleted", None, {"id": job.id})
            return
        previews = [event.number for event in found if event.kind == "preview"]
        for event in found:
            after = event.number
            if event.kind == "preview" and event.number != previews[-1]:
                continue  # its picture is no longer there
            yield _message(event.kind, event.number, await run_in_threadpool(_data, results, now, event, fps))
            silent_since = time.monotonic()
        if now.is_over:
            return
        if time.monotonic() - silent_since > KEEP_ALIVE:
            yield ": still here\n\n"
            silent_since = time.monotonic()
        await asyncio.sleep(LOOK)


def _look(store: Store, job_id: str, after: int) -> tuple[Job | None, list[Event]]:
    job = store.get(job_id)  # first: if it is over, the event of its end is among those that follow
    if job is None:
        return None, []
    found = store.events(job_id, after)
    ended = not job.is_over and any(event.kind in ("completed", "failed") for event in found)
    return (store.get(job_id) if ended else job), found


def _data(results: Results, job: Job, event: Event, fps: int) -> dict[str, Any]:
    """`at`, and what the store has of the event; of the end the whole video, of a preview its picture as a data URL."""
    data = {"at": round(event.at, 3), **event.data}
    if event.kind in ("completed", "failed"):
        return data | {"video": video_of(job, fps).model_dump()}
    if event.kind == "preview" and (name := job.files.get("preview")) is not None:
        try:
            with results.open(name) as file:
                picture = file.read(LARGEST_PREVIEW + 1)
        except FileNotFoundError:  # the job has ended meanwhile
            return data
        if len(picture) <= LARGEST_PREVIEW:
            data["picture"] = f"data:image/{name.rpartition('.')[2]};base64,{base64.b64encode(picture).decode()}"
    return data


def _message(kind: str, number: int | None, data: dict[str, Any]) -> str:
    lines = [f"event: {kind}", f"data: {json.dumps(data)}"]
    return "\n".join(lines if number is None else [f"id: {number}", *lines]) + "\n\n"
