"""Frames into a file of any format, as they come: H.264 and AV1 are encoded by a thread of their own while further frames are made.
The file is written at the end, for its metadata, which say what all frames were, stand at its beginning.

The same frames give the same bytes, so encoder threads and random ids are pinned.
Licence: PyAV's wheels carry FFmpeg with libx264, which is GPL. This file only calls it; who ships those wheels ships GPL code.
It is imported where a video is encoded, so that everything else works without it.

T, H, W: frames, height and width in pixels.
"""

from __future__ import annotations

import itertools
import os
import platform
import struct
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import GifImagePlugin, Image, PngImagePlugin

from hunyuan_video import colours

if TYPE_CHECKING:
    from av import Packet, VideoStream

Frames = UInt8[np.ndarray, "T H W 3"]
# Container, codec, its speed, default and largest crf. 18 is where H.264's loss stops being seen (the official code leaves imageio's 25),
# and 24 is near it on AV1's scale.
ENCODERS = {".mp4": ("mp4", "libx264", "medium", 18, 51), ".webm": ("webm", "libsvtav1", "8", 24, 63)}


class Recording:
    """What will be a file with this suffix: `.mp4`, `.webm`, `.gif`, or `.png`, of which several frames make a folder.

    crf: loss, 0 is best; 18 for mp4 and 24 for webm unless given.
    Raises a ValueError for an impossible rate or loss; and as `add`. Leave the `with` block at any time.
    """

    def __init__(self, suffix: str, *, fps: int | float = 24, crf: int | None = None):
        *_, default_crf, max_crf = ENCODERS.get(suffix, (None, None))
        if not 1 <= fps <= (50 if suffix == ".gif" else 240):
            raise ValueError(f"fps is {fps}; it must be 1 to 240, and at most 50 in a GIF, as viewers slow faster ones down.")
        if crf is not None and (max_crf is None or not 0 <= crf <= max_crf):
            raise ValueError(f"crf is {crf}; it must be 0 (best) to 51 for .mp4, 0 to 63 for .webm, and left out for other formats.")
        self.suffix, self.fps, self.num_frames = suffix, fps, 0
        self._crf = default_crf if crf is None else crf
        self._size: tuple[int, int] | None = None
        self._pieces: list[Frames] = []
        self._encoder: _Encoder | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoding")
        self._done: list[Future[None]] = []

    def add(self, frames: Frames) -> None:
        """Go on with these. Raises a ValueError for frames that the format cannot hold, or of another size than those before."""
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape[1:]:
            raise ValueError(f"Frames must be uint8 [T, H, W, 3], not {frames.dtype} {list(frames.shape)}; make them with to_frames.")
        height, width = frames.shape[1:3]
        if self.suffix in ENCODERS and (height % 2 or width % 2 or not 16 <= min(height, width) <= max(height, width) <= 8192):
            raise ValueError(
                f"The frames are {width}x{height}; {self.suffix} needs even sizes from 16 to 8192: crop them, or write .png or .gif."
            )
        if self._size not in (None, (height, width)):
            raise ValueError(f"The frames are {width}x{height}, but those before were {self._size[1]}x{self._size[0]}.")
        self._size, self.num_frames = (height, width), self.num_frames + len(frames)
        if self.suffix not in ENCODERS:
            self._pieces.append(frames)
        elif len(frames):
            self._encoder = self._encoder or _Encoder(self.suffix, height, width, self.fps, self._crf)
            self._done += [self._thread.submit(self._encoder.encode, picture) for picture in frames]

    def write(self, path: Path, comment: str | None) -> None:
        """The whole file, or folder, at `path`, whose suffix does not count."""
        if self._size is None or self.num_frames == 0:
            raise ValueError("There are no frames to write; they must be uint8 [T, H, W, 3], with one or more.")
        if self._encoder is not None:
            for done in self._done:
                done.result()
            self._encoder.write(path, comment)
            return
        write = _write_gif if self.suffix == ".gif" else _write_pngs
        write(np.concatenate(self._pieces) if len(self._pieces) > 1 else self._pieces[0], path, self.fps, comment)

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_error: object) -> None:
        self._thread.shutdown(cancel_futures=True)
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None


