"""How far raters agree beyond chance."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float


def krippendorff_alpha(counts: Float[np.ndarray, "U V"]) -> float:
    """1 for raters who always agree, 0 for such as guess; for names without an order. `counts[u, v]` is how many raters gave unit u the
    value v; a unit with one rater tells nothing. NaN where nothing could have differed.

    K. Krippendorff, Computing Krippendorff's alpha-reliability, 2011.
    """
    counts = counts[counts.sum(axis=1) >= 2]
    raters = counts.sum(axis=1, keepdims=True)
    alike = (counts * (counts - 1) / (raters - 1)).sum()  # pairs of values of one unit, each as often as it has raters
    values = counts.sum(axis=0)
    total = values.sum()
    by_chance = (values * (values - 1)).sum() / (total - 1) if total > 1 else total
    return math.nan if by_chance == total else float(1 - (total - alike) / (total - by_chance))
