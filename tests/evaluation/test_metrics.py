"""PSNR and SSIM are the known ones; what is no video is not sound, however it came about."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hunyuan_video.evaluation.metrics import BROKEN, psnr, soundness, ssim
from hunyuan_video.miniature import drawing, world


def grey(pixels: np.ndarray) -> np.ndarray:
    """One frame of the same red, green and blue."""
    return np.broadcast_to(pixels.astype(np.uint8)[None, :, :, None], (1, *pixels.shape, 3)).copy()


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return drawing.render(world.Scene("car", "right", "city", "", 0), 64, 64, 9)


def test_psnr():
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    assert psnr(frames, frames) == math.inf
    assert psnr(frames, frames + np.uint8(255)) == pytest.approx(0.0)


@pytest.mark.parametrize("metric", [psnr, ssim, soundness])
def test_clips_of_another_shape_are_refused(metric):
    with pytest.raises(ValueError, match="one shape"):
        metric(np.zeros((2, 16, 16, 3), np.uint8), np.zeros((1, 16, 16, 3), np.uint8))


def test_ssim_is_that_of_scikit_image():
    """structural_similarity(data_range=255, gaussian_weights=True, use_sample_covariance=False, sigma=1.5) of scikit-image 0.26."""
    y, x = np.mgrid[:24, :32]
    one, other = (x * 7 + y * 5) % 256, (x * 7 + y * 5 + x * y % 31) % 256
    assert ssim(grey(one), grey(other)) == pytest.approx(0.6247052349549265, abs=1e-9)


def test_ssim_of_blank_frames_is_that_of_their_light():
    light = (0.01 * 255) ** 2
    blank = [grey(np.full((16, 16), level)) for level in (100, 120)]
    assert ssim(*blank) == pytest.approx((2 * 100 * 120 + light) / (100**2 + 120**2 + light))
    assert ssim(blank[0], blank[0]) == pytest.approx(1)


def test_ssim_weighs_colours_as_eyes_do():
    green, blue = (np.zeros((1, 16, 16, 3), np.uint8) for _ in range(2))
    green[..., 1], blue[..., 2] = 60, 60
    black = np.zeros_like(green)
    assert ssim(green, black) < ssim(blue, black) < 1


def test_frames_smaller_than_a_window_are_refused():
    small = np.zeros((1, 10, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="windows of 11x11"):
        ssim(small, small)


STRIPES = np.broadcast_to(np.arange(64) // 8 % 2 * 255, (64, 64))
NO_VIDEOS = {
    "black": lambda clip: np.zeros_like(clip),
    "white": lambda clip: np.full_like(clip, 255),
    "of the mean colour": lambda clip: np.broadcast_to(clip.mean(axis=(0, 1, 2)), clip.shape).astype(np.uint8),
    "noise": lambda clip: np.random.default_rng(0).integers(0, 256, clip.shape, np.uint8),
    "noise of the same brightness": lambda clip: (
        np.random.default_rng(0).normal(clip.mean(), clip.std(), clip.shape).clip(0, 255).astype(np.uint8)
    ),
    "under noise": lambda clip: (clip + np.random.default_rng(0).normal(0, 40, clip.shape)).clip(0, 255).astype(np.uint8),
    "stripes": lambda clip: np.repeat(grey(STRIPES), len(clip), axis=0),
    "stripes across": lambda clip: np.repeat(grey(STRIPES.T), len(clip), axis=0),
    "frozen": lambda clip: np.repeat(clip[:1], len(clip), axis=0),
    "black in one frame": lambda clip: np.concatenate([clip[:4], np.zeros_like(clip[:1]), clip[5:]]),
}


@pytest.mark.parametrize("what", NO_VIDEOS)
def test_what_is_no_video_is_not_sound(clip, what):
    assert soundness(NO_VIDEOS[what](clip), clip) < BROKEN


@pytest.mark.parametrize("what", ["black", "noise", "stripes", "black in one frame"])
def test_nor_beside_a_clip_that_is_dark_and_calm(clip, what):
    dark = np.repeat(clip[:1] // 4, len(clip), axis=0)
    assert soundness(NO_VIDEOS[what](dark), dark) < BROKEN


@pytest.mark.parametrize(
    "another",
    [
        lambda clip: clip,
        lambda clip: np.roll(clip, 3, axis=2),
        lambda clip: clip[:, :, ::-1],
        lambda clip: (clip * 0.85).astype(np.uint8),
        lambda clip: (clip + np.random.default_rng(0).normal(0, 2, clip.shape)).clip(0, 255).astype(np.uint8),
        lambda clip: np.concatenate([clip[1:], clip[-1:]]),
    ],
    ids=["the same", "elsewhere", "mirrored", "darker", "a little grain", "a frame earlier"],
)
def test_another_draw_of_the_same_scene_is_sound(clip, another):
    assert soundness(another(clip), clip) > BROKEN


def test_a_picture_need_not_move(clip):
    assert soundness(clip[:1], clip[:1]) == 1
