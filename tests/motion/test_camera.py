"""What is read of a camera whose movement is known."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from rendered_cameras import film, path

from hunyuan_video.motion.camera import CameraMotion, Label, camera_motion

LABELS = get_args(Label)


def read(kind: str, seed: int, num_frames: int = 9, **scene) -> CameraMotion:
    return camera_motion(film(path(kind, seed, num_frames), seed, **scene))


@pytest.mark.parametrize("label", LABELS)
def test_each_movement_in_a_scene_with_depth_has_its_name(label):
    assert read(label, seed=4).label == label


def test_a_zoom_of_the_lens_is_a_zoom_and_measured():
    seen = read("optical-in", seed=2, flat=True)
    first, last = (path("optical-in", 2, 9)[at].focal for at in (0, -1))
    assert seen.label == "zoom-in" and seen.measured.zoom == pytest.approx(np.log(last / first), rel=0.02)


def test_a_shift_is_measured_in_widths_of_the_picture():
    seen = read("pan-right", seed=4, flat=True)
    camera = path("pan-right", 4, 9)[-1]
    assert seen.measured.shift == pytest.approx((-camera.focal * camera.x / 9, 0), abs=0.002)  # a wall at a distance of 9


def test_a_move_along_a_wall_is_no_sure_thing_and_a_turn_before_it_is():
    assert read("pan-left", seed=4, flat=True).confidence < 0.5 < read("tilt-left", seed=4, flat=True).confidence


def test_somebody_who_walks_before_a_still_camera_moves_nothing():
    seen = read("static", seed=4, subject=1.5)
    assert seen.label == "static" and seen.confidence > 0.5


def test_a_roll_is_none_of_the_classes_and_has_no_confidence():
    assert read("roll", seed=4).confidence == 0


@pytest.mark.parametrize("frames", [np.zeros((5, 64, 64, 3), np.uint8), np.full((1, 64, 64, 3), 9, np.uint8)])
def test_where_nothing_can_be_tracked_nothing_is_claimed(frames):
    assert camera_motion(frames).confidence == 0


@pytest.mark.slow  # a minute
def test_of_many_clips_nearly_all_are_right_and_of_the_confident_ones_all():
    asked = [(label, seed) for label in LABELS for seed in range(10, 20)]
    seen = [read(label, seed, num_frames=17, subject=0.5 * (seed % 2)) for label, seed in asked]
    right = [motion.label == label for (label, _), motion in zip(asked, seen, strict=True)]
    sure = [motion.confidence >= 0.5 for motion in seen]
    assert sum(right) >= 0.95 * len(asked)
    assert sum(sure) >= 0.8 * len(asked) and all(fine for fine, certain in zip(right, sure, strict=True) if certain)
