"""A small rendered world with captions: the training data of the embedded miniature model, and the truth it is judged by.

12 subjects × 7 motions × 5 backgrounds make 420 combinations, of which 44 are held out: never rendered in training, so that getting
them right shows the words were understood one by one. Everything follows from an integer seed. The world is soft on purpose (blurred
sprites, gradients, nothing one pixel wide): what 16 latent channels can carry decides how sharp the miniature's videos can be.

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

SUBJECTS = ("cat", "dog", "car", "rocket", "fish", "bird", "ball", "heart", "flower", "boat", "robot", "balloon")
MOTIONS = ("left", "right", "up", "down", "grow", "shrink", "still")
BACKGROUNDS = ("grass", "sea", "night", "desert", "snow")
Split = Literal["train", "held_out"]

SIDE = 64  # every length below is for a picture of this side, and scales with the smaller side of the picture asked for
TRAVEL = 20.0  # pixels from the first frame to the last
SMALL, LARGE = 0.5, 1.3  # size of a growing subject at its two ends
SPRITE_BLUR = 1.8  # Gaussian radius in the atlas's pixels (128 a tile); more raises the PSNR a VAE can reach, less is crisper
SPRITE_SIZE = {"cat": 35.0, "dog": 33.0}  # pixels; the animals have the finest parts
DEFAULT_SIZE = 30.0


@dataclass(frozen=True)
class Scene:
    """One clip to render: what moves how and where, the words for it, and the seed of what no word mentions (placement)."""

    subject: str
    motion: str
    background: str
    caption: str
    seed: int

    def __post_init__(self) -> None:
        _check(self.subject, self.motion, self.background)
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be 0 or more.")


def _check(subject: str, motion: str, background: str) -> None:
    for kind, word, known in (("subject", subject, SUBJECTS), ("motion", motion, MOTIONS), ("background", background, BACKGROUNDS)):
        if word not in known:
            raise ValueError(f"{kind} is {word!r}; this world knows only {', '.join(known)}.")


def is_held_out(subject: str, motion: str, background: str) -> bool:
    """Whether a combination is kept from all training. 1 in 10: at most one of each (subject, motion) and (subject, background) row."""
    _check(subject, motion, background)
    return (SUBJECTS.index(subject) + 3 * MOTIONS.index(motion) + 7 * BACKGROUNDS.index(background)) % 10 == 7


@cache
def combinations(split: Split) -> tuple[tuple[str, str, str], ...]:
    """Every (subject, motion, background) of a split, in a fixed order."""
    if split not in ("train", "held_out"):
        raise ValueError(f"split is {split!r}; it must be 'train' or 'held_out'.")
    every = ((s, m, b) for s in SUBJECTS for m in MOTIONS for b in BACKGROUNDS)
    return tuple(words for words in every if is_held_out(*words) == (split == "held_out"))


def sample_scene(seed: int, split: Split) -> Scene:
    """The scene of an integer seed: a uniform combination of the split, a caption and a placement."""
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more.")
    rng = np.random.default_rng([seed, 1])  # the 1 keeps these draws apart from the placement's, which start from the seed alone
    possible = combinations(split)
    words = possible[rng.integers(len(possible))]
    return Scene(*words, caption=write_caption(*words, rng), seed=seed)


# --- Words ---------------------------------------------------------------------------------------------------------------------

NOUNS = {
    "cat": ("cat", "grey cat", "kitten", "little cat"),
    "dog": ("dog", "brown dog", "puppy", "little dog"),
    "car": ("car", "red car", "automobile", "little car"),
    "rocket": ("rocket", "space rocket", "spaceship", "little rocket"),
    "fish": ("fish", "yellow fish", "striped fish", "little fish"),
    "bird": ("bird", "blue bird", "little bird"),
    "ball": ("ball", "orange ball", "basketball", "little ball"),
    "heart": ("heart", "pink heart", "love heart", "little heart"),
    "flower": ("flower", "yellow flower", "sunflower", "little flower"),
    "boat": ("boat", "sailing boat", "sailboat", "little boat"),
    "robot": ("robot", "green robot", "robot head", "little robot"),
    "balloon": ("balloon", "purple balloon", "party balloon", "little balloon"),
}
VERBS = {
    "cat": ("walks", "runs"),
    "dog": ("walks", "runs"),
    "car": ("drives", "rolls"),
    "rocket": ("flies", "floats"),
    "fish": ("swims", "floats"),
    "bird": ("flies", "floats"),
    "ball": ("rolls", "bounces"),
    "heart": ("floats", "flies"),
    "flower": ("floats", "drifts"),
    "boat": ("sails", "drifts"),
    "robot": ("walks", "drives"),
    "balloon": ("floats", "flies"),
}
# {verb} is one of the subject's own or a general one. A verb without a direction always means left, the way the sprites face:
# were it left or right at random, a model could only learn the ghost of both.
PHRASES = {
    "left": ("{verb}", "{verb} left", "{verb} to the left", "{verb} leftwards"),
    "right": ("{verb} right", "{verb} to the right", "{verb} rightwards"),
    "up": ("{verb} up", "{verb} upwards", "rises", "goes up"),
    "down": ("{verb} down", "{verb} downwards", "falls down", "falls", "sinks"),
    "grow": ("grows", "grows bigger", "gets bigger", "becomes larger"),
    "shrink": ("shrinks", "gets smaller", "becomes smaller", "becomes tiny"),
    "still": ("stands still", "does not move", "stays in place", "rests"),
}
PLACES = {
    "grass": ("on the grass", "in the park", "in a grassy field", "over a green meadow"),
    "sea": ("over the ocean", "on the sea", "over the water", "at sea"),
    "night": ("at night", "under the night sky", "in the dark", "in the moonlight"),
    "desert": ("in the desert", "over the sand", "on the sand dunes", "in a sandy desert"),
    "snow": ("in the snow", "over the snow", "in a snowy field", "on a winter day"),
}
PLAIN = "{subject} {motion} {place}"
TEMPLATES = (PLAIN, PLAIN, "{place}, {subject} {motion}", "a video where {subject} {motion} {place}")
STYLES = ("", "", "", ", realistic style", ", realistic style", ", a realistic video")


def write_caption(subject: str, motion: str, background: str, rng: np.random.Generator) -> str:
    """A random sentence that says subject, motion and background, each in one of 3 to 5 ways; at most 17 words."""
    _check(subject, motion, background)

    def pick(choices: tuple[str, ...]) -> str:
        return choices[rng.integers(len(choices))]

    noun = pick(NOUNS[subject])
    article = pick(("a", "a", "the"))
    someone = f"{'an' if article == 'a' and noun[0] in 'aeiou' else article} {noun}"
    deed = pick(PHRASES[motion]).format(verb=pick((*VERBS[subject], "moves")))
    sentence = pick(TEMPLATES).format(subject=someone, motion=deed, place=pick(PLACES[background])) + pick(STYLES)
    if rng.random() < 0.7:
        sentence = sentence[0].upper() + sentence[1:]
    return sentence + pick(("", "."))


# --- Pictures ------------------------------------------------------------------------------------------------------------------


@cache
def _sprite(subject: str, side: int) -> Float[np.ndarray, "4 S S"]:
    """A subject's blurred tile at a side of 64 or 128: RGB in [0, 255] already multiplied by opacity, then opacity in [0, 1]."""
    with files("hunyuan_video.training").joinpath("sprites.png").open("rb") as file:
        atlas = Image.open(file).convert("RGBa")  # small "a": premultiplied, so that blurring draws no dark rims
        tile = atlas.height
        left = SUBJECTS.index(subject) * tile
        padded = Image.new("RGBa", (tile, tile))
        padded.paste(atlas.crop((left, 0, left + tile, tile)))
    blurred = padded.filter(ImageFilter.GaussianBlur(SPRITE_BLUR)).resize((side, side), Image.Resampling.BOX)
    pixels = np.frombuffer(blurred.tobytes(), np.uint8).reshape(side, side, 4).astype(np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)) / np.array([1, 1, 1, 255], np.float32)[:, None, None]


