"""A file of footage, watched once: its shots, the clips in them, and what lies over all of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from hunyuan_video.clips import FPS
from hunyuan_video.curation.footage import Footage, grey, shown, small, upright
from hunyuan_video.curation.ledger import Record
from hunyuan_video.curation.overlays import Sample, inside_bars, over_film
from hunyuan_video.curation.shots import Transitions, watch
from hunyuan_video.curation.start import Lengths, clips_of
from hunyuan_video.files import sha256

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Looking:
    footage: Footage
    transitions: Transitions
    lengths: Lengths


def look(job: Looking) -> Record:
    """What the ledger says of a file; of one that cannot be read, what is wrong with it."""
    sample, size = Sample(), list[int]()

    def pictures() -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        for frame in shown(job.footage.path):
            picture = upright(frame)
            size[:] = picture.shape[:2]
            sample.add(grey(little := small(picture)))
            yield little

    try:
        seen = watch(pictures(), job.transitions)
        digest = sha256(job.footage.path)
    except ValueError as error:  # what FFmpeg finds is one; a disk or a network that fails says nothing of the file, and ends the run
        log.warning("%s cannot be used: %s", job.footage.name, error)
        return {"id": job.footage.content, "problem": str(error)}
    frame = inside_bars(sample.pictures)
    top, left, height, width = frame.pixels(*sample.pictures.shape[1:])
    logos = [box.of(frame) for box in over_film(sample.pictures[:, top : top + height, left : left + width], seen.shots)]
    return {
        "id": job.footage.content,
        "sha256": digest,
        "height": size[0],
        "width": size[1],
        "seconds": seen.num_frames / FPS,
        "shots": [list(shot) for shot in seen.shots],
        "clips": [list(clip) for clip in clips_of(seen.shots, seen.sharp, job.lengths)],
        "logos": [list(box) for box in logos],
    }
