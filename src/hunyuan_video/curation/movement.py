"""How much moves, by optical flow, after the codec's own word for it (`footage.View.vectors`), which costs nothing; and whether the
picture stands still for a while."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float, UInt8

from hunyuan_video.clips import FPS
from hunyuan_video.curation.extras import opencv
from hunyuan_video.curation.footage import grey
from hunyuan_video.curation.shots import runs

STRIDE = 4  # frames between two that flow is computed of: slow movement is seen, too
STILL = 0.35  # mean difference of small pictures, of 255, below which a frame repeats the one before: noise of a codec differs by more


def movement(frames: UInt8[np.ndarray, "T h w 3"]) -> dict[str, float]:
    """flow: the mean over all pixels and times, in heights of the picture a second; still: seconds in a row without any change."""
    light = grey(frames)
    return {"flow": flow(light), "still": still(light)}


def flow(light: UInt8[np.ndarray, "T h w"]) -> float:
    fields = _fields(light)
    return float(np.linalg.norm(fields, axis=3).mean()) * FPS / STRIDE / light.shape[1] if len(fields) else 0.0


def drift(light: UInt8[np.ndarray, "T h w"]) -> Float[np.ndarray, "h w 2"]:
    """How far what is at each place moves in one direction, in pixels to the right and down between two frames that are compared: what
    passes once does not (median), and what swings does not (mean)."""
    fields = _fields(light)
    if not len(fields):
        return np.zeros((*light.shape[1:], 2), np.float32)
    usual, mean = np.median(fields, 0), fields.mean(0)
    lengths = np.linalg.norm(usual, axis=2), np.linalg.norm(mean, axis=2)
    return np.where((lengths[0] < lengths[1])[..., None], usual, mean)


def _fields(light: UInt8[np.ndarray, "T h w"]) -> Float[np.ndarray, "N h w 2"]:
    """Between frames, in pixels to the right and down, by dense inverse search (Kroeger et al. 2016)."""
    cv2 = opencv()
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    found = [search.calc(one, other, None) for one, other in pairwise(light[::STRIDE])]
    return np.stack(found) if found else np.zeros((0, *light.shape[1:], 2), np.float32)


def still(light: UInt8[np.ndarray, "T h w"]) -> float:
    changes = np.abs(np.diff(light.astype(np.int16), axis=0)).mean((1, 2))
    return max((stop - start for start, stop in runs(changes < STILL)), default=0) / FPS
