"""What the page does, without Gradio."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from desks import SMALL, Kept, form, rewritten, said_by
from served import picture

from hunyuan_video.pictures import picture_in
from hunyuan_video.request import Rewriting
from hunyuan_video.rewriting import Rewritten
from hunyuan_video.serving.jobs import QueueFullError
from hunyuan_video.serving.orders import request_of


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path)
    yield kept
    kept.close()


def test_what_the_form_says_is_put_into_the_queue(kept: Kept, tmp_path: Path) -> None:
    upload = tmp_path / "upload.png"
    upload.write_bytes(picture(level=3))
    job = kept.make(image=str(upload), seed="7", rewrite_mode="normal", rewritten="A cat.", rewriter="offline")
    request = request_of(job.order, kept.results, None)
    assert (request.prompt, request.rewriting) == ("A cat.", Rewriting("a cat", "normal", "offline"))
    assert request.image == picture_in(picture(level=3), "", 100) and job.order.sampling == replace(SMALL, seed=7)
    assert job.owner == "local" and kept.store.get(job.id) == job  # as a worker would read it


def test_what_cannot_be_made_is_refused_and_leaves_nothing(kept: Kept) -> None:
    for wrong in ({"prompt": " "}, {"num_steps": 0}, {"loras": ("none",)}, {"size": "4096x64"}):
        with pytest.raises(ValueError, match=r"empty|num_steps is 0|'none'|width is 4096"):
            kept.desk.make("local", form(**wrong))
    assert kept.store.list()[0] == []


def test_a_full_queue_says_so(tmp_path: Path) -> None:
    kept = Kept(tmp_path, max_queue=1)
    kept.make()
    with pytest.raises(QueueFullError):
        kept.make()
    kept.close()


def test_the_page_of_an_owner_shows_nothing_of_others(kept: Kept) -> None:
    mine, other = kept.make("ann", "mine"), kept.make("bob", "secret")
    view = kept.desk.view("ann", other.id)
    assert "secret" not in view.stage + view.gallery and other.id not in view.stage + view.gallery
    assert view.job == mine.id  # the one of another is passed over


def test_a_page_that_is_opened_again_shows_what_is_being_made(kept: Kept) -> None:
    kept.make(prompt="first")
    claim = kept.begin()
    assert kept.desk.view("local", None).job == claim.job.id
    kept.step(claim, 1)
    view = kept.desk.view("local", None)
    assert view.can_cancel and view.is_moving and "preview?1.1" in view.stage and view.made == 0
    kept.finish(claim)
    over = kept.desk.view("local", claim.job.id)
    assert not over.can_cancel and not over.is_moving and "<video" in over.stage and over.made == 1
    assert kept.desk.view("local", None).job is None


def test_a_job_that_waits_shows_its_place(kept: Kept) -> None:
    kept.make(prompt="first")
    second = kept.make(prompt="second")
    assert "In the queue, with 1 before it." in kept.desk.view("local", second.id).stage


def test_settings_come_from_the_file_itself(kept: Kept) -> None:
    kept.make(prompt="a dog", seed="5", num_steps=3)
    claim = kept.begin()
    job = kept.finish(claim)
    back, image = asyncio.run(kept.desk.again("local", job.id))
    assert (back.prompt, back.seed, back.num_steps, image) == ("a dog", "5", 3, None)
    kept.results.put(job.files["video"], b"no video")
    with pytest.raises(ValueError, match="cannot be read"):
        asyncio.run(kept.desk.again("local", job.id))


def test_settings_of_what_was_not_made_come_with_its_picture_from_its_order(kept: Kept, tmp_path: Path) -> None:
    upload = tmp_path / "upload.png"
    upload.write_bytes(picture(level=3))
    job = kept.make(image=str(upload), seed="9")
    kept.store.cancel(job.id)
    back, image = asyncio.run(kept.desk.again("local", job.id))
    assert back.seed == "9" and image is not None and np.array_equal(image, np.full((8, 8, 3), 3, np.uint8))


def test_settings_of_anothers_video_are_not_there(kept: Kept) -> None:
    job = kept.make("ann")
    with pytest.raises(LookupError):
        asyncio.run(kept.desk.again("bob", job.id))


def test_what_it_takes_is_known_once_one_was_made(kept: Kept) -> None:
    assert said_by(kept.desk.takes(form())) == ["Time not known yet: none of this size has been made here."]
    kept.make()
    kept.finish(kept.begin())
    (said,) = said_by(kept.desk.takes(form()))
    assert re.fullmatch(r"About \d+ s, as a video of this size took here\.", said)
    with pytest.raises(ValueError, match="width is 100"):
        said_by(kept.desk.takes(form(size="100x64")))


def test_a_prompt_is_rewritten_and_what_went_wrong_is_said(kept: Kept) -> None:
    made, notice = asyncio.run(kept.desk.rewrite(form(rewrite_mode="master")))
    assert (made.rewritten, made.rewriter, notice) == ("a cat, master", "test", None)
    assert asyncio.run(kept.desk.rewrite(form(prompt="half", rewrite_mode="normal")))[1] == "Half of it was understood."
    off, _ = asyncio.run(kept.desk.rewrite(form(rewrite_mode="off", rewritten="old")))
    assert off.rewritten == ""


def test_prompts_that_take_long_to_rewrite_hold_up_nothing_else(kept: Kept) -> None:
    done = threading.Event()

    def slow(prompt: str, mode: str) -> Rewritten:
        done.wait()
        return rewritten(prompt, mode)

    desk = replace(kept.desk, rewriter=slow)

    async def ask() -> str:
        asked = [asyncio.ensure_future(desk.rewrite(form(rewrite_mode="normal"))) for _ in range(64)]  # more than there are threads
        try:
            return await asyncio.wait_for(anext(desk.takes(form())), 10)
        finally:
            done.set()
            await asyncio.gather(*asked)

    assert asyncio.run(ask()) == "Time not known yet: none of this size has been made here."
