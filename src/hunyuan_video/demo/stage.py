"""The video that is being made, or was: what is seen of it, and what is said about it. Plain functions of what the store says."""

from __future__ import annotations

from collections.abc import Sequence

from hunyuan_video.demo.markup import duration, text
from hunyuan_video.serving.jobs import CANCELLED, Event, Job

LAST_STEPS = 5  # from which the pace is taken: the first ones are slower
DOING = {None: "Reading the prompt", "encode": "Reading the prompt", "denoise": "Denoising", "decode": "Decoding"}
EMPTY = '<div class="screen empty"><p>Your video will appear here, while it is being made.</p></div>'


def stage(job: Job | None, place: int, events: Sequence[Event]) -> str:
    """HTML of a job; of none, an empty screen. `place` is how many are before it in the queue, `events` what happened to it."""
    if job is None:
        return EMPTY
    bar = "" if job.is_over else f'<div class="bar"><div style="width:{job.progress}%"></div></div>'
    said = f'<p class="said" role="status">{text(sentence(job, place, events))}</p>'
    return f'{screen(job)}{bar}{said}<p class="prompt">{text(job.order.prompt)}</p>'


def screen(job: Job) -> str:
    """The video, its preview so far, or a place for it, as wide as high as it will be."""
    sampling = job.order.sampling
    shape = f"--w:{sampling.width};--h:{sampling.height}"
    if job.status == "completed":
        shown = f'<video src="{address(job, "video")}" autoplay muted loop controls playsinline></video>'
    elif "preview" in job.files:
        shown = f'<img src="{preview(job)}" alt="What it looks like so far">'
    else:
        return f'<div class="screen empty" style="{shape}"></div>'
    return f'<div class="screen" style="{shape}">{shown}</div>'


def address(job: Job, what: str) -> str:
    """Where the site has a file of a job. Relative, so that the site may lie anywhere."""
    return f"videos/{job.id}/{what}"


def preview(job: Job) -> str:
    """Where what it looks like so far is: another address for each step, so that it is fetched again."""
    return f"{address(job, 'preview')}?{job.attempt}.{job.step}"


def sentence(job: Job, place: int = 0, events: Sequence[Event] = ()) -> str:
    """How far it has come, for people."""
    match job.status:
        case "completed":
            took = "" if job.started_at is None or job.completed_at is None else f" in {duration(job.completed_at - job.started_at)}"
            return f"Made{took}, with seed {job.order.sampling.seed}."
        case "failed":
            return "Cancelled." if job.error_code == CANCELLED else f"It could not be made: {job.error_message or job.error_code}"
        case "queued":
            again = "Its worker has stopped; it goes on from where it was. " if job.attempt else ""
            return again + ("Next in the queue." if place == 0 else f"In the queue, with {place} before it.")
    if job.cancelling:
        return "Stopping at the end of this step …"
    doing = DOING[job.stage]
    if job.stage == "encode" and job.step == job.total:
        doing = "Denoising"
    elif job.stage == "denoise" and job.step == job.total:
        doing = "Decoding"
    elif job.stage in ("denoise", "decode"):
        doing += f", step {job.step} of {job.total}"
    left = seconds_left(job, events)
    return (
        f"{doing} …" if left is None else f"{doing}: about {duration(left)} left" + (", then decoding." if job.stage == "denoise" else ".")
    )


def seconds_left(job: Job, events: Sequence[Event]) -> float | None:
    """Of the stage it is in, at the pace of its last steps; None before there are two."""
    steps = [event for event in events if event.kind == "step" and event.data.get("stage") == job.stage][-LAST_STEPS:]
    if len(steps) < 2 or job.step >= job.total:
        return None
    done = steps[-1].data["step"] - steps[0].data["step"]
    return None if done <= 0 else (steps[-1].at - steps[0].at) / done * (job.total - job.step)
