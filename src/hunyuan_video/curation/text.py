"""Text in the picture: where PP-OCR (by rapidocr, whose package has the models) can read some."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from hunyuan_video.curation.crop import Box
from hunyuan_video.curation.extras import extra
from hunyuan_video.curation.footage import small

LONGEST = 960  # pixels, of what is read
SURE, LEAST = 0.8, 2  # how sure it must be of what it read, and how many characters: leaves are taken for an "I", or at 0.7 for "XX"
FINE = 200  # cells across and down in which areas are counted


def texts(large: UInt8[np.ndarray, "K H W 3"]) -> list[list[Box]]:
    """Of each frame the boxes that hold text, as shares of width and height."""
    return [_boxes(small(picture, LONGEST)) for picture in large]


def _boxes(picture: UInt8[np.ndarray, "h w 3"]) -> list[Box]:
    found = _reader()(picture[..., ::-1], use_cls=False)
    if found.boxes is None:
        return []
    height, width = picture.shape[:2]
    boxes = list[Box]()
    for corners, words, sure in zip(found.boxes, found.txts, found.scores, strict=True):
        if sure >= SURE and len(words.strip()) >= LEAST:
            (left, top), (right, bottom) = corners.min(0), corners.max(0)
            boxes.append(Box(left / width, top / height, right / width, bottom / height).inside())
    return boxes


@functools.cache
def _reader() -> Any:
    engine = "EngineConfig.onnxruntime."
    return extra("rapidocr").RapidOCR(
        params={
            "Global.log_level": "critical",  # it warns of every picture without text
            "Det.limit_type": "max",
            "Det.limit_side_len": LONGEST,
            f"{engine}intra_op_num_threads": 1,
            f"{engine}inter_op_num_threads": 1,
        }
    )


def area(boxes: list[Box]) -> float:
    """The share of the picture that they cover together."""
    covered: Bool[np.ndarray, "y x"] = np.zeros((FINE, FINE), bool)
    for box in boxes:
        left, top, right, bottom = (round(FINE * side) for side in box)
        covered[top:bottom, left:right] = True
    return float(covered.mean())
