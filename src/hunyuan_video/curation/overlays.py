"""What lies over the picture: black bars, and logos and watermarks, whose edges stand still while what is behind them moves (the median of
gradients over time: Dekel et al. 2017).

Where nothing moves, a logo looks like scenery: in a clip one is only found where the camera moves behind it. Hence a file is also looked at
as a whole, for over its shots only logos stay.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from hunyuan_video.curation.crop import WHOLE, Box
from hunyuan_video.curation.extras import opencv
from hunyuan_video.curation.movement import drift

BLACK, FLAT = 24, 6  # levels, of 255, that a bar's pixels reach, and by which they differ
LIGHTLESS, INK = 10, 80  # per cent of a row of a bar between which they are compared: the rest may be a subtitle
NUM_FRAMES = 32  # of a clip, in which edges are sought
EDGE = 10.0  # levels a pixel, from which something is an edge
OFTEN, NEARLY_ALWAYS = 80, 95  # per cent of the frames of a clip, and of a file, in which an edge must be there to stand still
SHOTS = 6  # of a file, below which edges of several scenes lie on one another by chance
NEAR = 7  # small pixels, between the parts of a logo, and around it
LEAST_EDGES = 12  # small pixels
LARGEST = 0.15  # of the picture: what is larger is scenery
MOVES = 0.05  # of the surroundings of a logo have moving edges, at least
DRIFTS = 1.0  # small pixels that they move in one direction between two frames that are compared
ACROSS = 0.5  # cosine between that direction and the gradient of an edge, from which the edge would be seen to move
MAIN = 0.5  # of a file, above which a shot is most of it: what stays in that one may be scenery
MARGIN = 2  # small pixels, by which a logo's box is larger than its edges


def inside_bars(light: UInt8[np.ndarray, "K H W"]) -> Box:
    """The picture without bars that are black in every frame; all of it if there is none, or nothing else."""
    rows, columns = (_within(_black(light, axis)) for axis in (2, 1))
    if rows is None or columns is None:
        return WHOLE
    height, width = light.shape[1:]
    return Box(columns[0] / width, rows[0] / height, columns[1] / width, rows[1] / height)


def _black(light: UInt8[np.ndarray, "K H W"], along: int) -> Bool[np.ndarray, " N"]:
    darkest, most = np.percentile(light, [LIGHTLESS, INK], axis=along)
    return ((most <= BLACK) & (most - darkest <= FLAT)).all(0)


def _within(black: Bool[np.ndarray, " N"]) -> tuple[int, int] | None:
    """From and to before what lies between bars at both ends."""
    bright = np.flatnonzero(~black)
    return (int(bright[0]), int(bright[-1]) + 1) if len(bright) else None


def over_clip(light: UInt8[np.ndarray, "T h w"]) -> list[Box]:
    """Boxes around what stands still while the camera moves, in small pictures without bars of one shot."""
    return _standing(light[:: max(1, len(light) // NUM_FRAMES)], OFTEN, drift(light))


def over_film(light: UInt8[np.ndarray, "N h w"], shots: Sequence[tuple[int, int]]) -> list[Box]:
    """Boxes around what stays over the shots of a file, in small pictures without bars of all of it."""
    lengths = [stop - start for start, stop in shots]
    return _standing(light, NEARLY_ALWAYS, None) if len(lengths) >= SHOTS and max(lengths) <= MAIN * sum(lengths) else []


def _standing(light: UInt8[np.ndarray, "N h w"], often: int, drifts: Float[np.ndarray, "h w 2"] | None) -> list[Box]:
    """Boxes around edges that stand still before others that move, or drift in one direction."""
    stays, moves, gradient = _edges(light, often)
    if stays.sum() > moves.sum():
        return []  # the camera stands still, and so does everything
    cv2 = opencv()
    kernel = np.ones((NEAR, NEAR), np.uint8)
    joined = cv2.morphologyEx(stays.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    _, labels, facts, _ = cv2.connectedComponentsWithStats(joined)
    height, width = stays.shape
    boxes = list[Box]()
    for number, (left, top, across, down, _) in enumerate(facts.tolist()):
        if number == 0 or across * down > LARGEST * height * width:
            continue
        part = labels == number
        around = slice(max(0, top - NEAR), top + down + NEAR), slice(max(0, left - NEAR), left + across + NEAR)
        behind = ~part[around]
        edges = gradient[stays & part]
        if drifts is not None:
            edges = _across(edges, np.median(drifts[around][behind], 0))
        if len(edges) >= LEAST_EDGES and moves[around][behind].mean() >= MOVES:
            corner, end = (left - MARGIN, top - MARGIN), (left + across + MARGIN, top + down + MARGIN)
            boxes.append(Box(corner[0] / width, corner[1] / height, end[0] / width, end[1] / height).inside())
    return boxes


def _across(edges: Float[np.ndarray, "N 2"], way: Float[np.ndarray, "2"]) -> Float[np.ndarray, "M 2"]:
    """Those that would be seen to move with what is behind them: one along its way looks as if it stood still."""
    length = float(np.hypot(*way))
    if length < DRIFTS:
        return edges[:0]
    return edges[np.abs(edges @ way) >= ACROSS * length * np.linalg.norm(edges, axis=1)]


def _edges(
    light: UInt8[np.ndarray, "N h w"], often: int
) -> tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"], Float[np.ndarray, "h w 2"]]:
    """Where edges stay, where there are others, and the gradients that are usual."""
    cv2 = opencv()
    across: Float[np.ndarray, "N h w"] = np.stack([cv2.Sobel(one, cv2.CV_32F, 1, 0, scale=1 / 4) for one in light])
    down = np.stack([cv2.Sobel(one, cv2.CV_32F, 0, 1, scale=1 / 4) for one in light])
    usual = np.median(across, 0), np.median(down, 0)
    length = np.hypot(*usual)
    along = (across * usual[0] + down * usual[1]) / np.maximum(length, 1e-6)
    stays = (length > EDGE) & (np.percentile(along, 100 - often, axis=0) > EDGE / 2)
    moves = (np.hypot(across, down).mean(0) > EDGE) & ~stays
    stays[:MARGIN], stays[-MARGIN:], stays[:, :MARGIN], stays[:, -MARGIN:] = False, False, False, False
    return stays, moves, np.stack(usual, axis=2)


class Sample:
    """Some of many pictures that come one by one, evenly spread, and never more than `most`."""

    def __init__(self, most: int = 64):
        self._most, self._stride, self._seen = most, 1, 0
        self._kept = list[np.ndarray]()

    def add(self, picture: np.ndarray) -> None:
        if self._seen % self._stride == 0:
            self._kept.append(picture)
            if len(self._kept) > self._most:
                self._kept, self._stride = self._kept[::2], 2 * self._stride
        self._seen += 1

    @property
    def pictures(self) -> np.ndarray:
        return np.stack(self._kept)
