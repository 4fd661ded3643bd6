"""Krippendorff's alpha, beside the library of that name and his own example."""

from __future__ import annotations

import math

import krippendorff
import numpy as np
import pytest

from hunyuan_video.rating.agreement import krippendorff_alpha


def counts_of(said: np.ndarray, values: int) -> np.ndarray:
    """How often each unit got each value; `said` is [raters, units], NaN where a rater did not see it."""
    return np.stack([(said == value).sum(axis=0) for value in range(values)], axis=1).astype(float)


def test_alpha_is_what_krippendorff_printed():
    """Four observers, twelve units, section C of his paper: 0.743."""
    nan = math.nan
    said = np.array([
        [1, 2, 3, 3, 2, 1, 4, 1, 2, nan, nan, nan],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, nan, 3],
        [nan, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, nan],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, nan],
    ])  # fmt: skip
    assert round(krippendorff_alpha(counts_of(said - 1, 5)), 3) == 0.743


@pytest.mark.parametrize("seed", range(5))
def test_alpha_is_what_the_library_finds(seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=30)
    said = np.where(rng.random((6, 30)) < 0.6, truth, rng.integers(3, size=(6, 30))).astype(float)
    said[rng.random(said.shape) < 0.3] = math.nan
    expected = krippendorff.alpha(reliability_data=said, level_of_measurement="nominal")
    assert krippendorff_alpha(counts_of(said, 3)) == pytest.approx(expected, abs=1e-12)


def test_where_all_say_one_thing_there_is_no_alpha():
    assert math.isnan(krippendorff_alpha(np.array([[3.0, 0.0], [2.0, 0.0]])))
    assert math.isnan(krippendorff_alpha(np.zeros((0, 2))))
