"""Draws the scenes of the rendered world: a sprite or two before a backdrop, moved by themselves or by the camera.

The pictures are soft on purpose (blurred sprites, gradients, nothing one pixel wide): what 16 latent channels can carry decides how sharp
the miniature's videos can be.

Letters: T frames, H height, W width, S side of a square sprite tile; all coordinates in pixels from the top left corner.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageFilter

from hunyuan_video.miniature.world import CAMERA, HUES, SIZES, SUBJECTS, Scene

SIDE = 64  # every length below is for a picture of this side, and scales with the smaller side of the picture asked for
TRAVEL = 16.0  # pixels from the first frame to the last: of 33 frames at 128 pixels, half a latent pixel in each latent frame
SPRITE_BLUR = 2.4  # Gaussian radius in the atlas's pixels (128 a tile); more raises the PSNR a VAE can reach, less is crisper
OUTLINE = 4  # width of a cartoon's dark outline, in the atlas's pixels
DEFAULT_SIZE = 31.0
SPRITE_SIZE = {
    "cat": 36.0,
    "dog": 34.0,
    "butterfly": 34.0,
    "helicopter": 36.0,
    "train": 34.0,
    "crab": 34.0,
}  # pixels; those with fine parts
PAIR_GAP = 32.0  # between the centres of two subjects: a whole number of the transformer's tokens, so that each looks as it does alone


@cache
def _sprite(subject: str, colour: str | None, style: str, side: int) -> Float[np.ndarray, "4 S S"]:
    """A subject's blurred tile at a side of 64 or 128: RGB in [0, 255] already multiplied by opacity, then opacity in [0, 1]."""
    with files("hunyuan_video.miniature").joinpath("sprites.png").open("rb") as file:
        atlas = Image.open(file).convert("RGBA")
        tile = atlas.height
        left = SUBJECTS.index(subject) * tile
        picture = atlas.crop((left, 0, left + tile, tile))
    if colour is not None:
        picture = _recolour(picture, HUES[colour])
    if style == "cartoon":
        picture = _outlined(picture)
    # Premultiplied (the small "a"), so that blurring draws no dark rims.
    blurred = picture.convert("RGBa").filter(ImageFilter.GaussianBlur(SPRITE_BLUR)).resize((side, side), Image.Resampling.BOX)
    pixels = np.frombuffer(blurred.tobytes(), np.uint8).reshape(side, side, 4).astype(np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)) / np.array([1, 1, 1, 255], np.float32)[:, None, None]


def _recolour(picture: Image.Image, hue: float) -> Image.Image:
    """Give every clearly coloured pixel another hue; eyes, windows and wheels stay themselves."""
    h, s, v = picture.convert("RGB").convert("HSV").split()
    coloured = np.asarray(s) > 90
    h = Image.fromarray(np.where(coloured, np.uint8(hue * 255), np.asarray(h)))
    # Dark colours have no name: what carries the colour is made bright.
    bright = np.clip(np.asarray(v).astype(float) * 0.6 + 100, 0, 255).astype(np.uint8)
    v = Image.fromarray(np.where(coloured, bright, np.asarray(v)))
    result = Image.merge("HSV", (h, s, v)).convert("RGB")
    result.putalpha(picture.getchannel("A"))
    return result


