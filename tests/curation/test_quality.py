"""Each measure of a picture tells the fault that it is for."""

from __future__ import annotations

import curation_footage as footage
import numpy as np
import pytest

from hunyuan_video.curation.quality import brisque, quality


@pytest.fixture(scope="module")
def good() -> np.ndarray:
    return footage.filmed(1, 3, "pan-left", height=200, width=320)


def spoiled(good, spoil) -> dict[str, float]:
    return quality(spoil(good, np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("spoil", "measure", "good_enough", "bad"),
    [
        (footage.blurred, "blur", 0.5, 0.75),
        (footage.dark, "dark", 0.2, 0.7),
        (footage.overexposed, "bright", 0.2, 0.5),
        (footage.blocky, "blocks", 1.4, 2.5),
    ],
)
def test_a_fault_is_far_beyond_the_threshold_and_a_good_picture_far_below(good, spoil, measure, good_enough, bad):
    assert quality(good)[measure] < good_enough and spoiled(good, spoil)[measure] > bad


def test_a_flat_picture_has_little_contrast(good):
    assert spoiled(good, footage.flat)["contrast"] < 12 < 25 < quality(good)["contrast"]


def test_a_grid_of_blocks_is_found_wherever_it_lies(good):
    blocks = footage.blocky(good, np.random.default_rng(0))
    assert quality(blocks[:, 3:, 5:])["blocks"] > 2.5


@pytest.fixture
def of_naturalness() -> None:
    pytest.importorskip("brisque", reason="the extra brisque is not installed", exc_type=ImportError)


def test_brisque_calls_noise_worse_than_a_good_picture(good, of_naturalness):
    noise = np.random.default_rng(0).normal(0, 40, good[0].shape)
    assert brisque(good[0]) + 20 < brisque(np.clip(good[0] + noise, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("right", [128, 0])
def test_a_picture_of_nothing_on_a_side_is_the_worst(right, of_naturalness):
    picture = np.full((64, 64, 3), 128, np.uint8)
    picture[:, 32:] = right
    assert brisque(picture) == 100.0
