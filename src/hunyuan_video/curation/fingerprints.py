"""What a clip is known by: hashes of several frames, which survive another coding, size or brightness, and a vector of how it looks.

The vector is classical where a user brings no network: colours (mean and spread in Lab over 4 x 4 fields), directions of edges (8 over the
same fields) and coarse shapes (the lowest 8 x 8 of a DCT), each of the same weight. It knows what looks alike, not what is of a kind.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8, UInt64

from hunyuan_video.curation.extras import opencv
from hunyuan_video.curation.footage import Part, grey, view
from hunyuan_video.curation.networks import embed, unit
from hunyuan_video.pictures import evenly

NUM_FRAMES = 8
SIDE, FIELDS, DIRECTIONS, LOWEST = 64, 4, 8, 8


@dataclass(frozen=True)
class Fingerprint:
    """Of a clip."""

    hashes: UInt64[np.ndarray, " N"]
    """of frames evenly spread"""
    vector: Float[np.ndarray, " D"]
    """of length 1"""


def fingerprint(part: Part, embedder: Path | None) -> Fingerprint:
    """Raises a ValueError where the file is damaged."""
    frames = view(part, num_large=0).frames
    chosen = frames[evenly(len(frames), NUM_FRAMES)]
    vectors = np.stack([_looks(picture) for picture in chosen]) if embedder is None else embed(embedder, chosen)
    return Fingerprint(np.array([picture_hash(picture) for picture in chosen], np.uint64), unit(vectors.mean(0, keepdims=True))[0])


def picture_hash(picture: UInt8[np.ndarray, "h w 3"]) -> int:
    """64 bits: which of the lowest waves of a picture are stronger than the median (pHash)."""
    cv2 = opencv()
    waves = cv2.dct(cv2.resize(grey(picture), (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32))[:LOWEST, :LOWEST].ravel()
    bits = waves > np.median(waves[1:])
    return int(sum(1 << place for place in np.flatnonzero(bits).tolist()))


def _looks(picture: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, " D"]:
    cv2 = opencv()
    square = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(square, cv2.COLOR_RGB2LAB).astype(np.float32)
    fields = lab.reshape(FIELDS, SIDE // FIELDS, FIELDS, SIDE // FIELDS, 3).transpose(0, 2, 1, 3, 4).reshape(FIELDS * FIELDS, -1, 3)
    light = lab[..., 0]
    colours = np.concatenate([fields.mean(1) - 128, fields.std(1)]).ravel()
    waves = cv2.dct(light)[:LOWEST, :LOWEST].ravel()[1:]
    across, down = cv2.Sobel(light, cv2.CV_32F, 1, 0), cv2.Sobel(light, cv2.CV_32F, 0, 1)
    direction = ((np.arctan2(down, across) + np.pi) / (2 * np.pi) * DIRECTIONS).astype(int) % DIRECTIONS
    place = np.arange(SIDE) // (SIDE // FIELDS)
    bins = (place[:, None] * FIELDS + place) * DIRECTIONS + direction
    edges = np.bincount(bins.ravel(), np.hypot(across, down).ravel(), FIELDS * FIELDS * DIRECTIONS)
    return np.concatenate([unit(part[None])[0] for part in (colours, waves, np.sqrt(edges))])


def to_json(found: Fingerprint) -> dict[str, Any]:
    """As text, half as exact as it was."""
    vector = base64.b64encode(found.vector.astype("<f2").tobytes()).decode()
    return {"hashes": [f"{number:016x}" for number in found.hashes.tolist()], "vector": vector}


def from_json(stored: dict[str, Any]) -> Fingerprint:
    vector = np.frombuffer(base64.b64decode(stored["vector"]), "<f2").astype(np.float32)
    return Fingerprint(np.array([int(number, 16) for number in stored["hashes"]], np.uint64), unit(vector[None])[0])