def _placement(start: Float[np.ndarray, " T"], size: Float[np.ndarray, " T"], length: int, side: int) -> Float[np.ndarray, "T length S"]:
    """Along one axis, the matrix that puts a tile of `side` pixels at `start`, `size` long, on a line of `length` pixels.

    An entry is how much of the picture's pixel the tile's pixel covers, which places to a fraction of a pixel and never aliases.
    """
    edges = start[:, None] + size[:, None] * np.linspace(0.0, 1.0, side + 1)
    pixels = np.arange(length)[:, None]
    covered = np.clip(edges[:, None, :] - pixels, 0.0, 1.0)
    return np.diff(covered, axis=-1).astype(np.float32)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -30.0, 30.0)))


Colour = tuple[int, int, int]
# Sky top, sky at the horizon, ground at the horizon, ground bottom; the disc in the sky; horizon, its waves' height, the disc's radius.
_SCENERY: dict[str, tuple[Colour, Colour, Colour, Colour, Colour, float, float, float]] = {
    "grass": ((120, 190, 245), (205, 232, 250), (120, 195, 80), (50, 130, 40), (255, 255, 255), 37.0, 2.5, 5.0),
    "sea": ((165, 215, 250), (225, 240, 250), (30, 110, 165), (8, 50, 110), (255, 244, 200), 28.0, 0.0, 4.5),
    "night": ((14, 16, 48), (44, 44, 96), (30, 48, 62), (14, 24, 36), (240, 236, 205), 42.0, 2.0, 5.0),
    "desert": ((250, 205, 130), (253, 228, 175), (232, 188, 110), (190, 135, 70), (255, 250, 225), 36.0, 3.0, 5.0),
    "snow": ((165, 185, 205), (208, 218, 228), (246, 249, 252), (222, 232, 242), (240, 244, 248), 38.0, 3.0, 5.0),
}


