"""A clip, and what comes after it: videos that each begin with the last frames of the one before, put together.

F frames, H2 W2 height and width in pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import numpy as np

from hunyuan_video.config import require
from hunyuan_video.given import sized
from hunyuan_video.pipeline import HunyuanVideo, Step
from hunyuan_video.request import Clip, Continued, Request


def steps(pipe: HunyuanVideo, request: Request, clip: Clip, continued: Continued) -> Iterator[Step]:
    """Go on from a clip, `continued.times`, by videos of the request that count seeds up: all their steps. Of those that decode, the first
    has the clip's frames and the last one all.

    Raises:
        ValueError: the clip is shorter than what is to be held of it, or the request begins with something else.
    """
    overlap = continued.overlap
    sampling = request.complete(pipe.defaults)
    require(not request.held and request.video is None and not sampling.loop, "A video that goes on from a clip begins with nothing else.")
    require(
        overlap < sampling.num_frames,
        f"overlap is {overlap}, but each video has {sampling.num_frames} frames; it must be fewer.",
    )
    frames = sized(clip, sampling.height, sampling.width)
    require(
        len(frames) >= overlap,
        f"The clip has {len(frames)} frames, fewer than the overlap of {overlap}; give a longer one, or a smaller overlap.",
    )
    made, last, new = None, None, [frames]
    for number in range(continued.times):
        end = frames[-overlap:]
        each = replace(request, sampling=replace(sampling, seed=sampling.seed + number)).after(Clip(end), pipe.origin.given)
        hidden, pieces = overlap, []
        with closing(pipe.steps(each)) as steps_of_it:  # pyright: ignore[reportArgumentType] (a generator)
            for last in steps_of_it:
                made = made or replace(last.provenance, image_sha256=None, keyframes=(), continued=continued)
                if last.new_frames is not None:
                    piece, hidden = last.new_frames[hidden:], max(0, hidden - len(last.new_frames))
                    pieces.append(piece)
                    new.append(piece)
                    if last.step == last.total:
                        frames = np.concatenate([frames, *pieces])
                    last = replace(last, frames=None, new_frames=np.concatenate(new))
                    new.clear()
                if last.stage != "decode" or last.step < last.total or number + 1 < continued.times:
                    yield replace(last, provenance=made)
    assert made is not None and last is not None
    made = replace(made, frames_sha256=hashlib.sha256(frames.tobytes()).hexdigest())
    yield replace(last, frames=frames, provenance=made)
