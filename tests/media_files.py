"""Small videos whose frames tell their number, and what can be wrong with a file."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

LEVEL = 6  # grey levels from one frame to the next


def write_video(path: Path, times: Sequence[float], height: int = 48, width: int = 64, per_second: int = 1000) -> Path:
    """An H.264 file whose frame i, shown from `times[i]` seconds on, is grey of level LEVEL * i. Captioned "video NAME"."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "10"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, per_second)
        container.start_encoding()
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), LEVEL * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(time * per_second), Fraction(1, per_second)
            container.mux(stream.encode(frame))
        if times:
            container.mux(stream.encode(None))
    path.with_suffix(".txt").write_text(f"video {path.name}", encoding="utf-8")
    return path


def at(fps: float, num_frames: int) -> list[float]:
    return [number / fps for number in range(num_frames)]


def numbers(clip: np.ndarray) -> list[int]:
    """The numbers of a clip's frames."""
    return np.rint(clip.mean(axis=(1, 2, 3)) / LEVEL).astype(int).tolist()


def turn(path: Path) -> None:
    """Say in an MP4's track header, as telephones do, that players shall turn the picture clockwise by a quarter."""
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
