"""What is measured of a clip without any model, and which of its prompt's words it can be held to.

Letters: T frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from hunyuan_video.clips import FPS, look, pictures
from hunyuan_video.evaluation import pixels
from hunyuan_video.evaluation.guard import Fault, faults
from hunyuan_video.evaluation.tags import values
from hunyuan_video.motion.brightness import grey
from hunyuan_video.motion.camera import CameraMotion, camera_motion
from hunyuan_video.motion.flow import Moved, moved
from hunyuan_video.pictures import evenly, reading

Frames = UInt8[np.ndarray, "T H W 3"]

LOOKS = 8  # frames that are looked at one by one
MOST_SECONDS = 60.0
MOST_FRAMES = 3600  # of a clip that are held at once: a minute at 60 a second
MOST_BYTES = 2**31  # of these; 26 seconds at 720p
PRESENT = 0.01  # of a frame, in which a colour is there
COLOURLESS = 8.0  # levels of chroma, below which a frame is black and white


@dataclass(frozen=True)
class Film:
    """A clip as it is in its file: its own frames, and how many of them are shown a second."""

    frames: Frames
    fps: float


def read(path: Path) -> Film:
    """Of the first minute, `MOST_FRAMES` and `MOST_BYTES` at most. Raises a ValueError for a file that is damaged or no clip."""
    with reading(path):
        times, height, width = look(path, MOST_SECONDS, FPS)
        times = times[: max(1, min(MOST_FRAMES, MOST_BYTES // (3 * height * width)))]
        frames = np.stack([np.asarray(picture) for picture in pictures(path, range(len(times)))])
    seconds = float(times[-1] - times[0])
    return Film(frames, (len(times) - 1) / seconds if seconds > 0 else FPS)  # one frame has no rate, nor have several at one time


@dataclass(frozen=True)
class Seen:
    num_frames: int
    fps: float
    height: int
    width: int
    faults: tuple[Fault, ...]
    """why it is no video (see `guard`)"""
    flicker: float
    """VBench's temporal flickering: 1 is none"""
    speed: float
    warp_error: float
    dynamic: bool
    """these three as `flow.Moved` has them"""
    camera: str
    camera_confidence: float
    """as `camera.CameraMotion` has them"""
    sharpness: float
    blockiness: float
    banding: float
    """of frames, as `pixels` has them; the median"""
    asked: dict[str, bool]
    """by those tags of the prompt that can be looked for, whether it is there"""


def see(film: Film, tags: Sequence[str]) -> Seen:
    """What a clip is like, and whether it has what is asked for: nothing is there in a clip with a fault."""
    frames, found = film.frames, faults(film.frames)
    looks = frames[evenly(len(frames), LOOKS)]
    light = [grey(frame) for frame in looks]
    motion = moved(frames, film.fps) if len(frames) > 1 else Moved(0.0, 0.0, dynamic=False)
    camera = camera_motion(frames)
    return Seen(
        num_frames=len(frames),
        fps=round(film.fps, 3),
        height=frames.shape[1],
        width=frames.shape[2],
        faults=found,
        flicker=flicker(frames),
        speed=motion.speed,
        warp_error=motion.warp_error,
        dynamic=motion.dynamic,
        camera=camera.label,
        camera_confidence=camera.confidence,
        sharpness=float(np.median([pixels.sharpness(frame) for frame in light])),
        blockiness=float(np.median([pixels.blockiness(frame) for frame in light])),
        banding=float(np.median([pixels.banding(frame) for frame in light])),
        asked={tag: right and not found for tag, right in answers(looks, camera, tags).items()},
    )


def unreadable(tags: Sequence[str]) -> dict[str, Any]:
    """What is said of a clip whose file is damaged: it is no video, and nothing that was asked for is there."""
    return {"faults": ["unreadable"], "asked": dict.fromkeys(_looked_for(tags), False)}


def flicker(frames: Frames) -> float:
    """VBench's temporal flickering: 1 less the mean difference of frames from those before them, of 255 levels; meant for still scenes."""
    differences = [np.abs(two.astype(np.int16) - one).mean() for one, two in pairwise(frames)]
    return 1 - float(np.mean(differences)) / 255 if differences else 1.0


def answers(looks: Frames, camera: CameraMotion, tags: Sequence[str]) -> dict[str, bool]:
    """Of the tags that can be looked for: one movement of the camera, colours, black and white."""
    found: dict[str, bool] = {}
    for tag in _looked_for(tags):
        kind, _, value = tag.partition(":")
        if kind == "camera":
            found[tag] = value in (camera.direction, camera.label, camera.label.partition("-")[0])
        elif kind == "colour":
            found[tag] = bool(np.median([pixels.colour_share(frame, value) for frame in looks]) >= PRESENT)
        else:
            found[tag] = bool(np.median([pixels.chroma(frame) for frame in looks]) < COLOURLESS)
    return found


def _looked_for(tags: Sequence[str]) -> list[str]:
    moves = [value for value in values(tags, "camera") if value not in ("follow", "cut")]
    wanted = [f"camera:{move}" for move in moves if len(moves) == 1]  # one after another would have to be found in time
    wanted += [f"colour:{colour}" for colour in values(tags, "colour")]
    return wanted + ["style:black-and-white"] * ("style:black-and-white" in tags)
