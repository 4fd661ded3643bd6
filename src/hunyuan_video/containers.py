"""Video files, opened and taken apart: whatever FFmpeg finds wrong with one is a ValueError. Imports no torch."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from jaxtyping import UInt8

from hunyuan_video import colours
from hunyuan_video.recording import pyav, scaling

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

# In ITU-T H.273. Matrices: red, green and blue as they are; BT.709, unsaid, FCC, BT.601 twice, SMPTE 240M, BT.2020.
BT601, UNSPECIFIED, READ_MATRICES = 6, 2, (0, 1, 2, 4, 5, 6, 7, 9)
HD_LINES = 720
READABLE = "mov,matroska,avi"  # FFmpeg also reads playlists, by which a hostile "video" has other files or addresses opened


def _stated_size(file: BinaryIO) -> int:
    """Bytes that an MP4's boxes or a Matroska segment claim, 0 if unsaid; FFmpeg takes some cut files for shorter videos."""
    head = file.read(64)
    if head.startswith(b"\x1a\x45\xdf\xa3") and b"\x18\x53\x80\x67" in head:
        start = head.index(b"\x18\x53\x80\x67") + 4
        width = 9 - head[start].bit_length()  # the leading zeros say how many bytes the size has
        size, unsaid = int.from_bytes(head[start : start + width]) & (2 ** (7 * width) - 1), 2 ** (7 * width) - 1
        return 0 if size == unsaid else start + width + size
    end = 0
    while head[4:8].isalpha() and (head[4:8] == b"ftyp" or end):
        size = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4])
        if size < 8:  # 0 means to the end of the file
            break
        file.seek(end := end + size)
        head = file.read(16)
    return end


def rgb(frame: av.VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of a decoded frame as an ordinary screen shows them, on white where it is transparent. Of a file that does not say how
    colours are coded, it is BT.709 from 720 lines on and else BT.601, in the limited range, as players take it.

    Raises:
        ValueError: they are coded in a way that is not read.
    """
    transfer, primaries = int(frame.color_trc), int(frame.color_primaries)
    convert = functools.partial(frame.to_ndarray, src_colorspace=_matrix(frame), interpolation=scaling())
    if not colours.is_ordinary(transfer, primaries):
        return colours.to_bt709(convert(format="rgb48le"), transfer, primaries)
    if not any(component.is_alpha for component in frame.format.components):
        return convert(format="rgb24")
    pixels = convert(format="rgba").astype(np.uint16)
    alpha = pixels[..., 3:]
    return ((pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _matrix(frame: av.VideoFrame) -> int:
    """How brightness and colours of a frame make red, green and blue, in the numbers of H.273."""
    matrix = int(frame.colorspace)
    if matrix == UNSPECIFIED and not frame.format.is_rgb:
        if not colours.is_ordinary(int(frame.color_trc), colours.BT709):
            return colours.BT2020
        return colours.BT709 if frame.height >= HD_LINES else BT601
    if matrix not in READ_MATRICES:
        raise ValueError(f"its colours are coded by matrix {matrix} of H.273, which is not read; convert it to BT.709")
    return matrix


def video_stream(container: InputContainer) -> av.VideoStream:
    """The moving picture of a file, which may have its cover first. Raises a ValueError where there is none, or a transparent one."""
    from av.stream import Disposition

    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not moving:
        raise ValueError("there is no video in it but a cover picture")
    best = container.streams.best("video")
    stream = best if best in moving else moving[0]
    assert isinstance(stream, pyav().VideoStream)
    if "1" in (stream.metadata.get("alpha_mode"), stream.metadata.get("ALPHA_MODE")):  # of WebM; FFmpeg's decoder gives what lies under it
        raise ValueError("its transparency is not read; put it on a background")
    return stream


@contextlib.contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """A video file, opened. What FFmpeg finds wrong with it, there or later inside the block, is a ValueError."""
    av = pyav()
    with open(path, "rb") as file:  # not the path, in which FFmpeg takes "12:30.mp4" for a protocol
        size = path.stat().st_size
        if size == 0:
            raise ValueError("it is empty")
        if _stated_size(file) > size:
            raise ValueError("the end is missing")
        file.seek(0)
        # Other programs' text that is no UTF-8 comes as surrogates: in PyAV 19 always, in 18, which else refuses the file, only if told so.
        in_18: dict[str, Any] = {"metadata_errors": "surrogateescape"} if av.__version__ < "19" else {}
        try:
            with av.open(file, "r", container_options={"format_whitelist": READABLE}, **in_18) as container:
                if not container.streams.video:
                    raise ValueError("there is no video in it")
                yield container
        except av.FFmpegError as error:
            raise ValueError(error.strerror or str(error)) from error
