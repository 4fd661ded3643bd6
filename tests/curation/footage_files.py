"""Small pictures and films, quickly drawn, whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hunyuan_video.curation import tiers
from hunyuan_video.recording import Recording

HEIGHT, WIDTH, SQUARE = 96, 128, 16


def texture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Squares of random colours, uint8 [H, W, 3]: edges everywhere, and no two alike."""
    squares = np.random.default_rng([seed, 31]).integers(20, 236, (height // SQUARE, width // SQUARE, 3), np.uint8)
    return squares.repeat(SQUARE, 0).repeat(SQUARE, 1)


def moving(seed: int, num_frames: int, speed: int = 3, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A texture that moves to the left, so many pixels a frame; uint8 [T, H, W, 3]."""
    wide = texture(seed, height, -(-(width + num_frames * speed) // SQUARE) * SQUARE)
    return np.stack([wide[:, number * speed : number * speed + width] for number in range(num_frames)])


def film(path: Path, *shots: np.ndarray, crf: int = 14) -> Path:
    with Recording(path.suffix, fps=24, crf=crf) as recording:
        recording.add(np.concatenate(shots))
        recording.write(path, comment=None)
    return path


# Clips of 9 to 17 frames, and only what is measured quickly.
QUICK = """
[transitions]
black = 6.0
[lengths]
least = 9
most = 17
look = 4
[tier.low]
least = { frames = 9, side = 64, contrast = 2.0, flow = 0.05, kept = 0.6 }
most = { dark = 0.7, still = 0.2 }
[tier.high]
least = { frames = 17, side = 96, contrast = 2.0, flow = 0.05, kept = 0.6 }
most = { dark = 0.7, still = 0.2 }
"""


def quick(folder: Path, text: str = QUICK) -> tiers.Thresholds:
    path = folder / "quick.toml"
    path.write_text(text, encoding="utf-8")
    return tiers.read(path)
