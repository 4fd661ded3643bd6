"""What a video will take."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest
from desks import SMALL

from hunyuan_video import weights
from hunyuan_video.config import Runtime
from hunyuan_video.demo.aside import Aside
from hunyuan_video.demo.estimate import Plan, Planner, seconds_here, sentence
from hunyuan_video.serving.jobs import Job, Order

from .test_stage import DONE


def done(seconds: float, **more: object) -> Job:
    return replace(DONE, started_at=0.0, completed_at=seconds, order=Order("a cat", replace(SMALL, **more)))  # pyright: ignore


def test_time_is_as_videos_of_this_size_have_taken_in_proportion_to_their_work() -> None:
    assert seconds_here([done(10), done(12), done(60)], SMALL) == (12, 3)
    assert seconds_here([done(10, num_steps=2)], SMALL) == (20, 1)
    assert seconds_here([done(10)], replace(SMALL, cfg_scale=3.0)) == (20, 1)


def test_nothing_is_known_from_other_sizes_and_from_what_was_interrupted() -> None:
    jobs = [done(10, height=128, width=128), replace(done(10), attempt=2), replace(done(10), status="failed")]
    assert seconds_here(jobs, SMALL) is None


@pytest.mark.parametrize(
    ("plan", "here", "said"),
    [
        (None, None, "Time not known yet: none of this size has been made here."),
        (None, (45.0, 1), "About 45 s, as a video of this size took here."),
        (Plan(2 * 10**9, 8 * 10**9), (45.0, 3), "About 45 s, as 3 videos of this size took here. 2.0 of 8.0 GB of memory."),
        (
            Plan(10**9, 10**10, 600.0),
            None,
            "About 10 min by arithmetic; none of this size has been made here yet. 1.0 of 10.0 GB of memory.",
        ),
        (Plan(10**11, 10**10, refusal="It does not fit."), (45.0, 3), "It does not fit."),
    ],
)
def test_what_is_known_is_said(plan: Plan | None, here: tuple[float, int] | None, said: str) -> None:
    assert sentence(plan, here) == said


def test_a_plan_counts_what_the_miniature_needs_on_a_cpu() -> None:
    planner = Planner(weights.find_or_embedded(weights.EMBEDDED), Runtime(device="cpu"))
    small, large = (planner.plan(replace(SMALL, height=side, width=side)) for side in (64, 128))
    assert 6 * 10**7 < small.needed < large.needed < 10**9 and small.there > 10**8 and small.seconds is None and small.refusal is None


def test_what_does_not_fit_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hunyuan_video.memory.machine_memory", lambda: 10**8)
    plan = Planner(weights.find_or_embedded(weights.EMBEDDED), Runtime(device="cpu")).plan(replace(SMALL, height=128, width=128))
    assert plan.refusal is not None and "make it smaller or shorter" in plan.refusal


def test_work_aside_is_done_in_another_process_which_is_replaced_if_it_dies() -> None:
    aside = Aside()

    async def ask() -> tuple[int, int]:
        first = await aside(os.getpid)
        with pytest.raises(Exception, match="terminated abruptly"):
            await aside(os._exit, 1)
        return first, await aside(os.getpid)

    try:
        first, second = asyncio.run(ask())
        assert len({first, second, os.getpid()}) == 3
    finally:
        aside.close()
