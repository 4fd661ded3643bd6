"""Where in a shot a clip starts: at its sharpest frame nearby, for many weights begin a video with a picture; and how long it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from hunyuan_video.curation.extras import opencv


@dataclass(frozen=True)
class Lengths:
    """In frames at 24 a second; of clips, 4n + 1."""

    least: int = 65
    most: int = 129
    look: int = 12
    """how far a start may be moved for a sharper frame"""

    def __post_init__(self) -> None:
        if not 5 <= self.least <= self.most or self.least % 4 != 1 or self.most % 4 != 1:
            raise ValueError(
                f"Clips of {self.least} to {self.most} frames cannot be: both must be 4n + 1 from 5 on, the former no more than the latter."
            )
        if self.look < 1:
            raise ValueError(f"look is {self.look}; it must be 1 or more frames.")


def sharpness(light: UInt8[np.ndarray, "h w"]) -> float:
    """The variance of the Laplacian of brightness; comparable within a shot."""
    cv2 = opencv()
    return float(cv2.Laplacian(light, cv2.CV_32F).var())


def clips_of(shots: Sequence[tuple[int, int]], sharp: Float[np.ndarray, " T"], lengths: Lengths) -> list[tuple[int, int]]:
    """Start and number of frames of the clips, one behind the other in each shot that is long enough."""
    clips = list[tuple[int, int]]()
    for position, stop in shots:
        while (room := stop - position - lengths.least) >= 0:
            start = position + int(np.argmax(sharp[position : position + min(lengths.look, room + 1)]))
            num_frames = min(lengths.most, (stop - start - 1) // 4 * 4 + 1)
            clips.append((start, num_frames))
            position = start + num_frames
    return clips
