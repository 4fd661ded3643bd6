"""Who judges what: an incomplete block design, of which each rater has a block, and what each of them is shown in which order.

Everything follows from a seed, and is kept all the same: what a rater was shown is a fact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import ceil
from typing import Literal

import numpy as np

from hunyuan_video.config import require

Mode = Literal["absolute", "pairs"]
Kind = Literal["first", "repeat", "plant"]
QUESTIONS = ("text", "motion", "visual")
ANSWERS: dict[str, tuple[str, ...]] = {"absolute": ("yes", "no"), "pairs": ("left", "right", "tie", "bad")}
SPOILED = "(spoiled)"  # stands where a system's name does, and can be none
REPEATED = PLANTED = 0.05  # of what a rater judges, besides
PLANTED_PROMPTS = 24  # so many spoiled clips are made, and no more


@dataclass(frozen=True)
class Design:
    mode: Mode = "absolute"
    ratings: int = 3
    """raters of each clip, or pair of clips, at least"""
    per_rater: int = 40
    """clips or pairs of each rater, and a tenth more that say how far the rater can be trusted"""
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.mode in ANSWERS, f"mode is {self.mode!r}; it must be absolute or pairs.")
        require(self.ratings >= 1, f"ratings is {self.ratings}; it must be 1 or more, and says more from 3 on.")
        require(self.per_rater >= 1, f"per_rater is {self.per_rater}; it must be 1 or more.")


@dataclass(frozen=True)
class Showing:
    """Clips of a prompt that are judged: one of a system, or those of two."""

    prompt: str
    left: str
    right: str = ""

    def turned(self) -> Showing:
        return Showing(self.prompt, self.right, self.left) if self.right else self


@dataclass(frozen=True)
class Task:
    """What a rater is shown at one place. `truth` is what an attentive one says to all three questions, where that is known."""

    kind: Kind
    showing: Showing
    truth: str = ""


def blocks(design: Design, prompts: Sequence[str], systems: Sequence[str]) -> list[tuple[Showing, ...]]:
    """Each clip or pair stands in `ratings` of them, and in none twice. A block has every system, or every two, equally often (by one or
    two), and a prompt again only after all others: neither a strict rater nor an easy prompt favours anybody.

    Raises:
        ValueError: there is nothing to compare.
    """
    require(len(prompts) >= 2, f"The study has {len(prompts)} prompt; rating needs two or more, for a clip of another one is planted.")
    fewest = 2 if design.mode == "pairs" else 1
    require(len(systems) >= fewest, f"The study has {len(systems)} systems, and rating by {design.mode} needs {fewest} or more.")
    treatments = list(combinations(systems, 2)) if design.mode == "pairs" else [(system,) for system in systems]
    rng, found = np.random.default_rng(design.seed), []
    for _ in range(design.ratings):
        order: list[int] = rng.permutation(len(prompts)).tolist()
        turn: list[int] = rng.permutation(len(treatments)).tolist()
        showings = [
            Showing(prompts[prompt], *treatments[turn[(place + shift) % len(turn)]])
            for shift in range(len(turn))
            for place, prompt in enumerate(order)
        ]
        cuts = np.linspace(0, len(showings), ceil(len(showings) / design.per_rater) + 1).round().astype(int)
        found += [tuple(showings[start:end]) for start, end in pairwise(cuts)]
    return found


def planted(design: Design, prompts: Sequence[str]) -> dict[str, str]:
    """Prompts under which a spoiled clip may be shown, each with the other one of which that is."""
    order: list[int] = np.random.default_rng(design.seed).permutation(len(prompts))[:PLANTED_PROMPTS].tolist()
    return {prompts[place]: prompts[other] for place, other in zip(order, order[1:] + order[:1], strict=True)}


def session(design: Design, block: Sequence[Showing], systems: Sequence[str], plants: Sequence[str], rater: int) -> list[Task]:
    """All that a rater is shown: the block in an order and on sides of their own; at the end some of the beginning again, sides changed;
    and now and then a clip of another prompt, blurred and out of order, alone or beside one that is not."""
    rng = np.random.default_rng([design.seed, rater])
    showings = [block[place].turned() if rng.random() < 0.5 else block[place] for place in rng.permutation(len(block))]
    third = max(1, len(showings) // 3)
    repeated = rng.choice(third, min(third, ceil(REPEATED * len(showings))), replace=False)
    tasks = [Task("first", showing) for showing in showings]
    end = tasks[2 * third :] + [Task("repeat", showings[place].turned()) for place in repeated]
    tasks[2 * third :] = [end[place] for place in rng.permutation(len(end))]
    for _ in range(ceil(PLANTED * len(showings))):
        prompt, system = plants[int(rng.integers(len(plants)))], systems[int(rng.integers(len(systems)))]
        tasks.insert(rng.integers(1, len(tasks) + 1), _plant(design.mode, prompt, system, bool(rng.random() < 0.5)))
    return tasks


def _plant(mode: Mode, prompt: str, system: str, left: bool) -> Task:
    if mode == "absolute":
        return Task("plant", Showing(prompt, SPOILED), "no")
    return Task("plant", Showing(prompt, system, SPOILED), "left") if left else Task("plant", Showing(prompt, SPOILED, system), "right")
