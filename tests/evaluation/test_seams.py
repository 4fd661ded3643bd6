"""Measures of what was put together, on clips of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from hunyuan_video.evaluation.seams import repetition, seam, steps


def moving(count: int, start: float = 0.0, speed: float = 2.0) -> np.ndarray:
    """A soft bar that goes around to the right."""
    places = (np.arange(64) - start - speed * np.arange(count)[:, None]) % 64
    light = 200 * np.exp(-(((places - 32) / 8) ** 2))
    return np.repeat(np.repeat(light[:, None, :, None], 16, axis=1), 3, axis=3).astype(np.uint8)


def test_where_a_video_goes_on_there_is_no_seam():
    assert seam(moving(20), 10) == pytest.approx(1, abs=0.1)


def test_where_it_jumps_there_is_one():
    assert seam(np.concatenate([moving(10), moving(10, start=50)]), 10) > 5


def test_a_whole_turn_is_a_loop_and_half_of_one_is_none():
    assert seam(moving(32), 0) == pytest.approx(1, abs=0.1) and seam(moving(16), 0) > 5


def test_steps_are_levels_of_255():
    frames = np.zeros((3, 4, 4, 3), np.uint8)
    frames[1] = 10
    assert steps(frames) == pytest.approx([0, 10, 10])


def test_a_second_turn_repeats_the_first_and_noise_repeats_nothing():
    noise = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    assert repetition(moving(64), 32) < 0.01 and repetition(noise, 20) > 0.7


def test_what_is_too_short_to_say_is_refused():
    with pytest.raises(ValueError, match="no step into frame 3 to compare with others"):
        seam(moving(3), 3)
    with pytest.raises(ValueError, match="none of them more than 9 after another one"):
        repetition(moving(9), 9)
