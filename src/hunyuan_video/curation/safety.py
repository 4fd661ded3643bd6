"""What not everybody wants to see: naked bodies, by NudeNet, whose package has its weights. Under the AGPL, it has an extra of its own."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from jaxtyping import UInt8

from hunyuan_video.curation.extras import extra

EXPOSED = ("FEMALE_BREAST_EXPOSED", "FEMALE_GENITALIA_EXPOSED", "MALE_GENITALIA_EXPOSED", "ANUS_EXPOSED", "BUTTOCKS_EXPOSED")


def unsafe(large: UInt8[np.ndarray, "K H W 3"]) -> float:
    """How sure it is of the surest find in any frame, 0 to 1."""
    found = (part for picture in large for part in _detector().detect(picture[..., ::-1]))
    return max((float(part["score"]) for part in found if part["class"] in EXPOSED), default=0.0)


@functools.cache
def _detector() -> Any:
    return extra("nudenet").NudeDetector()
