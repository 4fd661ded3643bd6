"""Strengths that were planted are found, with what else decides a pair."""

from __future__ import annotations

import choix
import numpy as np
import pytest

from hunyuan_video.rating.intervals import Z, errors_of
from hunyuan_video.rating.strengths import LEFT, RIGHT, TIE, chances, fit

PLANTED = np.array([0.6, 0.2, -0.1, -0.7])
TIES, FAVOURED = -0.4, 0.3


def pairs(systems: int) -> np.ndarray:
    return np.array([i * systems + j for i in range(systems) for j in range(systems) if i != j])


def votes(rng: np.random.Generator, parameters: np.ndarray, number: int) -> np.ndarray:
    """`number` of them, each as a table with one vote: [number, S, S, 3]."""
    systems = len(parameters) - 2
    cell = rng.choice(pairs(systems), number)
    chance = chances(parameters[None], systems)[0][cell]
    outcome = (rng.random(number)[:, None] > chance.cumsum(axis=1)).sum(axis=1)
    table = np.zeros((number, systems**2, 3))
    table[np.arange(number), cell, outcome] = 1
    return table.reshape(number, systems, systems, 3)


def test_chances_are_those_of_davidson_and_beaver():
    parameters = np.array([0.5, -0.5, -0.3, 0.2])
    first, second, tie, left = np.exp(0.5), np.exp(-0.5), np.exp(-0.3), np.exp(0.1)
    weights = np.array([first * left, second / left, tie * np.sqrt(first * second)])
    np.testing.assert_allclose(chances(parameters[None], 2)[0][1], weights / weights.sum())


def test_two_systems_are_as_strong_as_the_formula_says():
    """Which is closed for two of them without ties: half of what the sides say apart is strength, half of what they say alike the side.
    Beside so many votes one more is nothing."""
    table = np.zeros((2, 2, 3))
    table[0, 1], table[1, 0] = (600_000, 200_000, 0), (300_000, 500_000, 0)
    found, by_side = fit(table), (np.log(600 / 200), np.log(300 / 500))
    assert found[0] - found[1] == pytest.approx((by_side[0] - by_side[1]) / 2, abs=1e-4)
    assert found[3] == pytest.approx((by_side[0] + by_side[1]) / 2, abs=1e-4)


def test_without_ties_and_sides_it_is_what_the_library_choix_finds():
    wins = 100 * np.array([[0, 30, 40, 45], [20, 0, 35, 40], [10, 15, 0, 28], [5, 10, 22, 0]])
    table = np.zeros((4, 4, 3))
    table[..., LEFT], table[..., RIGHT] = wins / 2, wins.T / 2
    won = [(i, j) for i in range(4) for j in range(4) for _ in range(wins[i, j])]
    np.testing.assert_allclose(fit(table)[:4], choix.opt_pairwise(4, won, alpha=0.005), atol=2e-3)


def test_the_side_is_not_taken_for_strength():
    """Where one system stands on the left more often."""
    table = np.zeros((2, 2, 3))
    table[0, 1], table[1, 0] = (900, 300, 0), (90, 30, 0)
    found = fit(table)
    assert abs(found[0]) < 0.01 and found[3] == pytest.approx(np.log(3), abs=0.02)


def test_who_always_wins_has_a_strength_all_the_same():
    table = np.zeros((2, 2, 3))
    table[0, 1, LEFT] = table[1, 0, RIGHT] = 50
    found = fit(table)
    assert np.isfinite(found).all() and found[0] > 2


def test_many_tables_are_fitted_as_each_alone():
    rng = np.random.default_rng(1)
    tables = rng.integers(1, 20, (5, 3, 3, 3)).astype(float) * (1 - np.eye(3))[:, :, None]
    np.testing.assert_allclose(fit(tables, start=np.full(5, 0.1)), [fit(table) for table in tables], atol=1e-6)


def coverage(rounds: int, draws: int) -> np.ndarray:
    """How often the intervals of all parameters hold what was planted."""
    truth, rng = np.array([*PLANTED, TIES, FAVOURED]), np.random.default_rng(2)
    covered = np.zeros(len(truth))
    for _ in range(rounds):
        table = votes(rng, truth, 480)
        prompt, rater = np.repeat(np.arange(160), 3), rng.permutation(np.repeat(np.arange(24), 20))
        found = fit(table.sum(axis=0))
        errors = errors_of(lambda sums, found=found: fit(sums, start=found), table, prompt, rater, draws, rng)
        covered += np.abs(found - truth) < Z * errors
    return covered / rounds


def test_strengths_that_were_planted_lie_in_their_intervals():
    assert 0.92 <= coverage(60, 60).mean() <= 0.98


@pytest.mark.slow
def test_ninety_five_of_a_hundred_intervals_hold_the_strength_that_was_planted():
    covered = coverage(500, 200)
    assert ((covered >= 0.92) & (covered <= 0.98)).all(), covered


def test_ties_are_found_as_often_as_they_were_planted():
    truth = np.array([0.2, -0.2, 1.5, 0.0])
    found = fit(votes(np.random.default_rng(0), truth, 20000).sum(axis=0))
    np.testing.assert_allclose(found, truth, atol=0.08)
    assert chances(found[None], 2)[0][1][TIE] == pytest.approx(0.69, abs=0.02)
