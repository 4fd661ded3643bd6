"""From votes to what may be said of systems. Imports nothing of the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from hunyuan_video.config import require
from hunyuan_video.rating.agreement import krippendorff_alpha
from hunyuan_video.rating.intervals import LEVEL, Z, errors_of, holm, overlap, p_value, wilson
from hunyuan_video.rating.judged import ASKED, OVERALL, Judged
from hunyuan_video.rating.strengths import covariance, fit
from hunyuan_video.rating.trust import Trust, trust_of
from hunyuan_video.rating.vote import Vote, last_words

DRAWS = 1000
Ends = tuple[float, float]


@dataclass(frozen=True)
class Rate:
    """A share of judgements: those that said yes, or pairs that were won, of which a tie is half a one."""

    share: float
    judgements: int
    wilson: Ends
    """as if every judgement stood alone"""
    design_effect: float
    """how many times the variance is what it would be then, by prompts and raters; 1 where it is less"""
    interval: Ends
    """Wilson's, of so many judgements less"""


@dataclass(frozen=True)
class Estimate:
    value: float
    interval: Ends


@dataclass(frozen=True)
class Comparison:
    question: str
    first: str
    second: str
    difference: Estimate
    """of shares; or of strengths, in logits"""
    p: float
    p_holm: float
    """by all comparisons of the table together"""
    verdict: str
    """the better one's name, or tie: their intervals overlap, or the difference may be chance"""


@dataclass(frozen=True)
class Pairs:
    """What pairs tell besides, by question: strengths in logits, how much more likely ties are than a win of either of two equals, and how
    much the left side is favoured."""

    strengths: dict[str, dict[str, Estimate]]
    ties: dict[str, Estimate]
    left: dict[str, Estimate]


@dataclass(frozen=True)
class Table:
    """One way of rating. Every dict goes by question (text, motion, visual, overall), then by system, unless it says otherwise."""

    mode: str
    judgements: int
    prompts: int
    raters: int
    raters_each: int
    """of the clip or pair that fewest have seen"""
    rates: dict[str, dict[str, Rate]]
    ranks: dict[str, tuple[int, int]]
    """by system: the best and the worst that it may have overall"""
    comparisons: list[Comparison]
    alpha: dict[str, float | None]
    """Krippendorff's"""
    tags: dict[str, dict[str, Rate]]
    """overall, by tag and system"""
    pairs: Pairs | None


@dataclass(frozen=True)
class Report:
    trust: Trust
    tables: list[Table]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def report_of(said: Sequence[Vote], draws: int = DRAWS, seed: int = 0) -> Report:
    """By `draws` resamples, of which `seed` is.

    Raises:
        ValueError: no rater's votes can be counted.
    """
    votes = last_words(said)
    trust = trust_of(said, votes)
    counted = [vote for vote in votes if vote.rater not in trust.left_out]
    judged = [Judged.of(mode, counted) for mode in ("absolute", "pairs")]
    require(
        any(map(len, judged)),
        f"There is nothing to report: of {trust.raters} raters, {len(trust.left_out)} are left out, and no clip was judged by the others.",
    )
    return Report(trust, [_table(each, draws, np.random.default_rng(seed)) for each in judged if len(each)])


def _table(judged: Judged, draws: int, rng: np.random.Generator) -> Table:
    rates, differences, errors = _rates(judged, draws, rng)
    pairs = None
    if judged.mode == "pairs":
        pairs, differences, errors = _strengths(judged, draws, rng)
        intervals = {question: [each.interval for each in found.values()] for question, found in pairs.strengths.items()}
    else:
        intervals = {question: [rate.interval for rate in found.values()] for question, found in rates.items()}
    comparisons = _compare(judged.systems, differences, errors, intervals)
    alphas = {question: krippendorff_alpha(judged.agreement_counts(number)) for number, question in enumerate(ASKED)}
    return Table(
        judged.mode,
        len(judged),
        len(judged.prompts),
        len(judged.raters),
        int(judged.agreement_counts(0).sum(axis=1).min()),
        rates,
        _ranks(judged.systems, comparisons),
        comparisons,
        {question: None if math.isnan(alpha) else alpha for question, alpha in alphas.items()},
        _by_tag(judged),
        pairs,
    )


def _rates(judged: Judged, draws: int, rng: np.random.Generator) -> tuple[dict[str, dict[str, Rate]], np.ndarray, np.ndarray]:
    """Shares; and the differences of every two, with their standard errors, [Q, pairs]."""
    one, two = _every_two(len(judged.systems))

    def statistic(sums: np.ndarray) -> np.ndarray:
        shares = _shares(sums)
        return np.concatenate([shares, shares[:, one] - shares[:, two]], axis=1).reshape(len(sums), -1)

    points = judged.points
    errors = errors_of(statistic, points, judged.prompt, judged.rater, draws, rng).reshape(-1, len(ASKED)).T
    sums = points.sum(axis=0)
    shares = _shares(sums)
    rates = {
        question: {
            system: _rate(*sums[row, column], error=errors[column, row]) for row, system in enumerate(judged.systems)
        }
        for column, question in enumerate(ASKED)
    }  # fmt: skip
    # Where all say the same, so do all resamples; one more of each answer tells how sure that is (A. Agresti, B. Caffo, 2000).
    plain = _shares(sums + np.array([1, 2]))
    spread = plain * (1 - plain) / (sums[..., 1] + 2)
    apart = errors[:, len(judged.systems) :]
    return rates, (shares[one] - shares[two]).T, np.where(apart > 0, apart, np.sqrt(spread[one] + spread[two]).T)


