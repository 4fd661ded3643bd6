"""What a video is made of besides words, as a user names it: pictures at frames, and a clip."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from hunyuan_video.clips import read_clip
from hunyuan_video.commands.common import Repeatable
from hunyuan_video.config import FullSampling, Sampling, require
from hunyuan_video.pictures import read_picture
from hunyuan_video.request import Clip, Keyframe


@dataclass(frozen=True)
class Media:
    """What else a video is made of."""

    last: Path | None = None
    """a picture to end with"""
    keyframe: Annotated[tuple[str, ...], Repeatable] = ()
    """N=FILE, as often as there are: a picture that is seen at frame N, from 0 (docs/ways-to-begin.md)"""
    video: Path | None = None
    """a clip, or a picture with --num-frames 1, to make anew; its first frames, as many as the video has, and --strength says how much"""

    def keyframes(self) -> tuple[Keyframe, ...]:
        """Raises a ValueError for what is none."""
        ends = () if self.last is None else (Keyframe(-1, read_picture(self.last)),)
        return *map(_keyframe, self.keyframe), *ends

    def clip(self, sampling: Sampling, defaults: FullSampling) -> Clip | None:
        """In the size of the video, and as long. Raises as `clips.read_clip`."""
        if self.video is None:
            return None
        size = sampling.height or defaults.height, sampling.width or defaults.width
        return read_clip(self.video, sampling.num_frames, defaults.num_frames, size).trimmed()


def _keyframe(text: str) -> Keyframe:
    match = re.fullmatch(r"(-?\d{1,6})=(.+)", text)
    require(match is not None, f"keyframe is {text!r}; it must be the number of a frame and a picture, such as 16=cat.png.")
    assert match is not None
    return Keyframe(int(match[1]), read_picture(match[2]))
