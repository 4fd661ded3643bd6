"""Footage whose truth is known: scenes like nature's (opaque shapes on one another), filmed, joined, and spoiled on purpose.

T, H, W: frames, height and width in pixels. Frames are uint8 [T, H, W, 3], 24 a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from hunyuan_video.files import replacing
from hunyuan_video.recording import Recording

HEIGHT, WIDTH = 400, 704
MARGIN = 2.0  # sides of a picture that a scene has, for the camera to move in
Frames = np.ndarray
Spoil = Callable[[Frames, np.random.Generator], Frames]


def scene(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Dead leaves: sizes by a power law, each leaf in its colour, a little rough, with hard edges."""
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[:] = rng.integers(40, 200, 3)
    radii = np.sort((0.012**-2 + rng.random(900) * (0.25**-2 - 0.012**-2)) ** -0.5 * min(height, width))[::-1]
    prevailing = rng.integers(60, 190, 3)
    for radius in rng.permutation(np.concatenate([radii, radii[:40]])):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (max(1, int(radius)), max(1, int(radius * rng.uniform(0.3, 1))))
        colour = np.clip(prevailing + rng.normal(0, 55) + rng.normal(0, 22, 3), 5, 250).tolist()
        corners = cv2.ellipse2Poly(centre, axes, int(rng.integers(360)), 0, 360, int(rng.choice([10, 60, 90, 120])))
        cv2.fillPoly(canvas, [np.array(corners)], colour)
    return np.clip(canvas + rng.normal(0, 5, (height, width, 1)), 0, 255).astype(np.uint8)


CAMERAS = ("pan-left", "pan-right", "pan-up", "pan-down", "zoom-in", "zoom-out", "handheld", "static")


def filmed(seed: int, num_frames: int, camera: str, height: int = HEIGHT, width: int = WIDTH) -> Frames:
    """A scene as a camera sees it; for a `static` one something crosses the picture."""
    rng = np.random.default_rng([seed, 21])
    sheet = scene(rng, round(height * MARGIN), round(width * MARGIN))
    along = np.linspace(-0.5, 0.5, num_frames)
    across, down, scale = np.zeros(num_frames), np.zeros(num_frames), np.full(num_frames, 1.25)
    if camera.startswith("pan"):
        sign = 1 if camera in ("pan-right", "pan-down") else -1
        (across if camera in ("pan-left", "pan-right") else down)[:] = sign * along * 0.35
    elif camera.startswith("zoom"):
        scale = 1.35 * np.exp((-1 if camera == "zoom-in" else 1) * along * 0.5)
    elif camera == "handheld":
        noise = rng.normal(0, 1, (2, num_frames + 4))
        across, down = (np.convolve(one, np.ones(5) / 5, "valid") * 0.02 for one in noise)
    thing = scene(rng, height // 2, height // 2)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for number in range(num_frames):
        zoom = scale[number]
        corner = (
            sheet.shape[1] / 2 + across[number] * width - width * zoom / 2,
            sheet.shape[0] / 2 + down[number] * height - height * zoom / 2,
        )
        matrix = np.array([[zoom, 0, corner[0]], [0, zoom, corner[1]]])
        frames[number] = cv2.warpAffine(sheet, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        if camera == "static":
            place = (round(width * (0.5 + 0.7 * along[number])), height // 2)
            _paste(frames[number], thing, place)
    return frames


def _paste(frame: np.ndarray, thing: np.ndarray, centre: tuple[int, int]) -> None:
    """A round piece of another scene."""
    height, width = frame.shape[:2]
    y, x = np.mgrid[:height, :width]
    radius = len(thing) // 2 - 1
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
    frame[inside] = thing[(y - centre[1] + radius)[inside], (x - centre[0] + radius)[inside]]


# --- What spoils a shot -------------------------------------------------------------------------------------------------------


def blurred(frames: Frames, rng: np.random.Generator) -> Frames:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), float(rng.uniform(4, 6))) for frame in frames])


