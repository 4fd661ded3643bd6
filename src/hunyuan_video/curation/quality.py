"""Quality of the picture: blur, light, blocks that a codec left, and how natural it is."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from hunyuan_video import naturalness
from hunyuan_video.curation.extras import extra
from hunyuan_video.curation.footage import grey, small

DARK, BRIGHT = 16, 243  # levels, of 255, beyond which nothing is seen
BLOCK = 8  # pixels, of JPEG's and the older codecs' transforms, which in the newer ones are a part of theirs
LONGEST = 512  # pixels, of what BRISQUE sees: its time grows with them


def quality(large: UInt8[np.ndarray, "K H W 3"]) -> dict[str, float]:
    """In the median of frames.

    blur: 0 to 1 (Crete et al. 2007: how little changes if the picture is blurred again); dark, bright: shares of the pixels; contrast:
    standard deviation of brightness; blocks: how much stronger edges are between blocks than inside.
    """
    found = [_of_frame(picture) for picture in grey(large)]
    return {name: float(np.median([one[name] for one in found])) for name in found[0]}


def _of_frame(light: UInt8[np.ndarray, "H W"]) -> dict[str, float]:
    return {
        "blur": float(extra("skimage.measure").blur_effect(light)),
        "dark": float((light <= DARK).mean()),
        "bright": float((light >= BRIGHT).mean()),
        "contrast": float(light.std()),
        "blocks": max(_blocks(light), _blocks(light.T)),
    }


def _blocks(light: UInt8[np.ndarray, "H W"]) -> float:
    """The mean step across the borders of blocks, divided by that of all other steps; of the places where a grid may lie, at the worst."""
    steps = np.abs(np.diff(light.astype(np.float32), axis=1)).mean(0)
    steps = steps[: len(steps) // BLOCK * BLOCK].reshape(-1, BLOCK).mean(0)
    place = int(np.argmax(steps))
    return float(steps[place] / max(np.delete(steps, place).mean(), 1e-3))


def brisque(picture: UInt8[np.ndarray, "H W 3"]) -> float:
    """0 to 100, and a little beyond; 100 for a picture with flat parts, of which it cannot be computed."""
    found = naturalness.brisque(small(picture, LONGEST))
    return 100.0 if found is None else found