def _outlined(picture: Image.Image) -> Image.Image:
    """As a cartoon draws it: flat bright colours inside a thick dark outline."""
    inner = picture.resize((picture.width - 2 * OUTLINE, picture.height - 2 * OUTLINE), Image.Resampling.LANCZOS)
    placed = Image.new("RGBA", picture.size)
    placed.paste(inner, (OUTLINE, OUTLINE))
    h, s, v = placed.convert("RGB").convert("HSV").split()
    flat = Image.merge(
        "HSV", (h, s.point([min(255, round(i * 1.3)) for i in range(256)]), v.point([min(255, (i // 64) * 64 + 63) for i in range(256)]))
    )
    flat = flat.convert("RGB")
    flat.putalpha(placed.getchannel("A"))
    ink = Image.new("RGBA", picture.size, (28, 24, 36, 255))
    ink.putalpha(placed.getchannel("A").filter(ImageFilter.MaxFilter(2 * OUTLINE + 1)))
    return Image.alpha_composite(ink, flat)


def _placement(start: float, size: float, length: int, side: int) -> Float[np.ndarray, "length S"]:
    """Along one axis, the matrix that puts a tile of `side` pixels at `start`, `size` long, on a line of `length` pixels.

    An entry is how much of the picture's pixel the tile's pixel covers, which places to a fraction of a pixel and never aliases.
    """
    edges = start + size * np.linspace(0.0, 1.0, side + 1)
    covered = np.clip(edges[None, :] - np.arange(length)[:, None], 0.0, 1.0)
    return np.diff(covered, axis=-1).astype(np.float32)


def _paste(canvas: Float[np.ndarray, "3 H W"], tile: Float[np.ndarray, "4 S S"], x: float, y: float, size: float) -> None:
    """Draw a tile, `size` pixels large, with its centre at (x, y). Only the pixels it covers are touched."""
    height, width = canvas.shape[1:]
    left, top = x - size / 2, y - size / 2
    x0, x1 = max(0, int(np.floor(left))), min(width, int(np.ceil(left + size)))
    y0, y1 = max(0, int(np.floor(top))), min(height, int(np.ceil(top + size)))
    if x0 >= x1 or y0 >= y1:
        return
    rows, columns = _placement(top - y0, size, y1 - y0, tile.shape[1]), _placement(left - x0, size, x1 - x0, tile.shape[1])
    sprite = rows @ tile @ columns.T
    canvas[:, y0:y1, x0:x1] = sprite[:3] + canvas[:, y0:y1, x0:x1] * (1.0 - sprite[3])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -30.0, 30.0)))


Colour = tuple[int, int, int]


@dataclass(frozen=True)
class _Scenery:
    sky: tuple[Colour, Colour]  # at the top, at the horizon
    ground: tuple[Colour, Colour]  # at the horizon, at the bottom
    disc: Colour  # a sun, a moon, a cloud, a planet
    horizon: float
    outline: Literal["waves", "peaks", "bumps", "towers"] = "waves"
    relief: float = 3.0  # height of the outline
    radius: float = 5.0
    stretch: float = 1.0  # a cloud is wide, a sun or moon is round
    disc_y: float = 9.0


_SCENERY = {
    "grass": _Scenery(((120, 190, 245), (205, 232, 250)), ((120, 195, 80), (50, 130, 40)), (255, 255, 255), 37.0, relief=2.5, stretch=2.2),
    "sea": _Scenery(((165, 215, 250), (225, 240, 250)), ((30, 110, 165), (8, 50, 110)), (255, 244, 200), 28.0, relief=0.0, radius=4.5),
    "night": _Scenery(((14, 16, 48), (44, 44, 96)), ((30, 48, 62), (14, 24, 36)), (240, 236, 205), 42.0, relief=2.0),
    "desert": _Scenery(((250, 205, 130), (253, 228, 175)), ((232, 188, 110), (190, 135, 70)), (255, 250, 225), 36.0),
    "snow": _Scenery(((165, 185, 205), (208, 218, 228)), ((246, 249, 252), (222, 232, 242)), (240, 244, 248), 38.0, stretch=2.2),
    "forest": _Scenery(((170, 215, 190), (205, 232, 205)), ((28, 100, 55), (14, 58, 34)), (250, 250, 215), 25.0, "bumps", 6.0, 4.5),
    "mountains": _Scenery(
        ((110, 165, 225), (200, 222, 245)), ((128, 112, 122), (82, 72, 84)), (255, 255, 255), 34.0, "peaks", 10.0, 4.5, 2.2
    ),
    "sunset": _Scenery(
        ((205, 70, 90), (255, 178, 80)), ((125, 45, 80), (60, 22, 58)), (255, 238, 165), 40.0, relief=0.0, radius=9.0, disc_y=22.0
    ),
    "space": _Scenery(((10, 5, 26), (72, 22, 98)), ((72, 22, 98), (72, 22, 98)), (228, 150, 95), 90.0, relief=0.0, radius=9.0, disc_y=14.0),
    "city": _Scenery(((238, 214, 205), (250, 236, 222)), ((84, 96, 128), (56, 62, 88)), (255, 250, 235), 30.0, "towers", 8.0, 4.5),
}


def _relief(outline: str, x: np.ndarray, phase: float) -> np.ndarray:
    """Height of the skyline between -1 and 1; every outline repeats about once in a picture's width."""
    if outline == "waves":
        return np.sin(x * 0.11 + phase)
    if outline == "peaks":
        return np.abs((x / 26.0 + phase) % 2.0 - 1.0) * 2.0 - 1.0
    if outline == "bumps":
        return 1.0 - 2.0 * np.abs(np.sin(x * 0.2 + phase))
    return np.tanh(3.0 * (np.sin(x * 0.21 + phase) + 0.6 * np.sin(x * 0.37 + 2.0 * phase)))


def _background(name: str, style: str, x: np.ndarray, y: np.ndarray, disc_x: float, phase: float) -> Float[np.ndarray, "3 H W"]:
    """Two gradients meeting at a soft outline, and one soft disc; a cartoon has flat, strong colours instead of gradients.

    `x` [1, W] and `y` [H, 1] are where the camera looks.
    """
    scenery = _SCENERY[name]
    top, far, near, bottom, disc = (np.array(c, np.float32)[:, None, None] for c in (*scenery.sky, *scenery.ground, scenery.disc))
    if style == "cartoon":
        top, bottom = (_strong((a + b) / 2) for a, b in ((top, far), (near, bottom)))
        far, near = top, bottom
    skyline = scenery.horizon + scenery.relief * _relief(scenery.outline, x, phase)
    sky = top + (far - top) * np.clip(y / skyline, 0.0, 1.0)
    ground = near + (bottom - near) * np.clip((y - skyline) / (SIDE - scenery.horizon), 0.0, 1.0)
    away = np.hypot((x - disc_x) / scenery.stretch, y - scenery.disc_y)
    sky = sky + (disc - sky) * 0.9 * _sigmoid((scenery.radius - away) / 0.9)
    return (sky + (ground - sky) * _sigmoid((y - skyline) / 1.0)).astype(np.float32)


def _strong(colour: np.ndarray) -> np.ndarray:
    """Further from grey."""
    grey = colour.mean(axis=0, keepdims=True)
    return np.clip(grey + 1.5 * (colour - grey), 0, 255).astype(np.float32)


# Pixels to the right and down from the first frame to the last; size in the first frame and in the last.
_PATHS = {
    "left": (-TRAVEL, 0.0, 1.0, 1.0),
    "right": (TRAVEL, 0.0, 1.0, 1.0),
    "up": (0.0, -TRAVEL, 1.0, 1.0),
    "down": (0.0, TRAVEL, 1.0, 1.0),
    "grow": (0.0, 0.0, SIZES["small"], SIZES["large"]),
    "shrink": (0.0, 0.0, SIZES["large"], SIZES["small"]),
    "still": (0.0, 0.0, 1.0, 1.0),
}
# Of the camera: pixels to the right, and magnification, from the first frame to the last.
_CAMERA_PATHS = {
    "pan_left": (-TRAVEL, 1.0, 1.0),
    "pan_right": (TRAVEL, 1.0, 1.0),
    "zoom_in": (0.0, SIZES["small"], SIZES["large"]),
    "zoom_out": (0.0, SIZES["large"], SIZES["small"]),
}


def render(scene: Scene, height: int = SIDE, width: int = SIDE, num_frames: int = 17) -> UInt8[np.ndarray, "T H W 3"]:
    """Draw a scene. One frame is a picture of one of nine moments of the motion; other sizes show the same scene at another resolution."""
    if min(height, width) < 16 or num_frames < 1:
        raise ValueError(f"The video asked for is {num_frames} x {height} x {width}; it must have 1 frame or more, of at least 16 x 16.")
    rng = np.random.default_rng(scene.seed)
    # Little that no caption mentions: with subjects a few pixels here or there, a model of this size learns blobs, not their shapes.
    disc_x, phase = rng.uniform(8.0, 56.0), rng.choice([0.0, 2.1, 4.2])

    # Images show a subject wherever, and as large as, the latent frames of videos do: so they teach the same shapes at a ninth of the cost.
    moments = np.linspace(-0.5, 0.5, num_frames) if num_frames > 1 else [rng.choice(np.linspace(-0.5, 0.5, 9))]

    scale = min(height, width) / SIDE
    right, down, first, last = _PATHS.get(scene.motion, _PATHS["still"])
    pan, far, near = _CAMERA_PATHS.get(scene.motion, (0.0, 1.0, 1.0))
    cast = [(scene.subject, 0.0)] if scene.second is None else [(scene.subject, -PAIR_GAP / 2), (scene.second, PAIR_GAP / 2)]
    # Picture coordinates in units of the world, from the middle of the picture.
    x = ((np.arange(width) + 0.5) - width / 2)[None, :] / scale
    y = ((np.arange(height) + 0.5) - height / 2)[:, None] * (SIDE / height)
    disc_x *= width / min(height, width)

    frames = np.empty((num_frames, height, width, 3), np.uint8)
    canvas: np.ndarray | None = None
    for number, along in enumerate(moments):
        zoom, look = (far + near) / 2 + (near - far) * along, pan * along
        if canvas is None or scene.motion in CAMERA:
            centre_x = width / (2 * scale)
            canvas = _background(scene.background, scene.style, centre_x + look + x / zoom, SIDE / 2 + y / zoom, disc_x, phase)
        frame = canvas.copy()
        for subject, beside in cast:
            grown = (first + last) / 2 + (last - first) * along
            size = SPRITE_SIZE.get(subject, DEFAULT_SIZE) * SIZES[scene.size] * grown * zoom * scale
            tile = _sprite(subject, scene.colour, scene.style, 64 if size < 64 else 128)
            if scene.motion == "right":
                tile = tile[:, :, ::-1]
            place_x = width / 2 + (beside * grown + right * along - look) * zoom * scale
            place_y = height / 2 + down * along * scale
            _paste(frame, tile, place_x, place_y, size)
        frames[number] = np.clip(frame + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return frames
