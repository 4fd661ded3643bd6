"""How much moves, by optical flow, after the codec's own word for it (`footage.View.vectors`), which costs nothing; and whether the
picture stands still for a while."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import UInt8

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
    """By dense inverse search (Kroeger et al. 2016)."""
    cv2 = opencv()
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    chosen = light[::STRIDE]
    lengths = [np.linalg.norm(search.calc(one, other, None), axis=2).mean() for one, other in pairwise(chosen)]
    return float(np.mean(lengths)) * FPS / STRIDE / light.shape[1] if lengths else 0.0


def still(light: UInt8[np.ndarray, "T h w"]) -> float:
    changes = np.abs(np.diff(light.astype(np.int16), axis=0)).mean((1, 2))
    return max((stop - start for start, stop in runs(changes < STILL)), default=0) / FPS
