"""Networks that a user brings, as ONNX files: one that sees pictures as CLIP does, and a head that says from it how beautiful one is."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from hunyuan_video.curation.extras import extra, opencv
from hunyuan_video.files import sha256
from hunyuan_video.pictures import CLIP_DEVIATION, CLIP_MEAN

MEAN, DEVIATION = np.array(CLIP_MEAN, np.float32), np.array(CLIP_DEVIATION, np.float32)


@dataclass(frozen=True)
class Networks:
    """Where a user's own networks are."""

    embedder: Path | None = None
    """an ONNX file that makes vectors [N, D] of pictures [N, 3, S, S], normalised as for CLIP; finds duplicates and concepts instead of
    colours and edges"""
    aesthetic: Path | None = None
    """an ONNX file that makes scores [N, 1] of the embedder's vectors of length 1, as LAION's predictors are"""

    def __post_init__(self) -> None:
        for path in (self.embedder, self.aesthetic):
            if path is not None and not path.is_file():
                raise FileNotFoundError(f"{path} does not exist; give an ONNX file.")
        if self.aesthetic is not None and self.embedder is None:
            raise ValueError("An aesthetic head judges what an embedder sees; give --embedder, too.")

    @property
    def identity(self) -> dict[str, str]:
        """By content: what they measured is kept."""
        paths = {"embedder": self.embedder, "aesthetic": self.aesthetic}
        return {name: sha256(path) for name, path in paths.items() if path is not None}


@functools.cache
def _session(path: Path) -> Any:
    onnxruntime = extra("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def embed(path: Path, pictures: UInt8[np.ndarray, "N h w 3"]) -> Float[np.ndarray, "N D"]:
    """Vectors of length 1. Raises a ValueError if the network takes no square pictures."""
    cv2, session = opencv(), _session(path)
    given = session.get_inputs()[0]
    side = given.shape[-1]
    if len(given.shape) != 4 or not isinstance(side, int):
        raise ValueError(f"{path} takes {given.shape}; an embedder takes pictures [N, 3, S, S] of a fixed side S.")
    cut = [_square(picture) for picture in pictures]
    scaled = np.stack([cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA) for picture in cut]).astype(np.float32) / 255
    return unit(session.run(None, {given.name: ((scaled - MEAN) / DEVIATION).transpose(0, 3, 1, 2)})[0])


def judge(path: Path, vectors: Float[np.ndarray, "N D"]) -> float:
    """The mean score."""
    session = _session(path)
    return float(session.run(None, {session.get_inputs()[0].name: vectors.astype(np.float32)})[0].mean())


def unit(vectors: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Of length 1."""
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _square(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s 3"]:
    """The middle."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[top : top + side, left : left + side]