class _Encoder:
    """H.264 or AV1: packets first, and at the end a container around them."""

    def __init__(self, suffix: str, height: int, width: int, fps: int | float, crf: int | None):
        av = pyav()
        from av.video.reformatter import ColorRange

        self._format, codec, preset, _, _ = ENCODERS[suffix]
        options = {"preset": preset, "crf": str(crf)}
        if codec == "libx264" and platform.machine() in ("x86_64", "AMD64"):
            # x264's AVX-512 code reads memory that nobody wrote (build 165, widths such as 192 and 320), and every file comes out
            # different.
            options["x264-params"] = "asm=sse4.2"
        os.environ.setdefault("SVT_LOG", "1")  # errors only: SVT-AV1 prints its settings to stderr, and has no other switch
        self._nowhere = av.open(BytesIO(), "w", format=self._format)  # only what has a container has a stream, which is what is muxed
        stream = self._nowhere.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        context = stream.codec_context
        context.thread_type, context.thread_count = "FRAME", 4  # x264's bytes depend on both, and by default on the number of cores
        # Untagged, players guess the matrix from the size, and colours shift.
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = colours.BT709
        self._nowhere.start_encoding()  # which the stream of another container can be made from
        self._stream: VideoStream = stream
        self._packets: list[Packet] = []

    def encode(self, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        from av.video.reformatter import ColorRange, Colorspace

        rgb = pyav().VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        yuv = rgb.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, interpolation=scaling())
        self._packets += self._stream.encode(yuv)

    def close(self) -> None:
        """Let go of its threads, which else run until Python looks for circles: a container and its streams hold each other."""
        self._packets.clear()
        self._nowhere.close()

    def write(self, path: Path, comment: str | None) -> None:
        self._packets += self._stream.encode(None)
        # bitexact: Matroska draws random ids without it. faststart: the index comes first, so browsers play while they load.
        options = {"fflags": "+bitexact", "movflags": "+faststart"}
        with pyav().open(str(path), "w", format=self._format, container_options=options) as container:
            if comment:
                container.metadata["comment"] = comment
            stream = container.add_stream_from_template(self._stream)
            for packet in self._packets:
                packet.stream = stream
                container.mux(packet)


def _gif_delays(num_frames: int, fps: int | float) -> list[int]:
    """Hundredths of a second per frame. The ends are rounded, not the delays, so that errors never add up."""
    ends = [round(100 * index / fps) for index in range(num_frames + 1)]
    return [end - start for start, end in itertools.pairwise(ends)]


def _write_gif(pixels: Frames, path: Path, fps: int | float, comment: str | None) -> None:
    # One palette, of pixels spread over the whole video: with one per frame still areas flicker.
    spread = pixels[:: -(-len(pixels) // 16), :: -(-pixels.shape[1] // 64), :: -(-pixels.shape[2] // 64)]
    palette = Image.fromarray(spread.reshape(-1, spread.shape[2], 3)).quantize(256, Image.Quantize.MEDIANCUT, kmeans=1)
    with open(path, "wb") as file:  # by hand, for Pillow's save_all drops a frame that equals the one before it
        file.write(b"GIF89a" + struct.pack("<HHBBB", pixels.shape[2], pixels.shape[1], 0xF7, 0, 0))
        file.write(bytes(palette.getpalette() or ()).ljust(768, b"\0") + b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")  # loop for ever
        if comment:
            blocks = [comment[start : start + 255].encode() for start in range(0, len(comment), 255)]
            file.write(b"!\xfe" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0")
        for picture, delay in zip(pixels, _gif_delays(len(pixels), fps), strict=True):
            indexed = Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
            file.writelines(GifImagePlugin.getdata(indexed, duration=10 * delay))
        file.write(b";")


def _write_pngs(pixels: Frames, path: Path, fps: int | float, comment: str | None) -> None:
    if len(pixels) > 1:
        path.mkdir()
    for index, picture in enumerate(pixels):
        text = PngImagePlugin.PngInfo()
        text.add_text("fps", str(fps))
        if comment and index == 0:
            text.add_text("Comment", comment)
        Image.fromarray(picture).save(path / f"{index:05d}.png" if len(pixels) > 1 else path, format="PNG", pnginfo=text)


def pyav():  # without a return type, from which a type checker would know no more than that it is a module
    """PyAV. Raises an ImportError that says what to install where it is missing."""
    try:
        import av
    except ImportError as error:
        raise ImportError("Video files are read and written by PyAV, which is not installed: pip install av") from error
    return av


def scaling() -> int:
    """How colours are converted: the careful way."""
    pyav()
    from av.video.reformatter import Interpolation

    return Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