def _background(name: str, disc_x: float, phase: float, height: int, width: int) -> Float[np.ndarray, "3 H W"]:
    """Two gradients meeting at a soft wavy horizon, and one soft disc: sun, moon or cloud."""
    top, far, near, bottom, disc, horizon, waves, radius = _SCENERY[name]
    top, far, near, bottom, disc = (np.array(colour, np.float32)[:, None, None] for colour in (top, far, near, bottom, disc))
    y = (np.arange(height)[:, None] + 0.5) * (SIDE / height)
    x = (np.arange(width)[None, :] + 0.5) * (SIDE / min(height, width))
    skyline = horizon + waves * np.sin(x * 0.11 + phase)
    sky = top + (far - top) * np.clip(y / skyline, 0.0, 1.0)
    ground = near + (bottom - near) * np.clip((y - skyline) / (SIDE - skyline), 0.0, 1.0)
    stretch = 2.2 if name in ("grass", "snow") else 1.0  # a cloud is wide, a sun or moon is round
    away = np.hypot((x - disc_x) / stretch, y - 9.0)
    sky = sky + (disc - sky) * 0.9 * _sigmoid((radius - away) / 0.9)
    return (sky + (ground - sky) * _sigmoid((y - skyline) / 1.0)).astype(np.float32)


# Pixels to the right and down from the first frame to the last; size in the first frame and in the last.
_PATHS = {
    "left": (-TRAVEL, 0.0, 1.0, 1.0),
    "right": (TRAVEL, 0.0, 1.0, 1.0),
    "up": (0.0, -TRAVEL, 1.0, 1.0),
    "down": (0.0, TRAVEL, 1.0, 1.0),
    "grow": (0.0, 0.0, SMALL, LARGE),
    "shrink": (0.0, 0.0, LARGE, SMALL),
    "still": (0.0, 0.0, 1.0, 1.0),
}


def render(scene: Scene, height: int = SIDE, width: int = SIDE, num_frames: int = 17) -> UInt8[np.ndarray, "T H W 3"]:
    """Draw a scene. One frame is the picture from the middle of the motion; other sizes show the same scene at another resolution."""
    if min(height, width) < 16 or num_frames < 1:
        raise ValueError(f"The video asked for is {num_frames} x {height} x {width}; it must have 1 frame or more, of at least 16 x 16.")
    rng = np.random.default_rng(scene.seed)
    # Few values of what no caption mentions: each doubles what the model must learn before it can learn what captions mean.
    offset_x, offset_y = rng.choice([-3.0, 0.0, 3.0]), rng.choice([-2.0, 0.0, 2.0])
    disc_x, phase = rng.uniform(8.0, 56.0), rng.choice([0.0, 2.1, 4.2])

    scale = min(height, width) / SIDE
    along = np.linspace(-0.5, 0.5, num_frames) if num_frames > 1 else np.zeros(1)
    right, down, first, last = _PATHS[scene.motion]
    size = ((first + last) / 2 + (last - first) * along) * SPRITE_SIZE.get(scene.subject, DEFAULT_SIZE) * scale
    centre_x = width / 2 + (offset_x + right * along) * scale
    centre_y = height / 2 + (1.0 + offset_y + down * along) * scale

    side = 64 if size.max() < 64 else 128
    tile = _sprite(scene.subject, side)
    if scene.motion == "right":
        tile = tile[:, :, ::-1]
    rows = _placement(centre_y - size / 2, size, height, side)[:, None]
    columns = _placement(centre_x - size / 2, size, width, side)[:, None].swapaxes(-1, -2)
    sprite = rows @ tile @ columns
    backdrop = _background(scene.background, disc_x * width / min(height, width), phase, height, width)
    pixels = sprite[:, :3] + backdrop * (1.0 - sprite[:, 3:])
    return np.clip(pixels + 0.5, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
