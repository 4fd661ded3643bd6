"""The last frame of a video, decoded in a process of its own with bounded memory and time: the file may be a stranger's.

`python -m hunyuan_video.serving.last_frame MAX_PIXELS` reads a video and writes a PNG. Imports no torch.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys

import av
from av.video.reformatter import Interpolation
from PIL import Image

MEMORY = 2**31  # bytes of addresses
SECONDS = 20
_NEEDED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT")  # by Python and its libraries
_FORMATS = "mov,matroska"  # FFmpeg also reads playlists, by which a hostile "video" has other files or addresses opened


def last_frame(video: bytes, max_pixels: int) -> bytes:
    """A PNG. Raises a ValueError if the file is no video that can be read, or a frame has more pixels than that."""
    command = [sys.executable, "-m", "hunyuan_video.serving.last_frame", str(max_pixels)]
    environment = {name: os.environ[name] for name in _NEEDED if name in os.environ}  # and no key or password, should the file take over
    try:
        done = subprocess.run(command, input=video, env=environment, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"video takes more than {SECONDS} seconds to read; give a shorter one.") from error
    if done.returncode != 0:
        raise ValueError("video cannot be read: it is no MP4 or WebM, damaged, or too large; give one that this server has made.")
    return done.stdout


def main() -> None:
    _limit()
    max_pixels, source = int(sys.argv[1]), io.BytesIO(sys.stdin.buffer.read())
    last: av.VideoFrame | None = None
    with av.open(source, "r", container_options={"format_whitelist": _FORMATS}) as container:
        stream = container.streams.video[0]
        if stream.width * stream.height > max_pixels:
            sys.exit(1)
        stream.thread_count = 1
        for frame in container.decode(stream):
            last = frame
    if last is None or last.width * last.height > max_pixels:
        sys.exit(1)
    careful = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
    pixels = last.to_ndarray(format="rgb24", src_colorspace=_matrix(last), interpolation=careful)
    picture = io.BytesIO()
    Image.fromarray(pixels).save(picture, "PNG")
    sys.stdout.buffer.write(picture.getvalue())


def _matrix(frame: av.VideoFrame) -> int:
    """How its colours are coded, in the numbers of H.273; of one that does not say, as players take it (see `video.rgb`)."""
    stated, (bt709, unspecified, bt601) = int(frame.colorspace), (1, 2, 6)
    return stated if stated != unspecified else (bt709 if frame.height >= 720 else bt601)


def _limit() -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits; the time is bounded there, too
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


if __name__ == "__main__":
    main()
