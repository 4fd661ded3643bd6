"""How well a model begins with what it is given: a picture, a first and a last one, a clip to continue. Judged on the pixels that follow.

What is given is rendered of held-out words, so that the judge knows what must be kept and where a video should end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from hunyuan_video import markdown
from hunyuan_video.evaluation.metrics import psnr
from hunyuan_video.miniature import drawing
from hunyuan_video.miniature.judge import Frames, Judge, Score
from hunyuan_video.miniature.questions import answers, questions
from hunyuan_video.miniature.world import Scene

log = logging.getLogger(__name__)

Kind = Literal["picture", "picture, no description", "first and last", "continued"]
KINDS: tuple[Kind, ...] = ("picture", "picture, no description", "first and last", "continued")
CONTINUED = 9  # frames of the clip that is continued: three latent ones
NOTHING_SAID = "a video"  # no words of the world: what is kept is kept for the picture's sake
GIVEN_SEED = 2**20  # beside the seeds of other questions


@dataclass(frozen=True)
class Asked:
    """A video to be made around frames that are known; `last` is the picture that it is to end with."""

    prompt: str
    seed: int
    first: UInt8[np.ndarray, "f H W 3"]
    last: UInt8[np.ndarray, "H W 3"] | None = None


Begin = Callable[[Asked], Frames]


@dataclass(frozen=True)
class Begun:
    """What became of the videos of one kind. PSNRs are in dB, means over the videos."""

    kind: Kind
    subject: Score  # kept, by the judge, in the frames that were not given
    motion: Score | None  # as the words say, if there were any
    psnr_given: float  # of the frames that were given
    psnr_last: float | None  # of the last frame, where that was given


def asked_for(kind: Kind, scene: Scene, num_frames: int, height: int, width: int) -> tuple[Asked, Frames]:
    """What is asked for of a scene, and the rendered clip that it comes from."""
    clip = drawing.render(scene, height, width, num_frames)
    prompt = NOTHING_SAID if kind == "picture, no description" else scene.caption
    first = clip[: CONTINUED if kind == "continued" else 1]
    return Asked(prompt, scene.seed, first, clip[-1] if kind == "first and last" else None), clip


def evaluate(begin: Begin, judge: Judge, kind: Kind, num_clips: int, size: tuple[int, int, int], seed: int = 0) -> Begun:
    """Ask for `num_clips` videos of `size` (frames, height, width), and look at what follows the frames that were given."""
    subject, motion, of_given, of_last = list[bool](), list[bool](), list[float](), list[float]()
    for scene in questions(num_clips, "held_out", GIVEN_SEED + seed):
        asked, clip = asked_for(kind, scene, *size)
        made = begin(asked)
        seen = judge(made[1:])  # frames 2 to 33
        right = answers(scene, seen)
        subject.append(right["subject"])
        motion.append(right["motion"])
        of_given.append(min(psnr(made[: len(asked.first)], asked.first), 100.0))
        if asked.last is not None:
            of_last.append(min(psnr(made[-1:], clip[-1:]), 100.0))
        if not subject[-1]:
            log.info("%s: of %r the judge sees %s", kind, scene.caption, seen)
    has_words = kind != "picture, no description"
    return Begun(
        kind,
        Score(sum(subject), num_clips),
        Score(sum(motion), num_clips) if has_words else None,
        float(np.mean(of_given)),
        float(np.mean(of_last)) if of_last else None,
    )


def markdown_table(beginnings: list[Begun]) -> str:
    """What became of each kind."""
    heads = [
        "a video of held-out words from",
        "clips",
        "subject kept, %",
        "motion, %",
        "PSNR of what was given, dB",
        "of the last picture, dB",
    ]
    rows = []
    for each in beginnings:
        motion = "" if each.motion is None else f"{100 * each.motion.rate:.1f}"
        last = "" if each.psnr_last is None else f"{each.psnr_last:.2f}"
        rows.append([each.kind, each.subject.total, f"{100 * each.subject.rate:.1f}", motion, f"{each.psnr_given:.2f}", last])
    return markdown.table(heads, rows) + "\n"
