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
    """Go on from a clip, `continued.times`, by videos of the request that count seeds up: all their steps. Each video's frames come
    together, with its last step, the first one's after the clip's own. What that step tells of itself is a video of so many times: if no
    other follows, the frames that came are that one.

    Raises:
        ValueError: the clip is shorter than what is to be held of it, or the request begins with something else.
    """
    overlap = continued.overlap
    sampling = request.complete(pipe.defaults)
    require(not request.held and request.video is None and not sampling.loop, "A video that goes on from a clip begins with nothing else.")
    continued.check(len(clip.pixels), sampling.num_frames)
    frames = sized(clip, sampling.height, sampling.width)
    digest, new, first = hashlib.sha256(frames.tobytes()), frames, None
    for number in range(continued.times):
        end = frames[-overlap:]
        each = replace(request, sampling=replace(sampling, seed=sampling.seed + number)).after(Clip(end), pipe.origin.given)
        with closing(pipe.steps(each)) as steps_of_it:  # pyright: ignore[reportArgumentType] (a generator)
            for step in steps_of_it:
                first = first or replace(step.provenance, image_sha256=None, keyframes=())
                made = replace(first, continued=replace(continued, times=number + 1))
                if step.frames is None:
                    yield replace(step, new_frames=None, provenance=made)
                    continue
                after = step.frames[overlap:]
                frames, new = np.concatenate([frames, after]), np.concatenate([new, after])
                digest.update(after.tobytes())
                made = replace(made, frames_sha256=digest.hexdigest())
                yield replace(step, frames=frames, new_frames=new, provenance=made)
                new = frames[:0]
