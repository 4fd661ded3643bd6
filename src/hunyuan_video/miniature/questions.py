"""What to ask of a generator in the rendered world, and whether the judge's answers are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeVar

import numpy as np

from hunyuan_video.miniature import world
from hunyuan_video.miniature.judge import EVALUATION_SEED, Words, words_of
from hunyuan_video.miniature.world import SLOTS, Scene

Group = Literal["train", "held_out", "pair"]
T = TypeVar("T")


def questions(num_clips: int, group: Group, seed: int = 0) -> Iterator[Scene]:
    """The scenes to ask for; each combination (or pair) comes once before any comes twice."""
    rng = np.random.default_rng([EVALUATION_SEED, seed, ("train", "held_out", "pair").index(group)])
    if group == "pair":
        for i, (subject, second) in zip(range(num_clips), _shuffled(world.pairs("held_out"), rng), strict=False):
            motion, background = (values[rng.integers(len(values))] for values in (world.MOTIONS, world.BACKGROUNDS))
            yield world.compose(subject, motion, background, seed + i, rng, second=second, unseen=True)
    else:
        for i, words in zip(range(num_clips), _shuffled(world.combinations(group), rng), strict=False):
            yield world.compose(*words, seed + i, rng, unseen=group == "held_out")


def _shuffled(possible: Sequence[T], rng: np.random.Generator) -> Iterator[T]:
    """All of them in random order, again and again."""
    while True:
        for index in rng.permutation(len(possible)):
            yield possible[index]


def answers(scene: Scene, seen: Words) -> dict[str, bool]:
    """For each slot in which a scene asks for something, whether that is seen. The subject is right if both are, where there are two."""
    asked = words_of(scene)
    right = {slot: asked[slot] == seen[slot] for slot in SLOTS}
    right["subject"] = right["subject"] and right.pop("second")
    return {slot: value for slot, value in right.items() if slot not in ("size", "colour") or getattr(scene, slot) not in ("normal", None)}
