"""How sure a share of votes is, and what may be called a difference. Functions of numbers alone.

G: clusters. B: resamples. K: numbers that are estimated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from jaxtyping import Float, Int

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
_CELLS = 2**22  # how many numbers a piece of the resampling may hold at once
Statistic = Callable[[Float[np.ndarray, "B *table"]], Float[np.ndarray, "B K"]]


def wilson(yes: int | float, votes: int | float) -> tuple[float, float]:
    """The interval of a share, `yes` of `votes`: all shares of which this one is no surprise, at 95 %.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.
    """
    if votes == 0:
        return 0.0, 1.0
    share, spread = float(yes / votes), float(Z**2 / votes)
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def errors_of(
    statistic: Statistic,
    table: Float[np.ndarray, "N *table"],
    prompts: Int[np.ndarray, " N"],
    raters: Int[np.ndarray, " N"],
    draws: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, " K"]:
    """Standard errors of a statistic of summed votes, of which those on one prompt, and those of one rater, are alike.

    `table[i]` is what vote i adds to the sum, and `statistic` takes many sums at once. Prompts are drawn with replacement, and raters, and
    what both have in common counts once: the variances are added, less that of prompts and raters at the same time. (Weights of both,
    multiplied, as A. B. Owen's pigeonhole bootstrap has them, make intervals of single votes √3 times too wide.)

    A. C. Cameron, J. B. Gelbach, D. L. Miller, Robust inference with multiway clustering, JBES 29, 2011.
    """
    both = np.unique(np.stack([prompts, raters]), axis=1, return_inverse=True)[1].reshape(-1)
    by_prompt, by_rater, by_both = (_variance(statistic, _summed(table, labels), draws, rng) for labels in (prompts, raters, both))
    # The difference of estimates may fall below either of them, which the truth cannot.
    return np.sqrt(np.maximum(by_prompt + by_rater - by_both, np.maximum(by_prompt, by_rater)))


def resampled(table: Float[np.ndarray, "G *table"], draws: int, rng: np.random.Generator) -> Float[np.ndarray, "B *table"]:
    """Sums of as many clusters as there are, drawn with replacement. B. Efron, Bootstrap methods, Annals of Statistics 7, 1979."""
    number, flat = len(table), table.reshape(len(table), -1)
    sums, step = [], max(1, _CELLS // number)
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        drawn = rng.integers(number, size=(rows, number)) + number * np.arange(rows)[:, None]
        weights = np.bincount(drawn.reshape(-1), minlength=rows * number).reshape(rows, number)
        sums.append(weights @ flat)
    return np.concatenate(sums).reshape(draws, *table.shape[1:])


def _variance(statistic: Statistic, clusters: Float[np.ndarray, "G *table"], draws: int, rng: np.random.Generator) -> np.ndarray:
    """Zero for a single cluster, which tells nothing of others."""
    number = len(clusters)
    if number == 1:
        return np.zeros_like(statistic(clusters)[0])
    return np.nanvar(statistic(resampled(clusters, draws, rng)), axis=0) * number / (number - 1)


def _summed(table: Float[np.ndarray, "N *table"], labels: Int[np.ndarray, " N"]) -> Float[np.ndarray, "G *table"]:
    sums = np.zeros((labels.max() + 1, *table.shape[1:]))
    np.add.at(sums, labels, table)
    return sums


def p_value(estimate: int | float, error: int | float) -> float:
    """How often a normal estimate of nothing is that far from zero, on either side."""
    return math.erfc(abs(estimate) / error / math.sqrt(2))


def holm(p_values: Sequence[float]) -> list[float]:
    """The same, of many looked at together: the chance that any of them deceives is kept.

    S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)))
    return adjusted.tolist()


def overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]
