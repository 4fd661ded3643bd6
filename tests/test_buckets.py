"""Sizes by a picture's shape: the reference's list, and its picks."""

from __future__ import annotations

import json

import pytest
from conftest import DATA

from hunyuan_video.buckets import BASE, Resolution, size_for, sizes
from hunyuan_video.cli import Generate
from hunyuan_video.config import Sampling

REFERENCE = json.loads((DATA / "golden" / "i2v_buckets.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("resolution", BASE)
def test_sizes_are_those_of_the_reference(resolution: Resolution):
    assert [list(size) for size in sizes(resolution)] == REFERENCE[resolution]["buckets_height_width"]


@pytest.mark.parametrize("resolution", BASE)
def test_pictures_get_the_sizes_that_the_reference_picks(resolution: Resolution):
    for name, picked in REFERENCE[resolution]["cases"].items():
        width, height = map(int, name.split()[0].split("x"))
        assert size_for(height, width, resolution) == (picked["target_height"], picked["target_width"]), name


@pytest.mark.parametrize(("picture", "size"), [((100, 1000), (480, 1920)), ((1000, 100), (1920, 480))])
def test_a_picture_longer_than_every_size_gets_the_longest(picture, size):
    assert size_for(*picture, "720p") == size


def test_a_resolution_needs_a_picture_and_no_size():
    with pytest.raises(ValueError, match="resolution is 360p, which follows the shape of a picture, but there is none; give one"):
        Generate("a cat", resolution="360p").check()


def test_a_resolution_and_a_size_are_two_answers(tmp_path):
    from PIL import Image

    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="leave these out, or resolution"):
        Generate("a cat", image=tmp_path / "a.png", resolution="360p", sampling=Sampling(height=64)).check()
