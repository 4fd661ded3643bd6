"""How every pixel moves between two frames, by OpenCV's DIS (Kroeger et al., 2016), and what a clip's flow says.

It is seen at a short side of 256 pixels, whatever the clip's: so lengths are comparable, and VBench's threshold is 6.

Letters: T frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from hunyuan_video.motion.brightness import grey

Frames = UInt8[np.ndarray, "T H W 3"]
Flow = Float[np.ndarray, "H W 2"]
Grey = UInt8[np.ndarray, "H W"]

SHORT_SIDE = 256
RATE = 8  # frames a second at which VBench looks at how much moves
FASTEST = 0.05  # of all pixels: those that count
MOVES = 6.0  # pixels between two looks, at a short side of 256


@dataclass(frozen=True)
class Moved:
    speed: float
    """mean length of the flow a second, in short sides of the picture"""
    warp_error: float
    """mean difference, in levels of 255, of frames from those before them moved along: what flow does not explain"""
    dynamic: bool
    """VBench's rule of dynamic degree, by this flow instead of RAFT's"""


def moved(frames: Frames, fps: float) -> Moved:
    """Of a clip of two frames or more."""
    light = [_grey(frame) for frame in frames]
    lengths, errors = [], []
    for one, two in pairwise(light):
        each = flow(one, two)
        lengths.append(np.linalg.norm(each, axis=-1).mean())
        errors.append(_warp_error(one, two, each))
    speed = float(np.mean(lengths)) * fps / min(light[0].shape)
    return Moved(speed, float(np.mean(errors)), is_dynamic(light, fps, flow))


def flow(one: Grey, two: UInt8[np.ndarray, "H W"]) -> Flow:
    """Where each pixel of the first frame is in the second, less where it was: to the right and down."""
    return _dis().calc(one, two, None)  # pyright: ignore[reportCallIssue, reportArgumentType] (None: a new array)


def is_dynamic(pictures: Sequence[np.ndarray], fps: float, flow_of: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> bool:
    """VBench's dynamic degree: whether in a quarter of the looks, 8 a second, the fastest twentieth of the pixels moves 6 pixels at a short
    side of 256 (vbench/dynamic_degree.py). `flow_of` two pictures is [H, W, 2], in their pixels."""
    looks = pictures[:: max(1, round(fps / RATE))]
    threshold = max(1.0, RATE / fps) * MOVES * min(looks[0].shape[:2]) / 256
    lengths = [_fastest(flow_of(one, two)) for one, two in pairwise(looks)]
    return sum(length > threshold for length in lengths) >= max(1, round(len(looks) / 4))


def _fastest(flow: Flow) -> float:
    """Mean length of the longest twentieth."""
    lengths = np.sort(np.linalg.norm(flow, axis=-1).ravel())
    return float(lengths[-max(1, int(len(lengths) * FASTEST)) :].mean())


def _grey(frame: UInt8[np.ndarray, "_ _ 3"]) -> UInt8[np.ndarray, "_ _"]:
    return grey(frame, SHORT_SIDE / min(frame.shape[:2]))


def _warp_error(one: Grey, two: UInt8[np.ndarray, "H W"], flow: Float[np.ndarray, "H W 2"]) -> float:
    """Where what moved is still in the picture."""
    height, width = one.shape
    at = np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)), axis=-1) + flow
    inside = (at >= 0).all(axis=-1) & (at[..., 0] <= width - 1) & (at[..., 1] <= height - 1)
    seen = cv2.remap(two, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return float(np.abs(seen.astype(np.float32) - one)[inside].mean()) if inside.any() else 0.0


def _dis() -> cv2.DISOpticalFlow:
    """A new one each time: it keeps state, and is made in microseconds."""
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
