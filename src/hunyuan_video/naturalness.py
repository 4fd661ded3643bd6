"""BRISQUE (Mittal, Moorthy and Bovik, 2012): how unlike a natural picture's the statistics of a picture are. By the package of that name,
which carries the model."""

from __future__ import annotations

import warnings
from functools import cache
from math import isfinite
from typing import Any

import numpy as np
from jaxtyping import UInt8


def brisque(picture: UInt8[np.ndarray, "H W 3"]) -> float | None:
    """About 0 (best) to 100; below 0 and above 100 is possible. None of a picture with flat parts, which have no statistics.

    Raises:
        ImportError: the package is missing; says what to install.
    """
    model = _model()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of names that SciPy has moved, and of fits to flat parts
        found = float(model.score(picture))
    return found if isfinite(found) else None


@cache
def _model() -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):
            from brisque import BRISQUE
    except ImportError as error:
        raise ImportError(f"BRISQUE cannot be computed ({error}); pip install 'hunyuan-video[brisque]'.") from error

    class Brisque(BRISQUE):
        def scale_features(self, features: Any) -> Any:
            """Numbers, of which some come as arrays of one: NumPy 2.4 makes no number of these."""
            return super().scale_features([np.asarray(each).item() for each in features])

    return Brisque(url=False)
