"""Clips start where the picture is sharp, and fill their shot."""

from __future__ import annotations

import numpy as np
import pytest
from footage_files import texture

from hunyuan_video.curation.extras import opencv
from hunyuan_video.curation.footage import grey
from hunyuan_video.curation.start import Lengths, clips_of, sharpness

LENGTHS = Lengths(least=9, most=17, look=4)


def test_a_blurred_picture_is_less_sharp():
    light = grey(texture(1))
    assert sharpness(opencv().GaussianBlur(light, (0, 0), 2)) < sharpness(light) / 2


def test_a_clip_starts_at_the_sharpest_frame_nearby():
    sharp = np.zeros(12)
    sharp[[2, 7]] = 1, 9  # the second one is too far away
    assert clips_of([(0, 12)], sharp, LENGTHS) == [(2, 9)]


def test_a_start_is_not_moved_so_far_that_the_clip_gets_too_short():
    sharp = np.arange(20.0)
    assert clips_of([(0, 10)], sharp, LENGTHS) == [(1, 9)]
    assert clips_of([(0, 8)], sharp, LENGTHS) == []


def test_a_long_shot_gives_clips_one_behind_the_other():
    assert clips_of([(0, 45), (50, 60)], np.zeros(60), LENGTHS) == [(0, 17), (17, 17), (34, 9), (50, 9)]


def test_lengths_that_the_vae_cannot_take_are_refused():
    with pytest.raises(ValueError, match=r"Clips of 10 to 17 frames cannot be"):
        Lengths(least=10, most=17)
