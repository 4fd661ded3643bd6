"""How the camera moves, in the report's 14 classes: a measure of `motion.camera`, which a caption mentions if it is sure."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from hunyuan_video.curation.extras import opencv


def camera(frames: UInt8[np.ndarray, "T h w 3"]) -> dict[str, str | float]:
    """The class, and how sure that is."""
    opencv()  # says which extra is missing, and takes one thread
    from hunyuan_video.motion.camera import camera_motion

    found = camera_motion(frames)
    return {"camera": found.label, "camera_confidence": found.confidence}
