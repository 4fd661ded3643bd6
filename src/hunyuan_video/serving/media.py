"""The files of a served video: the video itself, a picture of it, a sheet of pictures, and the state in which it was interrupted.

T, H, W: frames, height and width in pixels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from hunyuan_video import video
from hunyuan_video.recording import Frames, Recording
from hunyuan_video.serving.attempt import State, Step

FPS = 24
THUMBNAIL, TILE = 512, 160  # pixels of the longest side
TILES = 25  # of a sheet, or fewer if the video has not so many frames


class Media:
    """Of one video, encoded while it is decoded. `show` makes frames of a step for its preview, if it has some to show."""

    def __init__(self, show: Callable[[Any], Frames | None]):
        self._show = show
        self._recording = Recording(".mp4", fps=FPS)

    def __enter__(self) -> Media:
        return self

    def __exit__(self, *error: object) -> None:
        self._recording.__exit__(*error)

    def keep(self, state: State, path: Path) -> None:
        video.save_latents(state.latents, path, {"step": state.step, "made": state.made})

    def read(self, path: Path) -> State:
        latents, stored = video.load_latents(path)
        if stored.keys() != {"step", "made"}:
            raise ValueError("it holds no state of an interrupted video")
        return State(stored["step"], stored["made"], latents)

    def preview(self, step: Step) -> bytes | None:
        frames = self._show(step)
        return None if frames is None else moving(frames)

    def add(self, step: Step) -> None:
        self._recording.add(step.new_frames)

    def finish(self, last: Any, folder: Path) -> dict[str, Path]:
        path = video.save_recording(self._recording, folder / "video.mp4", metadata=last.provenance.to_json())
        thumbnail, sheet = folder / "thumbnail.webp", folder / "spritesheet.webp"
        small(last.frames[len(last.frames) // 2], THUMBNAIL).save(thumbnail, quality=85)
        sheet_of(last.frames).save(sheet, quality=80)
        return {"video": path, "thumbnail": thumbnail, "spritesheet": sheet}


def small(frame: UInt8[np.ndarray, "H W 3"], side: int) -> Image.Image:
    """A frame of which the longest side is no longer than `side`."""
    picture = Image.fromarray(frame)
    picture.thumbnail((side, side))
    return picture


def sheet_of(frames: Frames) -> Image.Image:
    """Frames from all over a video, in rows, the first one top left."""
    which = np.linspace(0, len(frames) - 1, min(TILES, len(frames))).round().astype(int)
    tiles = [small(frames[index], TILE) for index in which]
    columns, (width, height) = math.ceil(math.sqrt(len(tiles))), tiles[0].size
    sheet = Image.new("RGB", (columns * width, math.ceil(len(tiles) / columns) * height))
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % columns * width, index // columns * height))
    return sheet


def moving(frames: Frames, fps: int = 12) -> bytes:
    """A WebP that moves."""
    first, *others = [Image.fromarray(frame) for frame in frames]
    target, options = io.BytesIO(), dict[str, Any](format="WEBP", quality=70, method=0)
    first.save(target, **options, save_all=True, append_images=others, duration=1000 // fps, loop=0)
    return target.getvalue()
