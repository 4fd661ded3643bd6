"""How the camera moves in a clip, in the 14 classes that HunyuanVideo's captions know, by geometry alone.

Points are tracked from frame to frame, and the motion that most of them share is fitted (Longuet-Higgins and Prazdny, 1980)::

    u = a0 + a1 x + a2 y + p x² + q x y
    v = a3 + a4 x + a5 y + p x y + q y²

A camera that turns shifts all points alike, whatever their distance, and bends the field: p / a0 is one over the square of the focal
length. One that moves along shifts what is near farther than what is far, and bends nothing. Hence what can be told apart, and what not:

* zoom, left, right, up, down, static, handheld: wherever there is texture. A zoom of the lens and a move forwards are one class.
* `tilt` (the camera turns) and `pan` (it moves along): by the bend, if the view is wider than about 35 degrees and the shift a few
  hundredths of the picture. Without bend and without parallax it is a move along a wall, or a turn of a long lens: confidence 0.5 at most.
* `around` (it moves along and turns back to what is in the middle): bend and parallax together. Around a wall it looks like a turn.

Film-makers call a turn to the side a pan; who compares with words should compare `direction`.

Letters: T frames, H height, W width, N points. Lengths are in widths of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import erf
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from hunyuan_video.motion.brightness import grey
from hunyuan_video.pictures import evenly

Frames = UInt8[np.ndarray, "T H W 3"]
Label = Literal[
    "zoom-in", "zoom-out",
    "pan-left", "pan-right", "pan-up", "pan-down",
    "tilt-left", "tilt-right", "tilt-up", "tilt-down",
    "around-left", "around-right",
    "static", "handheld",
]  # fmt: skip
Direction = Literal["left", "right", "up", "down", "in", "out"]

LONG_SIDE = 256  # pixels, at which points are tracked
MOST_PAIRS = 32  # of frames, spread over the clip
FEWEST_POINTS = 12
STILL = 0.012  # a shorter path is none
RADIUS = 0.33  # mean distance of a point from the middle of a wide picture: what a zoom shifts it by, times the zoom
STEADY = 0.4  # of the path's length is what is left when it comes back; below it, the camera shakes
SURELY = 3.0  # standard deviations
TURNS = 0.3  # the bend beside the shift: below it the camera moves along; a lens of 57 degrees or 0.9 has 1.2


@dataclass(frozen=True)
class Measured:
    """What the picture does over a clip."""

    shift: tuple[float, float] = (0.0, 0.0)
    """to the right and down"""
    zoom: float = 0.0
    """natural logarithm of how much larger things become"""
    roll: float = 0.0
    """clockwise, in radians"""
    bend: tuple[float, float] = (0.0, 0.0)
    """what a turn to the side and down shifts, for a focal length of 1"""
    noise: tuple[float, float] = (0.0, 0.0)
    """of the bend: one standard deviation"""
    parallax: tuple[float, float] = (0.0, 0.0)
    """how differently points shift, to the side and down"""
    path: float = 0.0
    """length of the way with all its turns"""


@dataclass(frozen=True)
class CameraMotion:
    label: Label
    confidence: float
    """0 to 1"""
    direction: Direction | None
    """where the camera goes, turned or moved"""
    measured: Measured


@dataclass(frozen=True)
class _Step:
    """Motion between two frames."""

    affine: Float[np.ndarray, " 6"]
    """a0 to a5"""
    bend: Float[np.ndarray, " 2"]
    """p and q"""
    spread: Float[np.ndarray, " 2"]
    """how much points differ from what is fitted, to the side and down: from the tenth to the ninetieth of a hundred"""
    cover: float
    """1 where half of the picture has points, less where fewer sixteenths of it have: what moves in one corner is no camera"""


def camera_motion(frames: Frames) -> CameraMotion:
    """Of a clip of one shot; `static` with no confidence where nothing can be tracked."""
    light = [_grey(frames[number]) for number in evenly(len(frames), MOST_PAIRS + 1)]
    steps = [step for one, two in pairwise(light) if (step := _step(one, two)) is not None]
    if not steps:
        return CameraMotion("static", 0.0, None, Measured())
    measured = _sum(steps)
    label, confidence, direction = _named(measured)
    seen = sum(step.cover for step in steps) / (len(light) - 1)
    return CameraMotion(label, confidence * seen, direction, measured)


def _sum(steps: list[_Step]) -> Measured:
    each, bends = (np.stack(part) for part in ([step.affine for step in steps], [step.bend for step in steps]))
    noise = np.std(np.diff(bends, axis=0), axis=0) * (len(steps) / 2) ** 0.5 if len(steps) > 1 else np.full(2, np.inf)
    total = each.sum(axis=0)
    return Measured(
        shift=_pair(total[[0, 3]]),
        zoom=_zoom(total),
        roll=_roll(total),
        bend=_pair(bends.sum(axis=0)),
        noise=_pair(noise),
        parallax=_pair(np.sum([step.spread for step in steps], axis=0)),
        path=float(sum(np.hypot(one[0], one[3]) + RADIUS * (abs(_zoom(one)) + abs(_roll(one))) for one in each)),
    )


def _named(seen: Measured) -> tuple[Label, float, Direction | None]:
    """By what shifts most; with a confidence."""
    (right, down), around = seen.shift, min(abs(seen.bend[0]), seen.parallax[0])
    ways = {"zoom": RADIUS * abs(seen.zoom), "side": abs(right), "height": abs(down), "roll": RADIUS * abs(seen.roll)}
    ways["around"] = around if around > STILL and abs(seen.bend[0]) > SURELY * seen.noise[0] else 0.0
    way = max(ways, key=lambda name: ways[name])
    net, share = ways[way], ways[way] / (sum(ways.values()) + STILL)
    if way == "around":  # the picture may hardly shift, all in all
        return ("around-right", share, "right") if seen.bend[0] > 0 else ("around-left", share, "left")
    if seen.path < 2 * STILL:
        return "static", 1 - seen.path / (2 * STILL), None
    if net < STEADY * seen.path:
        return "handheld", (1 - net / (STEADY * seen.path)) * min(1.0, seen.path / (4 * STILL)), None
    if way == "zoom":
        return ("zoom-in", share, "in") if seen.zoom > 0 else ("zoom-out", share, "out")
    if way == "roll":  # which has no class
        return "handheld", 0.0, None
    turns, sure = _turns(seen, axis=0 if way == "side" else 1)
    if way == "side":
        if right < 0:
            return ("tilt-right" if turns else "pan-right"), share * sure, "right"
        return ("tilt-left" if turns else "pan-left"), share * sure, "left"
    if down < 0:
        return ("tilt-down" if turns else "pan-down"), share * sure, "down"
    return ("tilt-up" if turns else "pan-up"), share * sure, "up"


def _turns(seen: Measured, axis: int) -> tuple[bool, float]:
    """Whether a camera turns that shifts the picture so, and how sure that is: 0.5 is a guess."""
    shift = abs(seen.shift[axis])
    turn = seen.bend[axis] / seen.shift[axis]
    sure = 0.5 + 0.5 * erf(abs(turn - TURNS) / (seen.noise[axis] / shift + 0.1) / 2**0.5)
    if turn > TURNS:
        return True, sure
    return False, sure if seen.parallax[axis] > 0.15 * shift else 0.5


def _zoom(affine: Float[np.ndarray, " 6"]) -> float:
    return _both(affine[1], affine[5])


def _roll(affine: Float[np.ndarray, " 6"]) -> float:
    return _both(affine[4], -affine[2])


def _both(one: float, other: float) -> float:
    """What two measures of the same have in common: distances falsify one of them, when a camera moves along."""
    return float(min(one, other, key=abs)) if one * other > 0 else 0.0


def _pair(values: Float[np.ndarray, " 2"]) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _grey(frame: UInt8[np.ndarray, "_ _ 3"]) -> UInt8[np.ndarray, "_ _"]:
    return grey(frame, LONG_SIDE / max(frame.shape[:2]))


def _step(one: UInt8[np.ndarray, "H W"], two: UInt8[np.ndarray, "H W"]) -> _Step | None:
    points = cv2.goodFeaturesToTrack(one, maxCorners=300, qualityLevel=0.01, minDistance=6)
    if points is None or len(points) < FEWEST_POINTS:
        return None
    # OpenCV's declarations say that the place to write to must be given.
    there, found, _ = cv2.calcOpticalFlowPyrLK(one, two, points, None)  # pyright: ignore[reportCallIssue, reportArgumentType]
    back, again, _ = cv2.calcOpticalFlowPyrLK(two, one, there, None)  # pyright: ignore[reportCallIssue, reportArgumentType]
    sure = (found & again).ravel().astype(bool) & (np.linalg.norm(back - points, axis=-1).ravel() < 0.5)
    if sure.sum() < FEWEST_POINTS:
        return None
    height, width = one.shape
    middle = np.array([width, height]) / 2
    before, after = (p.reshape(-1, 2)[sure].astype(np.float64) for p in (points, there))
    return _fit((before - middle) / width, (after - before) / width)


def _fit(at: Float[np.ndarray, "N 2"], moved: Float[np.ndarray, "N 2"]) -> _Step:
    """What most points agree on. Each bend is fitted where distances do not count: moving to the side shifts no point up or down."""
    x, y = at.T
    one = np.ones_like(x)
    u, v = moved.T
    across, over_x = _agreed(np.stack([one, x, y, x * y, x * x], 1), u)
    down, over_y = _agreed(np.stack([one, x, y, x * y, y * y], 1), v)
    spread = np.array([np.quantile(left, 0.9) - np.quantile(left, 0.1) for left in (over_x, over_y)])
    cells = {(int(column), int(row)) for column, row in np.floor((at + 0.5) * 4)}
    return _Step(np.concatenate([across[:3], down[:3]]), np.array([down[3], across[3]]), spread, min(1.0, len(cells) / 8))


def _agreed(rows: Float[np.ndarray, "N K"], values: Float[np.ndarray, " N"]) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " N"]]:
    """Least squares with Tukey's weights, from the median on; and what is left of the values."""
    found = np.zeros(rows.shape[1])
    found[0] = np.median(values)
    for _ in range(8):
        left = values - rows @ found
        reach = 4.7 * max(1.48 * float(np.median(np.abs(left))), 0.1 / LONG_SIDE)
        weights = np.clip(1 - (left / reach) ** 2, 0, None)
        found = np.linalg.lstsq(rows * weights[:, None], values * weights, rcond=None)[0]
    return found, values - rows @ found
