"""BRISQUE (Mittal et al., 2012), a quality of single pictures without a reference, by the package of that name, which carries the model."""

from __future__ import annotations

import warnings
from functools import cache
from math import isfinite
from typing import Any

import numpy as np
from jaxtyping import UInt8

LOOKS = 5  # frames of a clip


def brisque(frames: UInt8[np.ndarray, "T H W 3"]) -> float | None:
    """The median over a clip's frames, spread over it: about 0 (best) to 100; below 0 and above 100 is possible. None of flat pictures,
    which have no statistics.

    Raises:
        ImportError: the package is missing; says what to install.
    """
    looks = frames[np.unique(np.linspace(0, len(frames) - 1, LOOKS).round().astype(int))]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of names that SciPy has moved, and of fits to flat parts
        found = float(np.median([float(_model().score(frame)) for frame in looks]))
    return found if isfinite(found) else None


@cache
def _model() -> Any:
    try:
        from brisque import BRISQUE
    except ImportError as error:
        raise ImportError(f"BRISQUE cannot be computed ({error}); pip install 'hunyuan-video[evaluate]'.") from error

    class Brisque(BRISQUE):
        def scale_features(self, features: Any) -> Any:
            """Numbers, of which some come as arrays of one: NumPy 2.4 makes no number of these."""
            return super().scale_features([np.asarray(each).item() for each in features])

    return Brisque(url=False)
