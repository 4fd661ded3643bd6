"""Intervals cover what is true as often as they say, also where votes hang together."""

from __future__ import annotations

import numpy as np
import pytest

from hunyuan_video.rating.intervals import Z, errors_of, holm, p_value, resampled, wilson


def test_wilson_gives_the_intervals_that_newcombe_printed():
    """R. G. Newcombe, Statistics in Medicine 17, 1998, table I, method 3."""
    printed = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0.0, 0.1611), (1, 29): (0.0061, 0.1718)}
    for (yes, votes), ends in printed.items():
        assert [round(end, 4) for end in wilson(yes, votes)] == list(ends)


def test_no_vote_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


def test_clusters_are_drawn_whole_and_as_many_as_there_are():
    table = np.stack([np.ones(7), np.arange(7.0)], axis=1)
    sums = resampled(table, 500, np.random.default_rng(0))
    assert sums.shape == (500, 2) and (sums[:, 0] == 7).all()
    assert sums[:, 1].mean() == pytest.approx(21, abs=0.6) and sums[:, 1].std() == pytest.approx(np.sqrt(7 * 4), rel=0.1)


def shares(sums: np.ndarray) -> np.ndarray:
    return sums[:, :1] / sums[:, 1:]


def votes(rng: np.random.Generator, prompt_spread: float, rater_spread: float, prompts: int = 40, raters: int = 30, each: int = 3):
    """Yes or no of `each` raters on every prompt, where some prompts are harder and some raters stricter; and which they were."""
    prompt = np.repeat(np.arange(prompts), each)
    rater = np.concatenate([rng.choice(raters, each, replace=False) for _ in range(prompts)])
    rater = np.unique(rater, return_inverse=True)[1]
    chance = 0.6 + prompt_spread * rng.choice([-1, 1], prompts)[prompt] + rater_spread * rng.choice([-1, 1], raters)[rater]
    return rng.random(len(prompt)) < chance, prompt, rater


@pytest.mark.parametrize(("prompt_spread", "rater_spread"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.3), (0.2, 0.2)])
def test_errors_cover_the_truth_whatever_hangs_together(prompt_spread, rater_spread):
    rng, covered, rounds = np.random.default_rng(5), 0, 200
    for _ in range(rounds):
        yes, prompt, rater = votes(rng, prompt_spread, rater_spread)
        table = np.stack([yes, np.ones(len(yes))], axis=1)
        (error,) = errors_of(shares, table, prompt, rater, 100, rng)
        covered += abs(yes.mean() - 0.6) < Z * error
    assert 0.90 <= covered / rounds <= 0.99


def test_where_votes_hang_together_an_interval_that_does_not_know_it_deceives():
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        yes, _, _ = votes(rng, 0.3, 0.3, each=10, raters=15)
        low, high = wilson(int(yes.sum()), len(yes))
        covered += low < 0.6 < high
    assert covered / 200 < 0.75


def test_one_rater_alone_is_counted_by_prompts():
    table = np.stack([np.arange(20) % 2, np.ones(20)], axis=1)
    (error,) = errors_of(shares, table, np.arange(20), np.zeros(20, int), 2000, np.random.default_rng(0))
    assert error == pytest.approx(0.5 / np.sqrt(19), rel=0.05)


def test_holm_is_as_in_his_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_p_value_is_what_tables_have():
    assert p_value(1.959964, 1.0) == pytest.approx(0.05, abs=1e-6) and p_value(0, 1) == 1
