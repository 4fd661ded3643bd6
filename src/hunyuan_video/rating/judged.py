"""Votes as arrays: what statistics read.

N: judgements, each with all three questions answered. S: systems. Q: the three questions, and overall.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from hunyuan_video.rating.design import QUESTIONS
from hunyuan_video.rating.strengths import LEFT, RIGHT, TIE
from hunyuan_video.rating.vote import Vote

OVERALL = "overall"
ASKED = (*QUESTIONS, OVERALL)
_SCORES = {"yes": 1.0, "no": 0.0, "left": 1.0, "right": 0.0, "tie": 0.5, "bad": 0.5}


@dataclass(frozen=True)
class Judged:
    """`said` is 1 for yes, or for the clip on the left, 0 for no or the right one, and ½ for neither. Overall is yes where all three are;
    and the side that is better in more of them."""

    mode: str
    systems: tuple[str, ...]
    prompts: tuple[str, ...]
    raters: tuple[str, ...]
    tags: tuple[tuple[str, ...], ...]
    """of each judgement"""
    prompt: Int[np.ndarray, " N"]
    rater: Int[np.ndarray, " N"]
    left: Int[np.ndarray, " N"]
    right: Int[np.ndarray, " N"]
    """the same as left, of a clip alone"""
    said: Float[np.ndarray, "N Q"]

    @classmethod
    def of(cls, mode: str, votes: Sequence[Vote]) -> Judged:
        """Of votes on clips that were seen for the first time."""
        places: dict[tuple[str, int], dict[str, Vote]] = defaultdict(dict)
        for vote in votes:
            if vote.mode == mode and vote.kind == "first":
                places[vote.rater, vote.number][vote.question] = vote
        whole = [place for place in places.values() if len(place) == len(QUESTIONS)]
        one = [place[QUESTIONS[0]] for place in whole]
        scores = np.array([[_SCORES[place[question].answer] for question in QUESTIONS] for place in whole]).reshape(-1, len(QUESTIONS))
        overall = scores.min(axis=1) if mode == "absolute" else (np.sign((scores - 0.5).sum(axis=1)) + 1) / 2
        systems = sorted({system for vote in one for system in (vote.left, vote.right) if system})
        prompts, raters = sorted({vote.prompt for vote in one}), sorted({vote.rater for vote in one})
        numbers = [{name: number for number, name in enumerate(names)} for names in (systems, prompts, raters)]
        return cls(
            mode,
            tuple(systems),
            tuple(prompts),
            tuple(raters),
            tuple(vote.tags for vote in one),
            np.array([numbers[1][vote.prompt] for vote in one], int),
            np.array([numbers[2][vote.rater] for vote in one], int),
            np.array([numbers[0][vote.left] for vote in one], int),
            np.array([numbers[0][vote.right or vote.left] for vote in one], int),
            np.column_stack([scores, overall]),
        )

    def __len__(self) -> int:
        return len(self.said)

    @cached_property
    def points(self) -> Float[np.ndarray, "N S Q 2"]:
        """What each judgement gives each system, and of how many: a yes, or a pair won, is a point."""
        table, each = np.zeros((len(self), len(self.systems), len(ASKED), 2)), np.arange(len(self))
        sides = [(self.left, self.said)] if self.mode == "absolute" else [(self.left, self.said), (self.right, 1 - self.said)]
        for side, points in sides:
            table[each, side, :, 0], table[each, side, :, 1] = points, 1
        return table

    def outcomes(self, question: int) -> Float[np.ndarray, "N S S 3"]:
        """Of pairs, as `strengths.fit` reads them."""
        size, said = len(self.systems), self.said[:, question]
        table = np.zeros((len(self), size, size, 3))
        table[np.arange(len(self)), self.left, self.right, np.select([said == 1, said == 0], [LEFT, RIGHT], TIE)] = 1
        return table

    def agreement_counts(self, question: int) -> Float[np.ndarray, "U 3"]:
        """How many raters gave each clip, or each pair whatever its sides, each value."""
        low, high = np.minimum(self.left, self.right), np.maximum(self.left, self.right)
        unit = np.unique(np.stack([self.prompt, low, high]), axis=1, return_inverse=True)[1].reshape(-1)
        said = np.where(self.left <= self.right, self.said[:, question], 1 - self.said[:, question])
        counts = np.zeros((unit.max(initial=-1) + 1, 3))
        np.add.at(counts, (unit, (2 * said).astype(int)), 1)
        return counts
