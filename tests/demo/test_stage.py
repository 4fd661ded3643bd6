"""What is seen and said of a job, in the gallery and above it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from desks import SMALL

from hunyuan_video.demo.gallery import acts, card, gallery
from hunyuan_video.demo.markup import duration, text
from hunyuan_video.demo.stage import EMPTY, seconds_left, sentence, stage
from hunyuan_video.serving.jobs import Event, Job, Order

ID = f"video_{'0' * 32}"
QUEUED = Job(
    id=ID, owner="local", status="queued", progress=0, created_at=0.0, started_at=None, completed_at=None, expires_at=None, model="m",
    order=Order("a cat", SMALL), remixed_from=None, error_code=None, error_message=None, attempt=0, crashes=0, worker=None,
    cancelling=False, stage=None, step=0, total=0, state=None, state_step=0, files={}, provenance=None, webhook=None,
)  # fmt: skip
RUNNING = replace(QUEUED, status="in_progress", attempt=1, started_at=10.0, stage="denoise", step=2, total=4, progress=46)
DONE = replace(RUNNING, status="completed", completed_at=25.0, progress=100, files={"video": f"{ID}/1/video.mp4"})
CANCELLED = replace(RUNNING, status="failed", error_code="cancelled", error_message="Cancelled.")


def step(number: int, at: float, kind: str = "denoise") -> Event:
    return Event(number, "step", at, {"stage": kind, "step": number, "total": 4})


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (QUEUED, "Next in the queue."),
        (replace(QUEUED, attempt=1), "Its worker has stopped; it goes on from where it was. Next in the queue."),
        (replace(RUNNING, stage=None), "Reading the prompt …"),
        (RUNNING, "Denoising, step 2 of 4 …"),
        (replace(RUNNING, step=4), "Decoding …"),
        (replace(RUNNING, stage="decode", step=1), "Decoding, step 1 of 4 …"),
        (replace(RUNNING, cancelling=True), "Stopping at the end of this step …"),
        (DONE, "Made in 15 s, with seed 0."),
        (CANCELLED, "Cancelled."),
        (replace(CANCELLED, error_code="out_of_memory", error_message="Too large."), "It could not be made: Too large."),
    ],
)
def test_people_are_told_how_far_it_is(job: Job, said: str) -> None:
    assert sentence(job) == said


def test_a_job_that_waits_says_how_many_are_before_it() -> None:
    assert sentence(QUEUED, 3) == "In the queue, with 3 before it."


def test_the_time_left_follows_the_pace_of_the_last_steps_of_this_stage() -> None:
    events = [step(1, 1.0, "encode"), step(1, 100.0), step(2, 103.0)]
    assert seconds_left(RUNNING, events) == 6.0
    assert sentence(RUNNING, 0, events) == "Denoising, step 2 of 4: about 6 s left, then decoding."
    assert seconds_left(RUNNING, events[:2]) is None
    assert seconds_left(replace(RUNNING, step=4), events) is None


def test_a_preview_has_another_address_after_each_step_so_that_it_is_fetched_again() -> None:
    with_preview: dict[str, Any] = {"files": {"preview": f"{ID}/1/preview.webp"}}
    first, second = (stage(replace(RUNNING, step=number, **with_preview), 0, []) for number in (1, 2))
    assert f"videos/{ID}/preview?1.1" in first and f"videos/{ID}/preview?1.2" in second


def test_the_video_takes_the_place_of_its_preview() -> None:
    assert f'<video src="videos/{ID}/video"' in stage(DONE, 0, []) and "<img" not in stage(DONE, 0, [])
    assert stage(None, 0, []) == EMPTY


def test_a_prompt_is_text_wherever_it_stands() -> None:
    prompt = "<script>alert(1)</script> \" ' ${alert(2)} {{alert}} `x` \\"
    shown = card(replace(DONE, order=Order(prompt, SMALL)), 0) + stage(replace(DONE, order=Order(prompt, SMALL)), 0, [])
    assert not any(sign in shown for sign in ("<script", "${", "{{", "`", "\\"))
    assert "&#36;&#123;alert(2)&#125;" in text(prompt)


@pytest.mark.parametrize(
    ("job", "may"),
    [
        (QUEUED, ["cancel"]),
        (RUNNING, ["cancel"]),
        (replace(RUNNING, cancelling=True), []),
        (DONE, ["again", "video", "delete"]),
        (CANCELLED, ["again", "delete"]),
    ],
)
def test_a_card_offers_what_can_be_done(job: Job, may: list[str]) -> None:
    buttons = acts(job)
    assert len(buttons) == len(may) and all(name in button for name, button in zip(may, buttons, strict=True))


def test_an_empty_gallery_says_so_and_a_long_one_goes_on() -> None:
    assert "stays here" in gallery([], False, {})
    assert 'data-act="more"' in gallery([DONE], True, {}) and 'data-act="more"' not in gallery([DONE], False, {})


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (7500, "2 h 5 min")])
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said
