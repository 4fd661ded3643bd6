"""Whether frames follow each other where a video was put together: continued, closed to a loop, made through windows; and whether a long
one says the same again.

Letters: T frames, H height, W width.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from hunyuan_video.evaluation.metrics import luminance

Frames = UInt8[np.ndarray, "T H W 3"]


def steps(frames: Frames) -> Float[np.ndarray, " T"]:
    """How much each frame differs from the one before it, and the first one from the last: mean levels of 255 a pixel."""
    light = luminance(frames).numpy()
    return np.abs(light - np.roll(light, 1, axis=0)).mean(axis=(1, 2))


def seam(frames: Frames, at: int) -> float:
    """The step into frame `at` beside the median of all others; 0 is the step around a loop. A seam that nobody sees is about 1, and what
    every fourth frame is between latent frames.

    Raises:
        ValueError: there is no such frame, or there are too few others.
    """
    if not 0 <= at < len(frames) or len(frames) < 4:
        raise ValueError(f"There are {len(frames)} frames and no step into frame {at} to compare with others.")
    found = steps(frames)
    others = [step for number, step in enumerate(found) if number not in (0, at)]
    return float(found[at] / max(np.median(others), 1e-3))


def repetition(frames: Frames, lag: int) -> float:
    """How much a video is what it was `lag` or more frames ago: of each frame after these, how far the nearest of those is, beside how far
    frames are on average. 1 says nothing new is like anything before, 0 that all of it was there already.

    Raises:
        ValueError: it is no longer than that.
    """
    if not 0 < lag < len(frames):
        raise ValueError(f"There are {len(frames)} frames, none of them more than {lag} after another one.")
    light = luminance(frames)[:, ::4, ::4].flatten(1).numpy()
    apart = np.sqrt(((light[:, None] - light[None]) ** 2).mean(axis=2))
    nearest = [apart[late, : late - lag + 1].min() for late in range(lag, len(frames))]
    return float(np.mean(nearest) / apart[np.triu_indices(len(frames), lag)].mean())
