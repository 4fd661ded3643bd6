"""Small videos whose frames tell their number, and what can be wrong with a file."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageSequence

from hunyuan_video.containers import rgb

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


# H.273's numbers of matrices, with how much red and blue are of brightness.
LUMA = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def coded(colour: Sequence[float], matrix: int, bits: int = 8, full: bool = False) -> list[int]:
    """The Y, U and V of red, green and blue in [0, 1], by the definition."""
    red, green, blue = colour
    of_red, of_blue = LUMA[matrix]
    y = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    u, v = (blue - y) / 2 / (1 - of_blue), (red - y) / 2 / (1 - of_red)
    if full:
        return [round((2**bits - 1) * y), *(round((2**bits - 1) * c + 2 ** (bits - 1)) for c in (u, v))]
    return [round((16 + 219 * y) * 2 ** (bits - 8)), *(round((128 + 224 * c) * 2 ** (bits - 8)) for c in (u, v))]


def write_coded(path: Path, levels: Sequence[int], pix_fmt: str, size: tuple[int, int] = (64, 64), **tags: int) -> Path:
    """Five frames of one colour, given as the levels of its planes, lossless in FFV1; height and width. `tags` are color_range,
    colorspace, color_primaries and color_trc, in H.273's numbers."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        assert isinstance(stream, av.VideoStream)
        (stream.height, stream.width), stream.pix_fmt = size, pix_fmt
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for _ in range(5):
            frame = av.VideoFrame(stream.width, stream.height, pix_fmt)
            for plane, level in zip(frame.planes, levels, strict=True):
                dtype = "<u2" if frame.format.components[0].bits > 8 else "u1"
                plane.update(np.full(plane.buffer_size // np.dtype(dtype).itemsize, level, dtype).tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
