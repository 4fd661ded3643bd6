"""Sizes that the official image-to-video model gives its videos, by the shape of their picture. Imports no torch.

A size has about as many pixels as a square of so many, its sides are multiples of 32, and none is more than four times the other.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Literal

from hunyuan_video.config import Sampling, require
from hunyuan_video.request import Picture

Resolution = Literal["720p", "540p", "360p"]
BASE: dict[Resolution, int] = {"720p": 960, "540p": 720, "360p": 480}  # pixels of the square's side
STRIDE, MOST_APART = 32, 4


@cache
def sizes(resolution: Resolution) -> list[tuple[int, int]]:
    """Heights and widths, from the tallest to the widest."""
    squares = round((BASE[resolution] / STRIDE) ** 2)
    found, tall, wide = [], squares, 1
    while tall > 0:
        if max(tall, wide) <= MOST_APART * min(tall, wide):
            found.append((STRIDE * tall, STRIDE * wide))
        if tall * (wide + 1) <= squares:
            wide += 1
        else:
            tall -= 1
    return found


def size_for(height: int, width: int, resolution: Resolution) -> tuple[int, int]:
    """The height and width of a video that begins with a picture of this size: of those that are no longer than the picture, the nearest.
    (A picture that is longer than all is cut, and so is whatever is longer than its video.)"""
    ratio = height / width

    def apart(size: tuple[int, int]) -> tuple[bool, float]:
        own = round(size[0] / size[1], 5)
        return not (own <= ratio if ratio >= 1 else own > ratio), abs(own - ratio)

    return min(sizes(resolution), key=apart)


def sized(sampling: Sampling, picture: Picture | None, resolution: Resolution) -> Sampling:
    """With the size that a picture's shape has there. Raises a ValueError if there is none, or a size is given."""
    require(picture is not None, f"resolution is {resolution}, which follows the shape of a picture, but there is none; give one.")
    require(
        sampling.height is None and sampling.width is None,
        f"resolution is {resolution}, which says the height and width by the picture's shape; leave these out, or resolution.",
    )
    assert picture is not None
    height, width, _ = picture.pixels.shape
    height, width = size_for(height, width, resolution)
    return replace(sampling, height=height, width=width)
