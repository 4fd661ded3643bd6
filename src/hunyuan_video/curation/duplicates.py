"""Duplicates: clips that show the same, coded, scaled, lit or cut a little differently.

Vectors that point the same way make candidates (faiss). Hashes decide: in the median, a frame of one has a frame of the other, at whatever
moment, that differs in few bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt64

from hunyuan_video.curation.extras import extra
from hunyuan_video.curation.fingerprints import Fingerprint


@dataclass(frozen=True)
class Alike:
    """What counts as a duplicate."""

    similarity: float = 0.9
    """cosine of the vectors, at least"""
    bits: float = 12.0
    """of 64 by which hashes may differ"""


def originals(found: Sequence[Fingerprint], settings: Alike) -> list[int]:
    """For each clip, in order of preference, the number of the first one that it repeats: its own, if it repeats none."""
    if not found:
        return []
    vectors = np.stack([one.vector for one in found])
    index = extra("faiss").IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    starts, _, others = index.range_search(vectors, settings.similarity)
    first = list[int]()
    for number, one in enumerate(found):
        candidates = sorted(other for other in others[starts[number] : starts[number + 1]].tolist() if other < number)
        same = (other for other in candidates if first[other] == other and differing(one.hashes, found[other].hashes) <= settings.bits)
        first.append(next(same, number))
    return first


def differing(one: UInt64[np.ndarray, " N"], other: UInt64[np.ndarray, " M"]) -> float:
    """Bits by which frames differ from the nearest of the other clip: the median, of the clip that is found in the other."""
    apart = (one[:, None] ^ other[None])[..., None]
    bits = np.unpackbits(apart.view(np.uint8), axis=-1).sum(-1)
    return float(min(np.median(bits.min(axis)) for axis in (0, 1)))
