"""Balance: no concept may drown the others. Concepts are the clusters of the clips' vectors by k-means (faiss)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from hunyuan_video.config import require
from hunyuan_video.curation.extras import extra

SEED, ROUNDS, STARTS = 0, 25, 5


@dataclass(frozen=True)
class Concepts:
    """How many there are, and how much of one is kept."""

    most: int = 10_000
    """clusters, as in the report"""
    clips: int = 16
    """fewer clusters, where these would hold fewer clips than this on average"""
    share: float = 4.0
    """how many times the average of a cluster is kept of one"""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            require(value > 0, f"{name} in [concepts] is {value:g}; it must be above 0.")


def concepts(vectors: Float[np.ndarray, "N D"], settings: Concepts) -> Int[np.ndarray, " N"]:
    """The cluster of each clip."""
    count = max(1, min(settings.most, len(vectors) // settings.clips))
    if count == 1:
        return np.zeros(len(vectors), int)
    # Enough clips are there for each by `settings.clips`, below which faiss would warn of 39.
    means = extra("faiss").Kmeans(vectors.shape[1], count, niter=ROUNDS, nredo=STARTS, seed=SEED, min_points_per_centroid=1)
    means.train(vectors)
    return means.index.search(vectors, 1)[1][:, 0]


def kept(found: Int[np.ndarray, " N"], order: Sequence[str], settings: Concepts) -> list[bool]:
    """Of each cluster no more than its share, those first whose `order` is: something that says nothing of the clip, such as its digest."""
    if not len(found):
        return []
    most = int(np.ceil(settings.share * len(found) / len(np.unique(found))))
    counts, keep = dict[int, int](), [False] * len(found)
    for number in sorted(range(len(found)), key=lambda number: order[number]):
        concept = int(found[number])
        counts[concept] = counts.get(concept, 0) + 1
        keep[number] = counts[concept] <= most
    return keep
