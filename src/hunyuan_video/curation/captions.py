"""Words for clips: a text beside the clip or its footage, or what a model that sees says, in the fields that HunyuanVideo's captions have.

The model is behind any server that speaks OpenAI's protocol. The camera's class is not asked of it, but measured; it becomes a field if the
measure is sure.
"""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from hunyuan_video.clips import pictures
from hunyuan_video.curation.extras import opencv
from hunyuan_video.curation.footage import small
from hunyuan_video.curation.ledger import Record
from hunyuan_video.curation.workers import in_order
from hunyuan_video.pictures import evenly
from hunyuan_video.rewriting.backend import BackendError, Messages
from hunyuan_video.rewriting.remote import Remote
from hunyuan_video.training.captions import check, fields_of

log = logging.getLogger(__name__)

Caption = str | dict[str, str]
SURE = 0.6  # of the camera's class, from which a caption mentions it
SHOWN, LONGEST = 4, 512  # frames that the model sees, and their pixels
ASKED = 3  # times, until an answer can be used
PAUSE = 2.0  # seconds, and twice as many after each failure that may pass
TOGETHER = 4  # questions that a server answers at once
WORDS = {
    **{f"pan-{way}": f"The camera moves {way}." for way in ("left", "right", "up", "down")},
    **{f"tilt-{way}": f"The camera turns {way}." for way in ("left", "right", "up", "down")},
    **{f"around-{way}": f"The camera moves around to the {way}." for way in ("left", "right")},
    "zoom-in": "The camera zooms in.",
    "zoom-out": "The camera zooms out.",
    "static": "The camera stands still.",
    "handheld": "The camera is held by hand.",
}
QUESTION = f"""These are {SHOWN} frames of one clip of a video, in their order. Describe the clip as one JSON object and nothing else, with
these keys, each a text in English:
"short": what is seen, in a sentence;
"dense": what is seen and what happens, in detail, in three to five sentences;
"background": where it is;
"style": such as documentary, film, animation, realistic;
"shot": such as close-up, medium shot, long shot, aerial shot;
"lighting": where light comes from, and how it looks;
"atmosphere": its mood.
Say nothing that is not to be seen, and nothing of frames or pictures."""


@dataclass(frozen=True)
class Asking:
    """A clip to describe."""

    id: str
    path: Path
    num_frames: int


def beside(*places: Path) -> Caption | None:
    """The caption in a text or JSON file beside the first of these files that has one.

    Raises:
        ValueError: it is no text, or JSON of something else.
    """
    for place in places:
        for path in (place.with_suffix(".json"), place.with_suffix(".txt")):
            if path.exists():
                try:
                    text = path.read_text(encoding="utf-8-sig").strip()
                    return fields_of(text) or text or None
                except ValueError as error:
                    raise ValueError(f"{path}: {error}") from error
    return None


def with_camera(caption: Caption, camera: str, sure: float) -> Caption:
    """With a field for the camera, if that was measured well enough, and nobody said it."""
    if isinstance(caption, str) or sure < SURE:
        return caption
    return {"camera": WORDS[camera]} | caption


def describe(jobs: Iterable[Asking], model: Remote) -> Iterator[Record]:
    """What the model says of each clip, in their order; of one that it cannot describe, why not.

    Raises:
        ConnectionError: the server does not answer.
    """
    with ThreadPoolExecutor(TOGETHER, thread_name_prefix="captions") as pool:
        yield from in_order(pool, TOGETHER, partial(_describe, model=model), jobs)


def _describe(job: Asking, model: Remote) -> Record:
    messages: Messages = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, *map(_part, _frames(job))]}]
    problem = ""
    for _ in range(ASKED):
        try:
            return {"id": job.id, "caption": _fields(_answer(messages, model)), "by": model.name}
        except (ValueError, RecursionError) as error:  # of JSON that is nested too deep
            problem = str(error)
    log.warning("%s has no caption: %s", job.id, problem)
    return {"id": job.id, "problem": problem, "by": model.name}


def _answer(messages: Messages, model: Remote) -> str:
    for tried in range(ASKED):
        try:
            return model.answer(messages)
        except BackendError as error:
            if not error.passing or tried == ASKED - 1:
                raise ConnectionError(f"No captions: {error}. Given again, the curation goes on here.") from error
            time.sleep(PAUSE * 2**tried)
    raise AssertionError  # for a type checker


def _fields(answer: str) -> dict[str, str]:
    """The JSON of an answer, also one with words or a fence around it. Raises a ValueError if there is none of captions."""
    found: Any = json.loads(answer[answer.find("{") : answer.rfind("}") + 1])
    return check(found)


def _frames(job: Asking) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    return (small(np.asarray(picture), LONGEST) for picture in pictures(job.path, evenly(job.num_frames, SHOWN)))


def _part(picture: UInt8[np.ndarray, "h w 3"]) -> dict[str, Any]:
    coded: Sequence[int] = opencv().imencode(".jpg", picture[..., ::-1])[1].tobytes()
    return {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64.b64encode(bytes(coded)).decode()}"}}
