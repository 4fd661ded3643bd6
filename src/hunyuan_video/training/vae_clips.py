"""The clips that a VAE is trained on, and the source that cuts them from the user's videos and images when they are needed.

A clip shows every s-th frame, s random, so that the VAE meets fast motion, too. All that is random is drawn from a given generator.

Letters: B clips, T frames, H W height and width.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from hunyuan_video.training.dataset import Bucket
from hunyuan_video.training.media import Item, UnusableError, find_items, plan, read_clips

log = logging.getLogger(__name__)

Clip = UInt8[np.ndarray, "T H W 3"]
FRAME_RATE = 24.0  # of a clip with stride 1: what HunyuanVideo makes
MAX_CLIPS = 16  # a clip starts at one of its first so many multiples in a video, which bounds how much must be decoded
TRIES = 100
ASPECTS = (1.0, 4 / 3, 16 / 9, 3 / 4, 9 / 16)  # of what a square is cut from


def pick(count: int, draw: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=draw))


def to_pixels(clips: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B 3 T H W"]:
    """What a VAE sees of clips: values in [-1, 1]."""
    return rearrange(clips, "B T H W C -> B C T H W").float() / 127.5 - 1


@runtime_checkable
class Source(Protocol):
    """Where clips come from: the same from equal generators, so that a training can go on where it was."""

    def video(self, draw: torch.Generator) -> Clip:
        """A clip to learn from."""
        ...

    def image(self, draw: torch.Generator) -> Clip:
        """One of a single frame."""
        ...

    def held_out(self, number: int) -> Clip:
        """One that is never learned from."""
        ...


class MediaFiles:
    """Random squares of videos and images of a folder or a list (see `media`), of which captions are not read. The first `num_held_out`
    videos, or images if there are no videos, are kept for evaluation.

    Raises:
        ValueError: there are too few files to keep some.
    """

    def __init__(self, source: Path, num_frames: int, size: int, max_stride: int, num_held_out: int):
        items = [replace(item, problem="") for item in find_items(source) if item.is_media and item.path.exists()]
        kinds = {kind: [item for item in items if item.is_image == (kind == "image")] for kind in ("video", "image")}
        self.videos, self.images, self.source = kinds["video"], kinds["image"], source
        kept = self.videos or self.images
        if len(kept) <= num_held_out:
            raise ValueError(
                f"{source} has {len(kept)} videos or images, and {num_held_out} are to be kept for evaluation; add more, or give "
                f"--eval-clips a number below {len(kept)}."
            )
        self.kept = kept[:num_held_out]
        del kept[:num_held_out]
        self.size, self.max_stride = size, max_stride
        sides = [(round(size * max(1.0, 1 / aspect)), round(size * max(1.0, aspect))) for aspect in ASPECTS]
        self.buckets = [Bucket(frames, *side) for side in sides for frames in {1, num_frames}]

    def video(self, draw: torch.Generator) -> Clip:
        return self._first_usable(self.videos, draw)

    def image(self, draw: torch.Generator) -> Clip:
        """An image, or a frame of a video if there are none."""
        return self._first_usable(self.images or self.videos, draw)[:1]

    def held_out(self, number: int) -> Clip:
        try:
            return self._cut(self.kept[number], None)
        except UnusableError as problem:
            name = self.kept[number].name
            raise ValueError(f"{name} is kept for evaluation but cannot be used: {problem}; mend or remove it.") from problem

    def _first_usable(self, items: list[Item], draw: torch.Generator) -> Clip:
        problem: UnusableError | None = None
        for _ in range(TRIES if items else 0):
            item = items[pick(len(items), draw)]
            try:
                return self._cut(item, draw)
            except UnusableError as found:
                problem = found
                log.debug("%s: %s", item.name, found)
        raise ValueError(
            f"{self.source} has nothing that a clip can be cut from ({problem or 'no videos'}); see num_frames and max_stride."
        )

    def _cut(self, item: Item, draw: torch.Generator | None) -> Clip:
        """A random square of a random clip, or with nothing to draw from the middle of the first one."""
        stride = 1 if draw is None else 1 + pick(self.max_stride, draw)
        cuts = plan(item, self.buckets, FRAME_RATE / stride, MAX_CLIPS)
        (frames,) = read_clips(item, [cuts[0 if draw is None else pick(len(cuts), draw)]])
        room = [length - self.size for length in frames.shape[1:3]]
        top, left = (side // 2 if draw is None else pick(side + 1, draw) for side in room)
        return frames[:, top : top + self.size, left : left + self.size]
