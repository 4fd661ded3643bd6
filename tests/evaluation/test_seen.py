"""What is measured of clips whose looks are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from media_files import at, numbers, write_video
from rendered_cameras import film, path

from hunyuan_video.evaluation import pixels, seen
from hunyuan_video.evaluation.seen import Film, flicker, read, see
from hunyuan_video.motion.brightness import grey
from hunyuan_video.motion.flow import is_dynamic, moved

SCENE = film(path("pan-right", 4, 5), 4, flat=True)
GREY = grey(SCENE[0])


def test_a_clip_is_read_with_its_own_frames_and_rate(tmp_path):
    film_of = read(write_video(tmp_path / "clip.mp4", at(10, 7)))
    assert len(film_of.frames) == 7 and film_of.fps == pytest.approx(10)


def test_of_a_clip_with_very_many_frames_the_first_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(seen, "MOST_FRAMES", 4)
    film_of = read(write_video(tmp_path / "clip.mp4", at(10, 7)))
    assert numbers(film_of.frames) == [0, 1, 2, 3] and film_of.fps == pytest.approx(10)


@pytest.mark.parametrize("number", [1, 3])
def test_frames_that_all_have_one_time_have_our_rate(tmp_path, monkeypatch, number):
    path_of = write_video(tmp_path / "clip.mp4", at(10, number))
    monkeypatch.setattr(seen, "look", lambda *given: (np.zeros(number), 48, 64))
    assert read(path_of).fps == 24


def test_flicker_is_vbenchs():
    frames = np.stack([np.full((4, 4, 3), level, np.uint8) for level in (10, 61, 10)])
    assert flicker(frames) == pytest.approx((255 - 51) / 255)


def test_blur_is_less_sharp():
    assert pixels.sharpness(cv2.GaussianBlur(GREY, (0, 0), 2)) < pixels.sharpness(GREY) / 2


def test_blocks_are_seen_where_codecs_have_them_and_nowhere_else():
    small = cv2.resize(GREY, (32, 18), interpolation=cv2.INTER_AREA)
    blocks = cv2.resize(small, (256, 144), interpolation=cv2.INTER_NEAREST)
    assert pixels.blockiness(blocks) > 5 and pixels.blockiness(GREY) < 1.2
    assert pixels.blockiness(np.roll(blocks, 3, axis=(0, 1))) < 1.2


def test_a_gradient_in_few_levels_is_banded_and_a_fine_one_is_not():
    fine = np.broadcast_to(np.linspace(40, 120, 256), (64, 256))
    assert pixels.banding((np.round(fine / 8) * 8).astype(np.uint8)) > 20
    assert pixels.banding(fine.astype(np.uint8)) == 0


@pytest.mark.parametrize(
    ("name", "rgb"),
    [
        ("red", (200, 30, 30)), ("orange", (240, 130, 20)), ("yellow", (240, 220, 40)), ("green", (40, 160, 60)), ("blue", (40, 80, 200)),
        ("purple", (130, 50, 180)), ("pink", (250, 150, 190)), ("brown", (110, 65, 30)), ("black", (9, 9, 9)),
        ("white", (245, 245, 240)), ("grey", (120, 122, 121)),
    ],
)  # fmt: skip
def test_a_colour_has_its_name(name, rgb):
    assert pixels.colour_share(np.full((4, 4, 3), rgb, np.uint8), name) == 1


def test_a_colour_that_was_asked_for_is_there_or_not():
    frames = np.repeat(SCENE.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)
    frames[:, 10:40, 10:60] = (210, 20, 30)
    assert see(Film(frames, 24.0), ("colour:red", "colour:green")).asked == {"colour:red": True, "colour:green": False}


def test_a_movement_of_the_camera_that_was_asked_for_is_there_or_not():
    film_of = Film(SCENE, 24.0)
    assert see(film_of, ("camera:right",)).asked == {"camera:right": True}
    assert see(film_of, ("camera:in",)).asked == {"camera:in": False}
    assert see(film_of, ("camera:right", "camera:up")).asked == {}  # one after the other


def test_black_and_white_is_known():
    grey = np.repeat(SCENE.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)
    assert [see(Film(frames, 24.0), ("style:black-and-white",)).asked["style:black-and-white"] for frames in (grey, SCENE)] == [True, False]


def test_speed_is_in_short_sides_a_second():
    shifted = np.stack([np.roll(SCENE[0], 6 * step, axis=1) for step in range(4)])
    assert moved(shifted, 10.0).speed == pytest.approx(10 * 6 / 144, rel=0.1)


def test_frames_in_the_wrong_order_are_not_explained_by_flow():
    cameras = film(path("tilt-right", 2, 8), 2)
    assert moved(cameras[[0, 4, 1, 5, 2, 6, 3, 7]], 24.0).warp_error > 1.2 * moved(cameras, 24.0).warp_error


@pytest.mark.parametrize(("length", "fps", "moves"), [(6.5, 8.0, True), (5.5, 8.0, False), (11.5, 4.0, False), (12.5, 4.0, True)])
def test_dynamic_degree_is_vbenchs_rule(length, fps, moves):
    pictures = [np.zeros((256, 300, 3), np.uint8)] * 9

    def flow(one, two):
        found = np.zeros((256, 300, 2), np.float32)
        found[:16, :, 0] = length  # a sixteenth of the pixels, of which the fastest twentieth counts
        return found

    assert is_dynamic(pictures, fps, flow) is moves


def test_dynamic_degree_looks_eight_times_a_second():
    looked = []

    def flow(one, two):
        looked.append((one, two))
        return np.zeros((2, 2, 2), np.float32)

    is_dynamic([np.full((2, 2), number) for number in range(10)], 24.0, flow)
    assert [(int(one[0, 0]), int(two[0, 0])) for one, two in looked] == [(0, 3), (3, 6), (6, 9)]
