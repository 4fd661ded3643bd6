"""Clips as files: the frames at 24 a second, cropped, and coded again.

Not by reference to the footage: `data prepare` and every other reader take them as they are, a person can look at them, they stay when the
footage moves, and nobody decodes hours to reach a minute. It costs a second coding, with little loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hunyuan_video.clips import FPS
from hunyuan_video.curation.crop import Box
from hunyuan_video.curation.footage import Part, shown, upright
from hunyuan_video.curation.ledger import Record
from hunyuan_video.files import replacing, sha256
from hunyuan_video.recording import Recording

CRF = 12  # of x264


@dataclass(frozen=True)
class Cutting:
    """A clip to write."""

    id: str
    part: Part
    crop: Box
    to: Path


def cut(job: Cutting) -> Record:
    """Write it, whole or not at all; the same bytes each time. Raises a ValueError where the footage is damaged."""
    height, width = 0, 0
    with Recording(job.to.suffix, fps=FPS, crf=CRF) as recording:
        for frame in shown(job.part.path, job.part.start, job.part.start + job.part.num_frames):
            picture = upright(frame)
            top, left, height, width = job.crop.pixels(*picture.shape[:2])
            recording.add(np.ascontiguousarray(picture[None, top : top + height, left : left + width]))
        with replacing(job.to) as (temporary, _):
            recording.write(temporary, comment=None)
    size = {"height": height, "width": width, "bytes": job.to.stat().st_size}
    return {"id": job.id, "crop": list(job.crop), **size, "sha256": sha256(job.to)}