def dark(frames: Frames, rng: np.random.Generator) -> Frames:
    return (frames * 0.1).astype(np.uint8)


def overexposed(frames: Frames, rng: np.random.Generator) -> Frames:
    """Of eight pixels in ten nothing is left but white."""
    return np.clip(frames * (255 / np.quantile(frames, 0.2)), 0, 255).astype(np.uint8)


def flat(frames: Frames, rng: np.random.Generator) -> Frames:
    return (118 + frames * 0.08).astype(np.uint8)


def blocky(frames: Frames, rng: np.random.Generator) -> Frames:
    """As a picture of few kilobytes."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(3, 7))]
    coded = (cv2.imencode(".jpg", frame, quality)[1] for frame in frames)
    return np.stack([picture for jpeg in coded if (picture := cv2.imdecode(jpeg, cv2.IMREAD_COLOR)) is not None])


def still(frames: Frames, rng: np.random.Generator) -> Frames:
    """Nothing moves at all."""
    return np.repeat(frames[:1], len(frames), axis=0)


def frozen(frames: Frames, rng: np.random.Generator) -> Frames:
    """For a second in the middle, and then it goes on from there."""
    start = len(frames) // 3
    return np.concatenate([frames[:start], np.repeat(frames[start : start + 1], HELD, axis=0), frames[start:-HELD]])


def soft_start(frames: Frames, rng: np.random.Generator) -> Frames:
    """Out of focus for a moment."""
    spoiled = frames.copy()
    spoiled[:SOFT] = blurred(frames[:SOFT], rng)
    return spoiled


SOFT, HELD = 6, 26  # frames
LINES = ("Where have you been all night?", "I never said that to anyone.", "We should leave before dawn.", "Look at the stars, my friend.")


def _write(frame: np.ndarray, words: str, height: float, size: float) -> None:
    (wide, _), _ = cv2.getTextSize(words, cv2.FONT_HERSHEY_DUPLEX, size, 2)
    place = ((frame.shape[1] - wide) // 2, int(frame.shape[0] * height))
    for colour, width in (((0, 0, 0), 6), ((255, 255, 255), 2)):
        cv2.putText(frame, words, place, cv2.FONT_HERSHEY_DUPLEX, size, colour, width, cv2.LINE_AA)


def subtitled(frames: Frames, rng: np.random.Generator) -> Frames:
    spoiled, words = frames.copy(), LINES[rng.integers(len(LINES))]
    for frame in spoiled:
        _write(frame, words, 0.93, frame.shape[0] / 450)
    return spoiled


def full_of_text(frames: Frames, rng: np.random.Generator) -> Frames:
    """As credits are."""
    spoiled = frames.copy()
    for frame in spoiled:
        for number in range(6):
            _write(frame, LINES[number % len(LINES)], 0.16 + 0.14 * number, frame.shape[0] / 360)
    return spoiled


def with_logo(frames: Frames, rng: np.random.Generator) -> Frames:
    """Half transparent, in the upper right corner."""
    mark = np.zeros((*frames.shape[1:3], 1), np.float32)
    side = frames.shape[1] // 8
    corner = (frames.shape[2] - 2 * side - side // 3, side // 3)
    cv2.rectangle(mark, corner, (corner[0] + 2 * side, corner[1] + side), 1.0, 4)
    cv2.circle(mark, (corner[0] + side, corner[1] + side // 2), side // 3, 1.0, -1)
    mark = 0.7 * mark.reshape(*frames.shape[1:3], 1)
    return (frames * (1 - mark) + 255 * mark).astype(np.uint8)


def with_watermark(frames: Frames, rng: np.random.Generator) -> Frames:
    """Across the middle, as agencies put it: nothing large is left without it."""
    mark = np.zeros(frames.shape[1:3], np.uint8)
    size = frames.shape[1] / 130
    cv2.putText(mark, "STOCK", (frames.shape[2] // 12, int(frames.shape[1] * 0.62)), cv2.FONT_HERSHEY_SIMPLEX, size, 255, 12)
    mark = 0.55 / 255 * mark[..., None]
    return (frames * (1 - mark) + 255 * mark).astype(np.uint8)


def letterboxed(frames: Frames, rng: np.random.Generator) -> Frames:
    spoiled, bar = frames.copy(), bar_of(frames.shape[1])
    spoiled[:, :bar] = spoiled[:, -bar:] = 0
    return spoiled


def bar_of(height: int) -> int:
    return height // 10 // 2 * 2


# --- How shots are joined -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shot:
    """What is filmed, and by which of the functions above it is spoiled."""

    seed: int
    camera: str = "pan-right"
    spoil: Spoil | None = None
    num_frames: int = 72
    joined: str = "cut"
    """how it begins: by a cut, a dissolve or a fade"""

    @property
    def kind(self) -> str:
        return "good" if self.spoil is None else self.spoil.__name__


@dataclass(frozen=True)
class Film:
    """Its frames, where its shots are, without the frames of transitions; and what each is."""

    name: str
    frames: Frames
    spans: list[tuple[int, int]] = field(default_factory=list)
    shots: Sequence[Shot] = ()


DISSOLVE, FADE, BLACK = 20, 14, 5  # frames


def joined(name: str, shots: Sequence[Shot], height: int = HEIGHT, width: int = WIDTH) -> Film:
    parts, spans, position = list[Frames](), list[tuple[int, int]](), 0
    for number, shot in enumerate(shots):
        frames = filmed(shot.seed, shot.num_frames, shot.camera, height, width)
        if shot.spoil is not None:
            frames = shot.spoil(frames, np.random.default_rng([shot.seed, 22]))
        start = 0
        if number and shot.joined == "dissolve":
            weight = (np.arange(1, DISSOLVE + 1) / (DISSOLVE + 1))[:, None, None, None]
            before = parts[-1][-DISSOLVE:]
            parts[-1][-DISSOLVE:] = (before * (1 - weight) + frames[:DISSOLVE] * weight).astype(np.uint8)
            spans[-1] = (spans[-1][0], spans[-1][1] - DISSOLVE)
            start = DISSOLVE
        elif number and shot.joined == "fade":
            down = np.linspace(1, 0, FADE + 1)[1:, None, None, None]
            parts[-1][-FADE:] = (parts[-1][-FADE:] * down).astype(np.uint8)
            spans[-1] = (spans[-1][0], spans[-1][1] - FADE)
            parts.append(np.zeros((BLACK, height, width, 3), np.uint8))
            frames[:FADE] = (frames[:FADE] * down[::-1]).astype(np.uint8)
            position += BLACK
        parts.append(frames[start:].copy())
        begin = position + (FADE if number and shot.joined == "fade" else 0)
        position += len(frames) - start
        spans.append((begin, position))
    return Film(name, np.concatenate(parts), spans, shots)


def copied(film: Film, name: str) -> Film:
    """As somebody else has it: smaller, lighter, and a little later."""
    late = 4
    size = (film.frames.shape[2] * 3 // 4 // 16 * 16, film.frames.shape[1] * 3 // 4 // 16 * 16)
    frames = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in film.frames[late:]])
    lighter = np.clip(frames.astype(np.int16) + 12, 0, 255).astype(np.uint8)
    return Film(name, lighter, [(max(0, start - late), stop - late) for start, stop in film.spans], film.shots)


def saved(film: Film, folder: Path, crf: int = 18) -> Path:
    path = folder / film.name
    with Recording(path.suffix, fps=24, crf=crf) as recording, replacing(path) as (temporary, _):
        recording.add(film.frames)
        recording.write(temporary, comment=None)
    return path
