"""The velocity of a video from those of windows in time that overlap: of a long video, whose steps then take no more memory than a window;
and of a loop, whose last frames are before its first ones.

A model takes the first latent frame it sees for a single frame, where all others are four, so what it says of that one counts only where
it is the video's first. Around a ring windows begin elsewhere at each step, so that no place is a seam.

Letters: B batch, C channels, T latent frames of the video, t of a window, H W height, width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Window = tuple[int, ...]  # latent frames, by number, in the order in which the model sees them
Seen = Callable[[Float[Tensor, "B C t H W"], Window], Float[Tensor, "B C t H W"]]
TURN = 0.618  # of a ring, by which windows are farther at each step: no few turns come back to where they were


@dataclass(frozen=True)
class Windows:
    """Of so many latent frames, each window has `size`; of a ring, whose ends meet, one more than all at most."""

    frames: int
    size: int
    ring: bool = False

    def at(self, turn: int) -> list[Window]:
        """Those of a step, which together hold every frame, and every one elsewhere than first but the video's first."""
        if self.ring:
            start, count = round(turn * TURN * self.frames), -(-self.frames // self._stride)
            starts = [start + number * self.frames // count for number in range(count)]
            return [tuple((first + place) % self.frames for place in range(self.size)) for first in starts]
        starts = [*range(0, self.frames - self.size, self._stride), self.frames - self.size]
        return [tuple(range(first, first + self.size)) for first in starts]

    @property
    def _stride(self) -> int:
        """Half of a window, but of one that goes around a ring the whole."""
        return self.size - 1 if self.size > self.frames else max(1, self.size // 2)

    def weights(self, window: Window) -> Float[Tensor, " t"]:
        """How much what is said of each frame of a window counts: most in its middle, nothing of a first frame that is not the video's."""
        places = torch.arange(len(window), dtype=torch.float32)
        weights = torch.minimum(places, len(window) - places)
        if window[0] == 0 and not self.ring:
            weights[0] = 1
        return weights

    def whole(self, seen: Seen, x: Float[Tensor, "B C T H W"], turn: int) -> Float[Tensor, "B C T H W"]:
        """The mean of what is seen of `x` through the windows of a step."""
        total, weight = torch.zeros_like(x), torch.zeros(self.frames, device=x.device)
        for window in self.at(turn):
            places, each = torch.tensor(window, device=x.device), self.weights(window).to(x.device)
            total.index_add_(2, places, seen(x[:, :, places], window).to(x) * each.view(-1, 1, 1))
            weight.index_add_(0, places, each)
        return total / weight.view(-1, 1, 1)


def of(frames: int, window: int | None, *, ring: bool) -> Windows | None:
    """Of a video's latent frames through windows of so many frames, 4n + 1, or all at once; None if that is nothing special."""
    size = None if window is None else (window + 3) // 4
    if ring:
        return Windows(frames, min(frames + 1, size or frames + 1), ring=True)
    return None if size is None or size >= frames else Windows(frames, size)


def within(frames: Sequence[int], window: Window) -> tuple[int, ...]:
    """Where in a window frames of the video stand."""
    return tuple(place for place, frame in enumerate(window) if frame in frames)
