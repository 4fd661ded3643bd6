"""Videos of strangers, read in a process of its own with bounded memory and time.

`python -m hunyuan_video.serving.strangers FILE MAX_PIXELS END COUNT HEIGHT WIDTH` writes frames as NumPy has them, in the file's own size
if that is 0 by 0. Imports no torch.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from hunyuan_video.clips import FPS, look, on_grid, pictures
from hunyuan_video.config import Limits, require
from hunyuan_video.pictures import fill
from hunyuan_video.request import Clip

MEMORY = 2**31  # bytes of addresses
SECONDS = 20
_NEEDED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT")  # by Python and its libraries
End = Literal["first", "last"]


def last_frame(video: bytes, max_pixels: int) -> bytes:
    """A PNG. Raises as `frames_at`."""
    picture = io.BytesIO()
    Image.fromarray(frames_at(video, max_pixels, "last", 1).pixels[0]).save(picture, "PNG")
    return picture.getvalue()


def frames_at(video: bytes, max_pixels: int, end: End, count: int, size: tuple[int, int] = (0, 0), *, exactly: bool = True) -> Clip:
    """The `count` frames at one end of a video's file, at 24 a second, in a size, height and width, or their own; all, if there are fewer
    and it need not be `exactly` so many.

    Raises:
        ValueError: the file is no video that can be read, is too short, or a frame has more pixels than that.
    """
    environment = {name: os.environ[name] for name in _NEEDED if name in os.environ}  # and no key or password, should the file take over
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(video)
        file.flush()
        words = map(str, (file.name, max_pixels, end, count, *size))
        command = [sys.executable, "-m", "hunyuan_video.serving.strangers", *words]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"video takes more than {SECONDS} seconds to read; give a shorter one.") from error
    if done.returncode != 0:
        raise ValueError("video cannot be read: it is no MP4 or WebM, damaged, or too large; give one that this server has made.")
    clip = clip_in(done.stdout)
    require(len(clip.pixels) == count or not exactly, f"video has {len(clip.pixels)} frames, but {count} are needed; give a longer one.")
    return clip


def clip_in(content: bytes) -> Clip:
    """Of what `content_of` gives."""
    return Clip(np.load(io.BytesIO(content), allow_pickle=False))


def content_of(clip: Clip) -> bytes:
    """A file's, for `Results`."""
    file = io.BytesIO()
    np.save(file, clip.pixels, allow_pickle=False)
    return file.getvalue()


def main() -> None:
    _limit()
    path, end = Path(sys.argv[1]), sys.argv[3]
    max_pixels, count, height, width = (int(sys.argv[place]) for place in (2, 4, 5, 6))
    times, own_height, own_width = look(path, Limits().max_frames / FPS if end == "last" else count / FPS, FPS)
    if own_height * own_width > max_pixels:
        sys.exit(1)
    size, shown = (height or own_height, width or own_width), on_grid(times, FPS, Limits().max_frames)
    wanted = shown[-count:] if end == "last" else shown[:count]
    frames = np.stack([fill(picture, *size) for picture in pictures(path, wanted)])
    sys.stdout.buffer.write(content_of(Clip(frames)))


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
