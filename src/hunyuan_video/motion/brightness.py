"""Frames as brightness, in the size at which movement is looked for."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

LEAST = 16  # pixels of a side
MOST = 2**20  # pixels of a picture that is enlarged: narrow ones would become gigabytes


def grey(frame: UInt8[np.ndarray, "_ _ 3"], scale: float = 1.0) -> UInt8[np.ndarray, "_ _"]:
    """BT.601 brightness, `scale` times as large, but no side under 16 pixels, and enlarged to a megapixel at most."""
    light = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    if scale > 1:
        scale = max(1.0, min(scale, (MOST / light.size) ** 0.5))
    if scale == 1:
        return light
    size = [max(LEAST, round(side * scale)) for side in light.shape[::-1]]
    return cv2.resize(light, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
