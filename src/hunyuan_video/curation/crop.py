"""Which part of the picture stays: the largest rectangle without what does not belong there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

MOST = 12  # boxes of which all rectangles between them are tried; of more, the largest


class Box(NamedTuple):
    """A rectangle, as shares of the picture's width and height."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        return max(0.0, self.right - self.left) * max(0.0, self.bottom - self.top)

    def inside(self) -> Box:
        """What of it is in the picture."""
        return Box(*(min(1.0, max(0.0, float(side))) for side in self))

    def overlaps(self, other: Box) -> bool:
        return self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom

    def within(self, frame: Box) -> Box:
        """The same place, as shares of a `frame` of the picture."""
        width, height = frame.right - frame.left, frame.bottom - frame.top
        shares = ((self.left - frame.left) / width, (self.top - frame.top) / height)
        return Box(*shares, (self.right - frame.left) / width, (self.bottom - frame.top) / height).inside()

    def of(self, frame: Box) -> Box:
        """Of shares of a `frame`, those of the picture."""
        width, height = frame.right - frame.left, frame.bottom - frame.top
        corner = (frame.left + self.left * width, frame.top + self.top * height)
        return Box(*corner, frame.left + self.right * width, frame.top + self.bottom * height)

    def pixels(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, height and width in whole pixels inside it, even as codecs need them."""
        left, top = (-(-int(share * size * 1000) // 2000) * 2 for share, size in ((self.left, width), (self.top, height)))
        right, bottom = (int(share * size + 1e-3) // 2 * 2 for share, size in ((self.right, width), (self.bottom, height)))
        return top, left, bottom - top, right - left


WHOLE = Box(0.0, 0.0, 1.0, 1.0)


def largest_without(frame: Box, boxes: Sequence[Box]) -> Box:
    """The largest rectangle of a frame that none of the boxes overlaps; one without an area, if they leave none."""
    boxes = sorted((box for box in boxes if box.overlaps(frame)), key=lambda box: -box.area)[:MOST]
    across = sorted(
        {frame.left, frame.right, *(side for box in boxes for side in (box.left, box.right) if frame.left < side < frame.right)}
    )
    best = Box(frame.left, frame.top, frame.left, frame.top)
    for left, right in itertools.combinations(across, 2):
        between = sorted((box for box in boxes if box.left < right and left < box.right), key=lambda box: box.top)
        top = frame.top
        for box in (*between, Box(left, frame.bottom, right, frame.bottom)):
            free = Box(left, top, right, min(box.top, frame.bottom))
            if free.bottom > free.top and free.area > best.area:
                best = free
            top = max(top, box.bottom)
    return best
