"""Clips in: the frames of a video, an animated picture or a folder of frames, on a grid of times, as a person sees them. Imports no torch.

On the grid k / fps each time shows the last frame at or before it: variable rates are respected, slow ones repeat frames.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from hunyuan_video.config import Limits, require
from hunyuan_video.containers import open_container, rgb, video_stream
from hunyuan_video.pictures import as_seen, durations, fill, image_size, read_animation, read_image, reading, stated_rate
from hunyuan_video.request import Clip

if TYPE_CHECKING:
    import av

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
ROUNDING = 0.001  # seconds; Matroska counts time in milliseconds, so a frame may be stamped that much late
FPS = 24.0  # at which videos are made


class NoClipError(ValueError):
    """A source that is sound and shows no clip. The message is one of a few."""


def read_clip(path: str | Path, num_frames: int | None = None, at_most: int | None = None, size: tuple[int, int] | None = None) -> Clip:
    """The frames at 24 a second from the start of a clip: `num_frames`, or as many as it has, `at_most` so many; in a `size`, height and
    width, scaled until they cover it and cropped around the middle, or in their own.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, no clip, or too short.
    """
    most = num_frames or at_most or Limits().max_frames
    with reading(Path(path)) as path:
        times, height, width = look(path, most / FPS, FPS)
        shown = on_grid(times, FPS, most)
        size = size or (height, width)
        if len(shown) >= (num_frames or 1):
            return Clip(np.stack([fill(picture, *size) for picture in pictures(path, shown)]))
    raise ValueError(
        f"{path} shows {len(shown)} frames at {FPS:g} a second, but {num_frames} are needed; give a longer clip, or ask for fewer."
    )


def frame_files(folder: Path) -> list[Path]:
    """The pictures of a folder, by the numbers in their names."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."))
    return sorted(found, key=lambda path: [(int(number or 0), word) for word, number in re.findall(r"(\D*)(\d*)", path.stem)])


def on_grid(times: np.ndarray, fps: float, most: int) -> list[int]:
    """Which frames, by their `times` in seconds, are shown at 0, 1 / fps, 2 / fps …, up to the last of them, but no more than `most`."""
    times = times - times[0]
    grid = np.arange(min(most, int((times[-1] + ROUNDING) * fps) + 1)) / fps  # a damaged time may be years later
    return (np.searchsorted(times, grid + ROUNDING, side="right") - 1).tolist()


def look(path: Path, seconds: float, fps: float) -> tuple[np.ndarray, int, int]:
    """The times of the frames of the first `seconds` and a bit, and the height and width as displayed. A folder of frames that does not say
    its rate is at `fps`. Reads headers, and decodes one frame.

    Raises:
        NoClipError: there are no frames, or of different sizes.
    """
    if path.is_dir():
        files = frame_files(path)
        if not files:
            raise NoClipError("no frames")
        rate = stated_rate(files[0]) or fps
        files = files[: int((seconds + 1) * rate) + 1]
        if len(sizes := {image_size(file) for file in files}) > 1:
            raise NoClipError("frames of different sizes")
        width, height = sizes.pop()
        return np.arange(len(files)) / rate, height, width
    if path.suffix.lower() in IMAGE_SUFFIXES:
        width, height = image_size(path)
        lengths = durations(path, seconds + 1)
        return np.cumsum([0.0, *lengths[:-1]]), height, width
    return _look_at_video(path, seconds)


def _look_at_video(path: Path, seconds: float) -> tuple[np.ndarray, int, int]:
    times: list[float] = []
    first: av.VideoFrame | None = None
    with open_container(path) as container:
        stream = video_stream(container)
        for packet in container.demux(stream):
            first = first or next(iter(packet.decode()), None)
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is None or packet.is_discard:  # the packet that ends the stream has no time
                continue
            times.append(float(stamp * packet.time_base))
            # Packets come in decoding order, and a frame is never decoded later than it is shown.
            if first and packet.dts is not None and float(packet.dts * packet.time_base) > times[0] + seconds + 1:
                break
    if first is None:
        raise NoClipError("no frames")
    height, width = (first.width, first.height) if round(first.rotation / 90) % 2 else (first.height, first.width)
    return np.sort(np.array(times)), height, width


def pictures(path: Path, numbers: Sequence[int]) -> Iterator[Image.Image]:
    """Those frames of a source, in order, one as often as it comes. Raises a ValueError where the source ends early."""
    frames = enumerate(_frames(path, set(numbers)))
    position, picture = -1, None
    for number in numbers:
        while position < number:
            position, picture = next(frames, (number, None))
        require(picture is not None, "frames are missing")
        assert picture is not None
        yield picture


def _frames(path: Path, wanted: Container[int]) -> Iterator[Image.Image | None]:
    """The frames of a source, those that are wanted as a person sees them."""
    if path.is_dir():
        for number, file in enumerate(frame_files(path)):
            yield read_image(file) if number in wanted else None
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        for number, image in enumerate(read_animation(path)):
            yield as_seen(image) if number in wanted else None
    else:
        with open_container(path) as container:
            stream = video_stream(container)
            stream.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(stream)):
                yield _upright(frame) if number in wanted else None


def _upright(frame: av.VideoFrame) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(np.rot90(rgb(frame), round(frame.rotation / 90))))
