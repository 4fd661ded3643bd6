"""What single frames are like, without any model: sharp, banded, in blocks, and which colours are in them.

Letters: H height, W width.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

Frame = UInt8[np.ndarray, "H W 3"]
Grey = UInt8[np.ndarray, "H W"]

BLOCK = 8  # pixels, of codecs
STEP = (3, 16)  # levels of an edge that is a band's and no object's
RUN = 3  # pixels beside it that are flat


def sharpness(frame: Grey) -> float:
    """Variance of the Laplacian, in squared levels: less in a blurred frame of the same content and size."""
    return float(cv2.Laplacian(frame, cv2.CV_64F).var())


def blockiness(frame: Grey) -> float:
    """How much larger steps are at the borders of blocks of 8 pixels than elsewhere, down or to the side: 1 where there are no blocks."""
    return max(_at_borders(frame), _at_borders(frame.T))


def _at_borders(frame: np.ndarray) -> float:
    steps = np.abs(np.diff(frame.astype(np.int16), axis=1)).mean(axis=0)
    border = np.arange(1, len(steps) + 1) % BLOCK == 0
    if not border.any():
        return 1.0
    return float((steps[border].mean() + 0.1) / (steps[~border].mean() + 0.1))  # a tenth of a level is nothing


def banding(frame: Grey) -> float:
    """How many of a thousand pixels are at a small step between flat parts, along rows or columns: a gradient in too few levels."""
    return 1000 * max(_bands(frame), _bands(frame.T))


def _bands(frame: np.ndarray) -> float:
    steps = np.abs(np.diff(frame.astype(np.int16), axis=1))
    flat = steps <= 1
    width = steps.shape[1] - 2 * RUN
    if width < 1:
        return 0.0
    around = [flat[:, at : at + width] for at in range(2 * RUN + 1) if at != RUN]
    edge = steps[:, RUN : RUN + width]
    return float(((edge >= STEP[0]) & (edge <= STEP[1]) & np.logical_and.reduce(around)).mean())


def colour_share(frame: Frame, colour: str) -> float:
    """How much of a frame people would call so. Raises a KeyError for a colour that has no rule."""
    hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV_FULL)
    hue, saturation, value = hsv[..., 0] * (360 / 255), hsv[..., 1] / 255, hsv[..., 2] / 255
    return float(_is(colour, hue, saturation, value).mean())


def _is(colour: str, hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> Bool[np.ndarray, "H W"]:
    plain = saturation < 0.15
    vivid = (saturation > 0.3) & (value > 0.2)
    rules = {
        "black": value < 0.2,
        "white": plain & (value > 0.8),
        "grey": plain & (value >= 0.2) & (value <= 0.8),
        "red": vivid & ((hue < 15) | (hue > 345)),
        "orange": vivid & (hue >= 15) & (hue < 42) & (value > 0.6),
        "brown": vivid & (hue >= 10) & (hue < 45) & (value <= 0.65),
        "yellow": vivid & (hue >= 42) & (hue < 70),
        "green": vivid & (hue >= 70) & (hue < 170),
        "blue": vivid & (hue >= 170) & (hue < 260),
        "purple": vivid & (hue >= 255) & (hue < 310),
        "pink": (saturation > 0.15) & (value > 0.6) & ((hue >= 295) | ((hue < 15) & (saturation < 0.6))),
    }
    return rules[colour]


def chroma(frame: Frame) -> float:
    """Mean distance, in levels, of a pixel's strongest from its weakest primary: 0 in black and white."""
    return float((frame.max(axis=-1).astype(np.int16) - frame.min(axis=-1)).mean())
