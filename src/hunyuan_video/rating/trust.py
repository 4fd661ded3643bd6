"""How far raters can be trusted: by what is known to be bad, and by what they were asked twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from hunyuan_video.rating.vote import Vote

# Of the questions on planted clips, which a rater must answer right to be counted; but one wrong answer leaves nobody out. A rule from
# before any vote.
ENOUGH = 0.8
MANY = 20  # clips or pairs, after which it is odd to have had one answer to every question
_OTHER_SIDE = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class Trust:
    raters: int
    left_out: tuple[str, ...]
    """those who saw too few of the planted clips for what they are"""
    untested: int
    """those who are counted and left before they met a planted clip"""
    monotonous: int
    """those who are counted and said one thing of all of many clips: who refuses everything refuses the planted ones, too"""
    planted: int
    planted_right: float | None
    """of all raters' answers on planted clips; None if there are none"""
    repeated: int
    repeated_same: float | None
    """of the answers that raters who are counted gave twice"""
    changed: int
    """answers that were changed afterwards"""
    seconds: float | None
    """for a clip or pair, in the median"""


def trust_of(said: Sequence[Vote], votes: Sequence[Vote]) -> Trust:
    """`votes` are the last words of all that was `said`."""
    plants = [vote for vote in votes if vote.kind == "plant"]
    right = defaultdict(list)
    for vote in plants:
        right[vote.rater].append(vote.answer == vote.truth)
    left_out = tuple(sorted(rater for rater, each in right.items() if sum(each) < min(ENOUGH * len(each), len(each) - 1)))
    same = _repeats([vote for vote in votes if vote.rater not in left_out])
    raters = {vote.rater for vote in votes}
    seconds = sorted(vote.latency_ms / 1000 for vote in {(vote.rater, vote.mode, vote.number): vote for vote in votes}.values())
    return Trust(
        len(raters), left_out, len(raters - right.keys()), len(_monotonous(votes) - set(left_out)),
        len(plants), _share([answer for each in right.values() for answer in each]),
        len(same), _share(same),
        _changes(said), seconds[len(seconds) // 2] if seconds else None,
    )  # fmt: skip


def _monotonous(votes: Sequence[Vote]) -> set[str]:
    said, places = defaultdict(set), defaultdict(set)
    for vote in votes:
        said[vote.rater].add(vote.answer)
        places[vote.rater].add((vote.mode, vote.number))
    return {rater for rater, answers in said.items() if len(answers) == 1 and len(places[rater]) >= MANY}


def _changes(said: Sequence[Vote]) -> int:
    answers: dict[tuple[object, ...], str] = {}
    changes = 0
    for vote in said:
        place = vote.rater, vote.mode, vote.number, vote.question
        changes += answers.get(place, vote.answer) != vote.answer
        answers[place] = vote.answer
    return changes


def _repeats(votes: Sequence[Vote]) -> list[bool]:
    """Whether each answer was the one that its rater had given before."""
    before = {_what(vote): _seen_from(vote) for vote in votes if vote.kind == "first"}
    return [before[_what(vote)] == _seen_from(vote) for vote in votes if vote.kind == "repeat" and _what(vote) in before]


def _what(vote: Vote) -> tuple[object, ...]:
    return vote.rater, vote.mode, vote.prompt, frozenset((vote.left, vote.right)), vote.question


def _seen_from(vote: Vote) -> str:
    """The answer as it were with the systems in the order of their names."""
    return vote.answer if not vote.right or vote.left < vote.right else _OTHER_SIDE.get(vote.answer, vote.answer)


def _share(each: Sequence[bool]) -> float | None:
    return sum(each) / len(each) if each else None
