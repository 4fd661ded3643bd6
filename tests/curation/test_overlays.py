"""Bars and logos are found where they are, and scenery is left alone."""

from __future__ import annotations

import curation_footage as footage
import numpy as np
import pytest
from footage_files import moving

from hunyuan_video.curation.crop import WHOLE, Box, largest_without
from hunyuan_video.curation.footage import grey
from hunyuan_video.curation.overlays import Sample, inside_bars, over_clip, over_film

DRAW = np.random.default_rng(0)
HEIGHT, WIDTH = 180, 320


def filmed(camera: str, seed: int = 1, num_frames: int = 48) -> np.ndarray:
    return footage.filmed(seed, num_frames, camera, HEIGHT, WIDTH)


def test_bars_are_cut_off_to_the_row():
    bar = footage.bar_of(96)
    assert inside_bars(grey(footage.letterboxed(moving(1, 4), DRAW))) == Box(0.0, bar / 96, 1.0, 1 - bar / 96)


def test_bars_at_the_sides_are_found_too_also_with_a_subtitle_below():
    frames = moving(1, 4)
    frames[:, :, :10] = 0
    frames[:, -12:] = 0
    frames[:, -9:-4, 50:70] = 255
    assert inside_bars(grey(frames)) == Box(10 / 128, 0.0, 1.0, 84 / 96)


def test_a_dark_top_in_some_frames_is_no_bar():
    frames = moving(1, 4)
    frames[:3, :10] = 0
    assert inside_bars(grey(frames)) == WHOLE


def test_a_black_picture_is_not_all_bar():
    assert inside_bars(np.zeros((3, 8, 8), np.uint8)) == WHOLE


def logo_of(boxes: list[Box]) -> Box:
    """Around all of them."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return Box(min(left), min(top), max(right), max(bottom))


def test_a_half_transparent_logo_over_a_moving_scene_is_found_whole_and_little_else():
    found = logo_of(over_clip(grey(footage.with_logo(filmed("pan-left"), DRAW))))
    side, wide = HEIGHT // 8, WIDTH
    true = Box((WIDTH - 2 * side - side // 3) / wide, (side // 3) / HEIGHT, (WIDTH - side // 3) / wide, (side // 3 + side) / HEIGHT)
    assert found.left < true.left and found.top < true.top and found.right > true.right and found.bottom > true.bottom
    assert found.area < 2.5 * true.area


@pytest.mark.parametrize("camera", ["pan-left", "pan-up", "zoom-in", "zoom-out", "handheld", "static"])
def test_scenery_is_no_logo_however_the_camera_moves(camera):
    assert over_clip(grey(filmed(camera))) == []


def test_over_the_shots_of_a_film_a_logo_is_found_though_no_camera_moves():
    shots = [footage.with_logo(filmed("static", seed, 12), DRAW) for seed in range(6)]
    spans = [(12 * number, 12 * number + 12) for number in range(6)]
    assert over_film(grey(np.concatenate(shots)), spans) != []
    assert over_film(grey(np.concatenate([filmed("static", seed, 12) for seed in range(6)])), spans) == []


def test_what_stays_in_a_film_of_one_shot_may_be_scenery():
    assert over_film(grey(footage.with_logo(filmed("pan-left"), DRAW)), [(0, 48)]) == []


def test_a_sample_is_spread_over_all_and_never_large():
    sample = Sample(most=8)
    for number in range(1000):
        sample.add(np.array(number))
    assert len(sample.pictures) <= 8 and np.all(np.diff(sample.pictures) == 128)


def test_the_largest_part_without_boxes_is_cropped():
    assert largest_without(WHOLE, []) == WHOLE
    assert largest_without(WHOLE, [Box(0.0, 0.8, 1.0, 0.9)]) == Box(0.0, 0.0, 1.0, 0.8)
    assert largest_without(WHOLE, [Box(0.8, 0.0, 0.9, 0.1), Box(0.1, 0.9, 0.9, 0.95)]) == Box(0.0, 0.1, 1.0, 0.9)
    assert largest_without(Box(0.0, 0.1, 1.0, 0.9), [WHOLE]).area == 0


@pytest.mark.parametrize("seed", range(20))
def test_no_larger_rectangle_is_free(seed):
    draw = np.random.default_rng(seed)
    grid, boxes = np.zeros((20, 20), bool), list[Box]()
    for _ in range(4):
        left, top = draw.integers(0, 16, 2).tolist()
        right, bottom = left + int(draw.integers(1, 5)), top + int(draw.integers(1, 5))
        grid[top:bottom, left:right] = True
        boxes.append(Box(left / 20, top / 20, right / 20, bottom / 20))
    best = max(
        (bottom - top) * (right - left)
        for top in range(20)
        for bottom in range(top + 1, 21)
        for left in range(20)
        for right in range(left + 1, 21)
        if not grid[top:bottom, left:right].any()
    )
    assert round(largest_without(WHOLE, boxes).area * 400) == best


def test_pixels_of_a_box_are_even_and_inside_it():
    assert WHOLE.pixels(101, 64) == (0, 0, 100, 64)
    assert Box(0.1, 0.25, 0.9, 0.75).pixels(100, 100) == (26, 10, 48, 80)
