"""What pairs say of how strong systems are: Bradley and Terry's model, with ties as Davidson has them, and a side that may be favoured.

    left : right : tie  =  a·π_i : π_j / a : ν √(π_i π_j)

R. A. Bradley, M. E. Terry, Biometrika 39, 1952; R. R. Davidson, On extending the Bradley-Terry model to accommodate ties, JASA 65, 1970;
R. R. Davidson, R. J. Beaver, Biometrics 33, 1977, of the order in a pair. Here all is in logarithms, so that the model is a multinomial
regression, and its likelihood has one maximum.

Each system wins, loses and ties once more than it did, spread over all others and both sides: who has always won is strong, and not without
end (as D. Firth, Biometrika 80, 1993, has it of a single comparison).

S: systems. K = S + 2 parameters: strengths (whose mean is 0), how likely ties are, and how much the left side is favoured.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float

LEFT, RIGHT, TIE = range(3)
_PRIOR = 0.01  # 1 / variance of every parameter: nothing beside votes, and says what all strengths are on average
_LONGEST, _CLOSE, _MOST = 2.0, 1e-6, 100  # a step's largest change, the change that is none, and how many steps


def fit(votes: Float[np.ndarray, "*B S S 3"], start: Float[np.ndarray, " K"] | None = None) -> Float[np.ndarray, "*B K"]:
    """The parameters that are most likely. `votes[i, j]` says how often i on the left was better than j on the right, j better, and
    neither; of many such tables, each has its own. By Newton's method, from `start` on."""
    systems, batch = votes.shape[-2], votes.shape[:-3]
    counts = (votes + _once_more(systems)).reshape(-1, systems**2, 3)
    x = np.tile(np.zeros(systems + 2) if start is None else start, (len(counts), 1))
    for _ in range(_MOST):
        slope, curve = _derivatives(counts, x, systems)
        step = np.linalg.solve(curve, slope[..., None])[..., 0]
        x += step / np.maximum(1, np.abs(step).max(axis=1, keepdims=True) / _LONGEST)
        if np.abs(step).max() < _CLOSE:
            break
    x[:, :systems] -= x[:, :systems].mean(axis=1, keepdims=True)
    return x.reshape(*batch, -1)


def covariance(votes: Float[np.ndarray, "S S 3"], parameters: Float[np.ndarray, " K"]) -> Float[np.ndarray, "K K"]:
    """Of the parameters that were fitted to these votes, as if each vote stood alone: the inverse of Fisher's information.
    Of strengths only differences are known; their mean is as unsure as the prior has it."""
    systems = len(votes)
    _, (curve,) = _derivatives((votes + _once_more(systems)).reshape(1, systems**2, 3), parameters[None], systems)
    return np.linalg.inv(curve)


def _once_more(systems: int) -> Float[np.ndarray, "S S 3"]:
    """A win, a loss and a tie of each system, in equal parts."""
    return np.repeat((1 - np.eye(systems))[..., None] / (2 * (systems - 1)), 3, axis=-1)


def _derivatives(
    counts: Float[np.ndarray, "B cells 3"], x: Float[np.ndarray, "B K"], systems: int
) -> tuple[Float[np.ndarray, "B K"], Float[np.ndarray, "B K K"]]:
    """The slope of the likelihood's logarithm, and how it bends down."""
    features, size = _features(systems), systems + 2
    shown = counts.sum(-1, keepdims=True)
    expected = shown * chances(x, systems)
    slope = (counts - expected).reshape(len(counts), -1) @ features.reshape(-1, size) - _PRIOR * x
    mean = np.einsum("bco,cok->bck", expected, features)
    curve = (expected.reshape(len(counts), -1) @ _products(systems)).reshape(-1, size, size) + _PRIOR * np.eye(size)
    curve -= np.swapaxes(mean, 1, 2) @ (mean / np.maximum(shown, 1e-12))
    return slope, curve


def chances(parameters: Float[np.ndarray, "B K"], systems: int) -> Float[np.ndarray, "B cells 3"]:
    """Of left, right and tie, for every pair of systems, `i * S + j`."""
    weights = np.einsum("cok,bk->bco", _features(systems), parameters)
    weights = np.exp(weights - weights.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


@cache
def _features(systems: int) -> Float[np.ndarray, "cells 3 K"]:
    """What each outcome's logarithm is made of."""
    features = np.zeros((systems, systems, 3, systems + 2))
    for system in range(systems):
        features[system, :, LEFT, system] = 1
        features[:, system, RIGHT, system] = 1
        features[system, :, TIE, system] += 0.5
        features[:, system, TIE, system] += 0.5
    features[..., TIE, systems] = 1
    features[..., LEFT, systems + 1], features[..., RIGHT, systems + 1] = 0.5, -0.5
    return features.reshape(systems**2, 3, -1)


@cache
def _products(systems: int) -> Float[np.ndarray, "outcomes KK"]:
    flat = _features(systems).reshape(systems**2 * 3, -1)
    return (flat[:, :, None] * flat[:, None, :]).reshape(len(flat), -1)
