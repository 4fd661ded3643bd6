"""Whether a clip is a video at all. Scores by CLIP and most others cannot tell a black frame or noise from a healthy picture, so nothing
counts for a clip in which a fault is found.

What it cannot see: noise that changes slowly, and a picture that is merely wrong.

Letters: T frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from hunyuan_video.motion.brightness import grey

Frames = UInt8[np.ndarray, "T H W 3"]
Fault = Literal["black", "blank", "stripes", "noise", "frozen", "flashing"]

SHARE = 0.5  # of the frames, in which a fault makes a faulty clip
DARK = 24  # levels of 255, which in a black frame 99 of 100 pixels are below
FLAT = 3.0  # standard deviation in levels, of a frame that shows nothing, or of its rows or columns
KIN = 0.4  # correlation of a pixel with its neighbour: noise has none, the finest texture 0.6
STILL, STILL_PAIRS = 0.1, 0.9  # mean difference in levels of a frame from the one before, and the share of such frames
LIKE = 0.5  # correlation of a frame with the one before, at the best of small shifts: what a camera films keeps 0.8
AFAR, REACH = 32, 4  # pixels of a side that frames are shrunk to for that, and how far they are shifted


def faults(frames: Frames) -> tuple[Fault, ...]:
    """All that is found, nothing in a sound clip. A single frame is frozen."""
    found: list[Fault] = []
    light = [grey(frame) for frame in frames]
    if _often([np.quantile(frame, 0.99) < DARK for frame in light]):
        found.append("black")
    elif _often([frame.std() < FLAT for frame in light]):
        found.append("blank")
    elif _often([min(frame.std(axis=0).mean(), frame.std(axis=1).mean()) < FLAT for frame in light]):
        found.append("stripes")
    elif np.median([kinship(frame) for frame in light]) < KIN:
        found.append("noise")
    if _often([np.abs(two.astype(np.int16) - one).mean() < STILL for one, two in pairwise(light)] or [True], STILL_PAIRS):
        found.append("frozen")
    elif not found and np.median([_likeness(one, two) for one, two in pairwise(light)]) < LIKE:
        found.append("flashing")
    return tuple(found)


def kinship(frame: UInt8[np.ndarray, "H W"]) -> float:
    """Correlation of pixels with their neighbours to the right and below, the smaller one."""
    x = frame.astype(np.float64)
    return min(_correlation(x[:, 1:], x[:, :-1]), _correlation(x[1:], x[:-1]))


def _likeness(one: UInt8[np.ndarray, "H W"], two: UInt8[np.ndarray, "H W"]) -> float:
    """Correlation from afar of the middle of a frame with where it is found best in the other one."""
    one, two = (cv2.resize(frame, (AFAR, AFAR), interpolation=cv2.INTER_AREA) for frame in (one, two))
    return float(cv2.matchTemplate(one, two[REACH:-REACH, REACH:-REACH], cv2.TM_CCOEFF_NORMED).max())


def _correlation(one: Float[np.ndarray, "_ _"], two: Float[np.ndarray, "_ _"]) -> float:
    one, two = one - one.mean(), two - two.mean()
    return float((one * two).mean() / max(one.std() * two.std(), 1e-9))


def _often(found: Sequence[bool | np.bool_], share: float = SHARE) -> bool:
    return bool(sum(found) >= share * len(found))