def _shares(sums: np.ndarray) -> np.ndarray:
    """NaN in a resample that has nothing of a system."""
    return np.divide(sums[..., 0], sums[..., 1], out=np.full(sums.shape[:-1], np.nan), where=sums[..., 1] > 0)


def _rate(yes: float, judgements: float, error: float = 0.0) -> Rate:
    share = float(yes / judgements)
    alone = share * (1 - share) / judgements
    effect = max(1.0, error**2 / alone) if alone > 0 else 1.0
    fewer = judgements / effect
    return Rate(share, int(judgements), wilson(yes, judgements), effect, wilson(share * fewer, fewer))


def _strengths(judged: Judged, draws: int, rng: np.random.Generator) -> tuple[Pairs, np.ndarray, np.ndarray]:
    """Strengths; and the differences of every two, with their standard errors, [Q, pairs]. No error is less than if each vote stood alone,
    for of few votes all resamples may say the same."""
    size, (one, two) = len(judged.systems), _every_two(len(judged.systems))
    of_every_two = np.eye(size + 2)[one] - np.eye(size + 2)[two]
    centred = np.eye(size + 2)
    centred[:size, :size] -= 1 / size  # strengths are known beside each other alone
    told = np.concatenate([centred, of_every_two])
    pairs, differences, errors = Pairs({}, {}, {}), [], []
    for number, question in enumerate(ASKED):
        outcomes = judged.outcomes(number)
        total = outcomes.sum(axis=0)
        found = fit(total)

        def statistic(sums: np.ndarray, found: np.ndarray = found) -> np.ndarray:
            return fit(sums, start=found) @ told.T

        alone = np.sqrt(np.diag(told @ covariance(total, found) @ told.T))
        error = np.maximum(alone, errors_of(statistic, outcomes, judged.prompt, judged.rater, draws, rng))
        each = [_estimate(*both) for both in zip(found, error, strict=False)]
        pairs.strengths[question] = dict(zip(judged.systems, each, strict=False))
        pairs.ties[question], pairs.left[question] = each[size], each[size + 1]
        differences.append(of_every_two @ found)
        errors.append(error[size + 2 :])
    return pairs, np.stack(differences), np.stack(errors)


def _compare(systems: Sequence[str], differences: np.ndarray, errors: np.ndarray, intervals: dict[str, list[Ends]]) -> list[Comparison]:
    """Of every two systems in every respect."""
    cases = [
        (question, one, two, float(differences[row, column]), float(errors[row, column]))
        for row, question in enumerate(ASKED)
        for column, (one, two) in enumerate(combinations(range(len(systems)), 2))
    ]
    chances = [p_value(difference, error) for *_, difference, error in cases]
    found = []
    for (question, one, two, difference, error), p, together in zip(cases, chances, holm(chances), strict=True):
        is_tie = together >= 1 - LEVEL or overlap(intervals[question][one], intervals[question][two])
        verdict = "tie" if is_tie else systems[one if difference > 0 else two]
        found.append(Comparison(question, systems[one], systems[two], _estimate(difference, error), p, together, verdict))
    return found


def _ranks(systems: Sequence[str], comparisons: Iterable[Comparison]) -> dict[str, tuple[int, int]]:
    best, worst = dict.fromkeys(systems, 1), dict.fromkeys(systems, len(systems))
    for found in comparisons:
        if found.question == OVERALL and found.verdict != "tie":
            worse = found.second if found.verdict == found.first else found.first
            best[worse] += 1
            worst[found.verdict] -= 1
    return {system: (best[system], worst[system]) for system in systems}


def _by_tag(judged: Judged) -> dict[str, dict[str, Rate]]:
    """Without what prompts and raters have in common, of which there are few in each."""
    found, overall = {}, judged.points[:, :, ASKED.index(OVERALL)]
    for tag in sorted({tag for tags in judged.tags for tag in tags}):
        sums = overall[[tag in tags for tags in judged.tags]].sum(axis=0)
        found[tag] = {system: _rate(*sums[row]) for row, system in enumerate(judged.systems) if sums[row, 1]}
    return found


def _estimate(value: float, error: float) -> Estimate:
    return Estimate(float(value), (float(value - Z * error), float(value + Z * error)))


def _every_two(systems: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(systems, 1)  # pyright: ignore[reportReturnType]
