"""Small videos whose frames tell their number, and what can be wrong with a file."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageSequence

from hunyuan_video.video import rgb

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


def read_video(path: Path | str) -> tuple[np.ndarray, float]:
    """All frames [T, H, W, 3] of a file that `save_video` wrote, and its frames per second, by other programs' readers alone."""
    path = Path(path)
    if path.is_dir() or path.suffix in (".png", ".gif"):
        frames, seconds, stated = [], 0.0, None
        for file in sorted(path.glob("*.png")) if path.is_dir() else [path]:
            with Image.open(file) as image:
                stated = image.info.get("fps")
                for picture in ImageSequence.Iterator(image):
                    frames.append(np.asarray(picture.convert("RGB")))
                    seconds += picture.info.get("duration", 0) / 1000
        return np.stack(frames), float(stated) if stated else len(frames) / seconds
    with path.open("rb") as file, av.open(file) as container:
        stream = container.streams.video[0]
        assert stream.average_rate is not None
        return np.stack([rgb(frame) for frame in container.decode(stream)]), float(stream.average_rate)
