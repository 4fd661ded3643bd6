"""Flow is speed, and a frozen picture is found for as long as it lasts."""

from __future__ import annotations

import numpy as np
import pytest
from footage_files import moving

from hunyuan_video.curation.footage import grey
from hunyuan_video.curation.movement import drift, movement


@pytest.mark.parametrize("speed", [1, 2])
def test_flow_is_in_heights_a_second(speed):
    assert movement(moving(1, 25, speed))["flow"] == pytest.approx(speed * 24 / 96, rel=0.15)


def test_a_picture_that_stands_still_has_no_flow_and_is_still_all_the_time():
    found = movement(moving(1, 25, speed=0))
    assert found["flow"] < 0.001 and found["still"] == pytest.approx(1.0)


def test_a_part_that_is_frozen_counts_for_its_length():
    frames = moving(1, 40)
    frames[10:23] = frames[10]
    assert movement(frames)["still"] == pytest.approx(12 / 24)


def test_what_swings_to_and_fro_does_not_drift():
    along = moving(1, 64, speed=1)
    swinging = along[np.abs((np.arange(64) * 2 + 16) % 32 - 16)]
    assert np.median(drift(grey(along)), (0, 1)) == pytest.approx([-4, 0], abs=0.5)
    assert np.median(np.linalg.norm(drift(grey(swinging)), axis=2)) < 1
