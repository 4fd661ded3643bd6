"""Footage: video files, and their frames at 24 a second, any of which can be asked for without reading all that is before it.

A position is a number of frames on that grid, counted from a file's first frame. A file of another rate shows at each the last frame at or
before it, as `clips` and so `data prepare` take it.

Letters: T frames, H W height and width of the footage, h w of small pictures of it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from hunyuan_video.clips import FPS, ROUNDING, VIDEO_SUFFIXES
from hunyuan_video.containers import open_container, rgb, video_stream
from hunyuan_video.curation.extras import opencv
from hunyuan_video.files import printable
from hunyuan_video.pictures import evenly

if TYPE_CHECKING:
    import av

SMALL = 320  # pixels, longest side of a small picture: enough for shots, motion and what stands still
END_BYTES = 2**20  # of either end of a file, by which it is known
BEFORE = 1.0  # seconds before a position from where a file is read: some count time from the end of a frame
Picture = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Footage:
    """A video file. `name` is what the user called it; `content` is what it is known by, under whatever name."""

    path: Path
    name: str
    content: str
    same: tuple[Path, ...] = ()
    """files with the same content"""


def find(sources: Sequence[Path]) -> list[Footage]:
    """The videos among files and in folders, each content once, in the order of their names.

    Raises:
        FileNotFoundError: one of them does not exist.
        ValueError: there is no video, or two of one name.
    """
    paths = dict[str, Path]()
    for source in sources:
        if not source.exists():
            raise FileNotFoundError(f"{source} does not exist; give videos, or folders of them.")
        if source.is_file():
            inside = {source.name: source}
        else:
            files = (path for path in source.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith("."))
            inside = {f"{source.name}/{path.relative_to(source).as_posix()}": path for path in files}
        if same := sorted(inside.keys() & paths.keys()):
            raise ValueError(f"{paths[same[0]]} and {inside[same[0]]} would both be {same[0]}; give the folder above them.")
        paths |= inside
    found = dict[str, Footage]()
    for name, path in sorted(paths.items()):
        footage = Footage(path, printable(name), content_of(path))
        known = found.get(footage.content)
        found[footage.content] = footage if known is None else replace(known, same=(*known.same, path))
    if not found:
        raise ValueError(f"{', '.join(map(str, sources))}: no {' '.join(VIDEO_SUFFIXES)} is there; give videos, or folders of them.")
    return list(found.values())


def content_of(path: Path) -> str:
    """Of its size and its first and last MiB: who goes on with terabytes does not read them again to know them."""
    digest, size = hashlib.sha256(), path.stat().st_size
    digest.update(size.to_bytes(8, "little"))
    with path.open("rb") as file:
        digest.update(file.read(END_BYTES))
        file.seek(max(END_BYTES, size - END_BYTES))
        digest.update(file.read(END_BYTES))
    return digest.hexdigest()


def shown(path: Path, start: int = 0, stop: int | None = None, *, seek: bool = True) -> Iterator[av.VideoFrame]:
    """What is on screen at the positions from `start` to before `stop`; the same frame again where the file is slower.

    Raises:
        ValueError: FFmpeg finds something wrong with the file, or its frames have no times.
    """
    stopped = float("inf") if stop is None else stop
    with open_container(path) as container:
        stream = video_stream(container)
        stream.codec_context.flags2 |= _exports_vectors()
        frames = container.decode(stream)
        first = next(frames, None)
        if first is None:
            raise ValueError("it has no frames")
        origin = _time(first)
        sought = seek and start / FPS > 2 * BEFORE
        if sought:
            assert stream.time_base is not None
            container.seek(int((origin + start / FPS - BEFORE) / stream.time_base), stream=stream)
            frames = container.decode(stream)
        else:
            frames = itertools.chain([first], frames)
        position, last, time = start, None, 0.0
        for frame in frames:
            time = _time(frame) - origin
            if last is None and sought and time > position / FPS + ROUNDING:
                break  # its index leads too far
            while last is not None and position < stopped and position / FPS + ROUNDING < time:
                yield last
                position += 1
            last = frame
            if position >= stopped:
                return
        else:
            while last is not None and position < stopped and position / FPS <= time + ROUNDING:
                yield last
                position += 1
            if last is not None or not sought:
                return  # else it led behind the end
    yield from shown(path, start, stop, seek=False)


def _time(frame: av.VideoFrame) -> float:
    stamp = frame.pts if frame.pts is not None else frame.dts
    if stamp is None or frame.time_base is None:
        raise ValueError("its frames have no times")
    return float(stamp * frame.time_base)


def _exports_vectors() -> Any:
    from av.codec.context import Flags2

    return Flags2.export_mvs


def upright(frame: av.VideoFrame) -> Picture:
    """As a person sees it."""
    return np.ascontiguousarray(np.rot90(rgb(frame), round(frame.rotation / 90)))


def small(picture: Picture, longest: int = SMALL) -> UInt8[np.ndarray, "h w 3"]:
    """Its pixels averaged, to at most this."""
    height, width = picture.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return picture
    cv2 = opencv()
    return cv2.resize(picture, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA)


def grey(pictures: UInt8[np.ndarray, "... 3"]) -> UInt8[np.ndarray, "..."]:
    """BT.601 brightness."""
    weights = np.array([77, 150, 29], np.uint32)
    return ((pictures * weights).sum(-1) >> 8).astype(np.uint8)


@dataclass(frozen=True)
class Part:
    """Of a file the frames of one clip: where it starts on the grid, and how many there are."""

    path: Path
    start: int
    num_frames: int


@dataclass(frozen=True)
class View:
    """A clip as it is looked at."""

    frames: UInt8[np.ndarray, "T h w 3"]
    """all of them, small"""
    large: UInt8[np.ndarray, "K H W 3"]
    """some of them, evenly spread, as they are"""
    vectors: float | None
    """how far the codec moved blocks, in heights of the picture a second, and some times that, as it often looks back several frames;
    None where it says nothing"""


def view(part: Part, num_large: int) -> View:
    """Raises a ValueError where the file ends early or is damaged."""
    wanted = set(evenly(part.num_frames, num_large))
    smalls, larges, moved = [], [], list[float]()
    before: tuple[float, Picture] | None = None
    for number, frame in enumerate(shown(part.path, part.start, part.start + part.num_frames)):
        if before is None or _time(frame) != before[0]:
            vectors = _vectors(frame)
            if before is not None and vectors is not None:
                moved.append(vectors / (_time(frame) - before[0]))
            before = _time(frame), upright(frame)
        smalls.append(small(before[1]))
        if number in wanted:
            larges.append(before[1])
    if len(smalls) < part.num_frames:
        raise ValueError(f"{part.path} ends at {part.start + len(smalls)}, before {part.start + part.num_frames}; it has changed.")
    return View(
        np.stack(smalls), np.stack(larges) if larges else np.empty((0, 1, 1, 3), np.uint8), float(np.mean(moved)) if moved else None
    )


def _vectors(frame: av.VideoFrame) -> float | None:
    """The mean length of a frame's motion vectors, in heights of the picture, by the area that they move; None if it has none, such as one
    that is coded alone."""
    data: Any = frame.side_data.get("MOTION_VECTORS")
    if data is None:
        return None
    vectors = data.to_ndarray()
    area = vectors["w"].astype(float) * vectors["h"]
    length = np.hypot(vectors["motion_x"].astype(float), vectors["motion_y"]) / np.maximum(vectors["motion_scale"], 1)
    return float((area * length).sum() / area.sum() / frame.height)
