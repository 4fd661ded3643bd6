"""An owner's videos, newest first: those that are there, that are being made, and that could not be."""

from __future__ import annotations

from collections.abc import Sequence

from hunyuan_video.demo.markup import text
from hunyuan_video.demo.offer import length_name
from hunyuan_video.demo.stage import address, preview, sentence
from hunyuan_video.serving.jobs import Job
from hunyuan_video.serving.store import Store

SHOWN = 24  # without being asked for more

# A click on something with data-act says so to Python, with the job it is about; what deletes asks first.
ON_LOAD = """
element.addEventListener('click', event => {
  const pressed = event.target.closest('[data-act]');
  if (!pressed) return;
  if (pressed.dataset.act === 'delete' && !confirm('Delete this video?')) return;
  trigger('click', {act: pressed.dataset.act, job: pressed.dataset.job});
});
"""


def page_of(store: Store, owner: str, pages: int) -> tuple[list[Job], bool]:
    """The newest of an owner's jobs, and whether there are more."""
    return store.list(owner, limit=pages * SHOWN)


def gallery(jobs: Sequence[Job], more: bool, places: dict[str, int]) -> str:
    """HTML; `places` in the queue of those that wait."""
    if not jobs:
        return '<p class="none">What you make stays here.</p>'
    cards = "".join(card(job, places.get(job.id, 0)) for job in jobs)
    further = '<button class="more" data-act="more">Show more</button>' if more else ""
    return f'<div class="cards">{cards}</div>{further}'


def card(job: Job, place: int) -> str:
    sampling = job.order.sampling
    said = f"{sampling.width}x{sampling.height}, {length_name(sampling.num_frames)}, {sampling.num_steps} steps, seed {sampling.seed}"
    state = "" if job.status == "completed" else f'<p class="state">{text(sentence(job, place))}</p>'
    return (
        f'<article class="card" data-id="{job.id}">{picture(job)}'
        f'<p class="prompt" title="{text(job.order.prompt)}">{text(job.order.prompt)}</p><p class="settings">{text(said)}</p>{state}'
        f'<div class="acts">{"".join(acts(job))}</div></article>'
    )


def picture(job: Job) -> str:
    """Its thumbnail, or how far it is; pressed, it is shown above."""
    progress = "" if job.is_over else f'<div class="bar"><div style="width:{job.progress}%"></div></div>'
    return f'<button class="still" data-act="show" data-job="{job.id}" aria-label="Show it above">{_still(job)}{progress}</button>'


def _still(job: Job) -> str:
    if job.status == "completed" and "thumbnail" not in job.files:
        return f'<video src="{address(job, "video")}" preload="metadata" muted></video>'
    if job.status == "completed":
        return f'<img src="{address(job, "thumbnail")}" loading="lazy" alt="">'
    if "preview" in job.files:
        return f'<img src="{preview(job)}" alt="">'
    return ""


def acts(job: Job) -> list[str]:
    """What may be done with it."""

    def press(act: str, name: str) -> str:
        return f'<button data-act="{act}" data-job="{job.id}">{name}</button>'

    if not job.is_over:
        return [press("cancel", "Cancel")] if not job.cancelling else []
    made = [f'<a href="{address(job, "video")}" download="{job.id}.mp4">Download</a>'] if job.status == "completed" else []
    return [press("again", "Use these settings"), *made, press("delete", "Delete")]
