"""Clips by rule that have what photographs and films have and the drawn world lacks: hard edges at every scale, texture, things that turn
and hide one another, cuts. They have no words: only the VAE learns from them, so that people's own pictures survive it.

Dead leaves (Lee, Mumford and Huang 2001): opaque shapes whose sizes follow a power law lie on one another, which alone gives the statistics
of natural images. Each is shaded, and rough like 1/f noise. A few such sheets, the nearer ones cut to a shape, move, turn and come closer,
each in its own way.

Letters: T frames, S side of a sheet or picture in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

SIDE = 128  # every length below is for a picture of this side, and scales with it
FINE = 2  # drawn so much finer, and then averaged: edges are hard, and not jagged
SHEET = 1.75  # sides of a picture that a sheet has, of which a movement shows more
NUM_LEAVES = 700  # at most; many scenes are nearly empty
SMALLEST, LARGEST = 1.5, 56.0  # pixels, radius of a leaf
POINTS = 24  # of an outline
CUTS = 0.4  # share of each 16 frames that have one


def render(seed: int, size: int, num_frames: int) -> UInt8[np.ndarray, "T S S 3"]:
    """The clip of a seed. One frame of it is the first of many."""
    rng = np.random.default_rng([seed, 4])  # the 4 keeps it apart from the drawn world's draws
    cuts = [start + int(rng.integers(16)) for start in range(1, num_frames, 16) if rng.random() < CUTS]
    edges = [0, *(cut for cut in cuts if cut < num_frames), num_frames]
    scenes = [(np.random.default_rng([seed, 5, part]), end - start) for part, (start, end) in enumerate(pairwise(edges))]
    return np.concatenate([_scene(rng, size, count) for rng, count in scenes])


def _scene(rng: np.random.Generator, size: int, num_frames: int) -> UInt8[np.ndarray, "T S S 3"]:
    side = size * FINE
    frames = torch.zeros(num_frames, 3, side, side)
    for number in range(int(rng.choice([1, 2, 3], p=[0.3, 0.4, 0.3]))):
        sheet, movement = _sheet(rng, size, whole=number == 0), Movement.drawn(rng, calm=number == 0)
        moved = F.grid_sample(
            sheet.expand(num_frames, -1, -1, -1), movement.grid(num_frames, side), align_corners=False, padding_mode="reflection"
        )
        frames = frames * (1 - moved[:, 3:]) + moved[:, :3]
    frames = F.avg_pool2d(frames, FINE)
    light = 1 + rng.normal(0, 0.1) * torch.arange(num_frames) / 33
    frames = (frames * light.view(-1, 1, 1, 1)).clamp(0, 255)
    return frames.permute(0, 2, 3, 1).round().to(torch.uint8).numpy()


@dataclass(frozen=True)
class Movement:
    """Of a sheet: how fast and which way, for each frame, and where it starts."""

    start: tuple[float, float]  # sides of a picture from the middle
    speed: tuple[float, float]
    turn: float  # radians a frame, about the middle of the picture
    growth: float  # how much larger it gets in each frame
    shake: float  # sides of a picture

    @classmethod
    def drawn(cls, rng: np.random.Generator, calm: bool) -> Movement:
        """Many stand still, most others are slow, and a few are swept past; what is far is slower."""
        scale = (0.5 if calm else 1.0) * rng.choice([0, 1, 6], p=[0.45, 0.42, 0.13])
        right, down, turn, growth = rng.laplace(0, 1, 4) * scale * np.array([0.006, 0.006, 0.006, 0.002])
        across, along = rng.uniform(-0.2, 0.2, 2)
        shake = rng.exponential(0.001) * (scale > 0)
        return cls((float(across), float(along)), (float(right), float(down)), float(turn), float(growth), float(shake))

    def grid(self, num_frames: int, side: int) -> Float[Tensor, "T S S 2"]:
        """Where each pixel of a picture looks on the sheet, whose half sides are 1."""
        time = torch.arange(num_frames)
        angle, scale = self.turn * time, torch.exp(-self.growth * time) / SHEET
        shift = torch.stack([begin - speed * time for begin, speed in zip(self.start, self.speed, strict=True)], dim=1)
        shift = shift + self.shake * torch.stack([torch.sin(1.3 * time), torch.cos(1.7 * time)], dim=1)
        turned = torch.stack([torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)], 1)
        theta = torch.cat([turned, 2 * shift.unsqueeze(2)], dim=2) * scale.view(-1, 1, 1)
        return F.affine_grid(theta, [num_frames, 1, side, side], align_corners=False)


def _sheet(rng: np.random.Generator, size: int, whole: bool) -> Float[Tensor, "1 4 S S"]:
    """Red, green and blue in [0, 255] already multiplied by opacity, then opacity in [0, 1]: of a `whole` sheet, 1."""
    unit = size * FINE / SIDE
    side = round(SIDE * SHEET * unit)
    leaves = _leaves(rng, side, unit, int(NUM_LEAVES ** rng.uniform(0.5, 1)))
    pixels = torch.from_numpy(np.clip(_coloured(rng, leaves, unit), 0, 255)).permute(2, 0, 1)
    mask = torch.ones(1, side, side)
    if not whole:
        outline = Image.new("L", (side, side))
        centre, radius = side / 2 + rng.uniform(-0.25, 0.25, (1, 2)) * side, rng.uniform(12, 36, 1) * unit
        ImageDraw.Draw(outline).polygon(_outlines(rng, centre, radius).flatten().tolist(), fill=1)
        mask = torch.from_numpy(np.asarray(outline).astype(np.float32)).unsqueeze(0)
    sheet = torch.cat([pixels * mask, mask])[None].float()
    blur = rng.exponential(0.35) * unit  # out of focus
    return sheet if blur < 0.3 else _blurred(sheet, blur)


def _leaves(rng: np.random.Generator, side: int, unit: float, count: int) -> Int[np.ndarray, "S S"]:
    """The number of the leaf that is seen at each pixel; 0 is the ground."""
    picture = Image.new("I", (side, side))
    draw = ImageDraw.Draw(picture)
    # Radii fall with their third power, as what is seen at all distances does.
    radii = (SMALLEST**-2 + rng.random(count) * (LARGEST**-2 - SMALLEST**-2)) ** -0.5 * unit
    radii = np.concatenate([rng.uniform(8, LARGEST, count // 12) * unit, radii])
    for number, outline in enumerate(_outlines(rng, rng.uniform(0, side, (len(radii), 2)), radii)):
        draw.polygon(outline.flatten().tolist(), fill=number + 1)
    return np.asarray(picture)


def _outlines(
    rng: np.random.Generator, centres: Float[np.ndarray, "N 2"], radii: Float[np.ndarray, " N"]
) -> Float[np.ndarray, "N POINTS 2"]:
    """What is round, angular, or long and thin, in any direction. Points of one with few corners fall together."""
    count, kind = len(radii), rng.random(len(radii))
    is_round, is_thin = kind < 0.5, kind > 0.8
    corners = np.where(is_round, POINTS, np.where(is_thin, 4, rng.integers(3, 7, count)))[:, None]
    angles = 2 * np.pi * (np.floor(np.arange(POINTS) * corners / POINTS) / corners + rng.random((count, 1)))
    flat = np.where(is_thin, rng.uniform(0.03, 0.15, count), rng.uniform(0.5, 1, count))[:, None]
    tilt, x, y = rng.uniform(0, np.pi, (count, 1)), np.cos(angles), flat * np.sin(angles)
    turned = np.stack([x * np.cos(tilt) - y * np.sin(tilt), x * np.sin(tilt) + y * np.cos(tilt)], axis=2)
    return centres[:, None] + radii[:, None, None] * turned


def _coloured(rng: np.random.Generator, leaves: Int[np.ndarray, "S S"], unit: float) -> Float[np.ndarray, "S S 3"]:
    """Leaves in their colours, shaded and rough. Brightness differs more than colour, and one hue prevails."""
    count, side = int(leaves.max()) + 1, len(leaves)
    light = rng.uniform(10, 245, (count, 1)) if rng.random() < 0.5 else np.clip(rng.normal(120, 55, (count, 1)), 5, 250)
    prevailing, chroma = rng.normal(0, 14, 3), rng.exponential(14)
    colours = (light + prevailing + rng.normal(0, chroma, (count, 3))).astype(np.float32)
    slope = rng.normal(0, 0.35 / unit, (2, count)).astype(np.float32)  # grey levels a pixel, across and down
    rough = (rng.exponential(9, count) * (rng.random(count) < 0.7)).astype(np.float32)
    down, across = np.mgrid[:side, :side].astype(np.float32) - side / 2
    shade = np.clip(slope[0][leaves] * across + slope[1][leaves] * down, -60, 60)
    return colours[leaves] + (shade + rough[leaves] * _rough(rng, side))[..., None]


def _rough(rng: np.random.Generator, side: int) -> Float[np.ndarray, "S S"]:
    """Noise whose power falls with frequency as in nature's surfaces; of standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    amplitude = np.where(frequency == 0, 0, np.maximum(frequency, 1 / side) ** -rng.uniform(0.8, 1.6))
    stretched = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) * amplitude, (side, side))
    return (stretched / stretched.std()).astype(np.float32)


def _blurred(sheet: Float[Tensor, "1 4 S S"], radius: float) -> Float[Tensor, "1 4 S S"]:
    reach = int(np.ceil(3 * radius))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / radius) ** 2)
    kernel = (kernel / kernel.sum()).expand(4, 1, 1, -1)
    for pad, weight in (((reach, reach, 0, 0), kernel), ((0, 0, reach, reach), kernel.transpose(2, 3))):
        sheet = F.conv2d(F.pad(sheet, pad, mode="replicate"), weight, groups=4)
    return sheet
