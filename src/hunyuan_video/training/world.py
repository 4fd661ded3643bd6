"""A rendered world with captions: the training data of the embedded miniature model, and the truth it is judged by.

32 subjects × 11 motions × 10 backgrounds make 3,520 combinations, of which a tenth is held out: never rendered in training, so that
getting them right shows the words were understood one by one. A scene may also name a size, a colour, a second subject (a tenth of the
pairs is held out, too) and a style. Everything follows from an integer seed. The world is soft on purpose (blurred sprites, gradients,
nothing one pixel wide): what 16 latent channels can carry decides how sharp the miniature's videos can be.

Letters: T frames, H height, W width, S side of a square sprite tile; all coordinates in pixels from the top left corner.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageFilter

SUBJECTS = (
    *("cat", "dog", "car", "rocket", "fish", "bird", "ball", "heart", "flower", "boat", "robot", "balloon"),
    *("bus", "train", "airplane", "helicopter", "butterfly", "bee", "turtle", "elephant", "penguin", "frog", "pig", "octopus"),
    *("crab", "whale", "dinosaur", "mushroom", "apple", "star", "umbrella", "teddy"),
)
CAMERA = {
    "pan_left": ("pans left", "pans to the left", "moves to the left"),
    "pan_right": ("pans right", "pans to the right", "moves to the right"),
    "zoom_in": ("zooms in", "moves closer", "comes nearer"),
    "zoom_out": ("zooms out", "moves away", "pulls back"),
}
MOTIONS = ("left", "right", "up", "down", "grow", "shrink", "still", *CAMERA)
BACKGROUNDS = ("grass", "sea", "night", "desert", "snow", "forest", "mountains", "sunset", "space", "city")
SIZES = {"normal": 1.0, "small": 0.64, "large": 1.4}
HUES = {"red": 0.0, "orange": 0.075, "yellow": 0.14, "green": 0.35, "blue": 0.59, "purple": 0.77}
COLOURABLE = {
    "car": "red",
    "bird": "blue",
    "heart": None,
    "robot": "green",
    "balloon": "purple",
    "bus": "yellow",
    "umbrella": None,
    "star": "yellow",
}
STYLES = ("realistic", "cartoon")
SLOTS: dict[str, tuple[str | None, ...]] = {  # all that a caption says, and what each can be
    "subject": SUBJECTS,
    "second": (None, *SUBJECTS),
    "motion": MOTIONS,
    "background": BACKGROUNDS,
    "size": tuple(SIZES),
    "colour": (None, *HUES),
    "style": STYLES,
}
Split = Literal["train", "held_out"]

SIDE = 64  # every length below is for a picture of this side, and scales with the smaller side of the picture asked for
TRAVEL = 20.0  # pixels from the first frame to the last
FAR, NEAR = 0.72, 1.38  # size of everything at the two ends of a zoom
SMALL, LARGE = 0.5, 1.3  # size of a growing subject at its two ends
SPRITE_BLUR = 1.8  # Gaussian radius in the atlas's pixels (128 a tile); more raises the PSNR a VAE can reach, less is crisper
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
PAIR_SIZE, PAIR_GAP, PAIR_TRAVEL = 0.75, 29.0, 0.7  # two subjects: their size, the distance of their centres, their share of TRAVEL


@dataclass(frozen=True)
class Scene:
    """One clip to render: what moves how and where, the words for it, and the seed of what no word mentions (placement)."""

    subject: str
    motion: str
    background: str
    caption: str
    seed: int
    second: str | None = None
    """another subject, at the right of the first"""
    size: str = "normal"
    colour: str | None = None
    style: str = "realistic"

    def __post_init__(self) -> None:
        _check(self.subject, self.motion, self.background)
        if self.second is not None:
            _check(self.second, self.motion, self.background)
        if self.size not in SIZES or self.style not in STYLES or not (self.colour is None or self.colour in HUES):
            raise ValueError(f"size {self.size!r}, colour {self.colour!r} or style {self.style!r} is not known in this world.")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; it must be 0 or more.")


def _check(subject: str, motion: str, background: str) -> None:
    for kind, word, known in (("subject", subject, SUBJECTS), ("motion", motion, MOTIONS), ("background", background, BACKGROUNDS)):
        if word not in known:
            raise ValueError(f"{kind} is {word!r}; this world knows only {', '.join(known)}.")


def is_held_out(subject: str, motion: str, background: str) -> bool:
    """Whether a combination is kept from all training: one background of each (subject, motion), one subject in ten of the others."""
    _check(subject, motion, background)
    return (SUBJECTS.index(subject) + 3 * MOTIONS.index(motion) + 7 * BACKGROUNDS.index(background)) % 10 == 7


def is_held_out_pair(first: str, second: str) -> bool:
    """Whether two subjects are never shown together, in this order, in training: one pair in ten."""
    return (3 * SUBJECTS.index(first) + 7 * SUBJECTS.index(second)) % 10 == 1


@cache
def combinations(split: Split) -> tuple[tuple[str, str, str], ...]:
    """Every (subject, motion, background) of a split, in a fixed order."""
    if split not in ("train", "held_out"):
        raise ValueError(f"split is {split!r}; it must be 'train' or 'held_out'.")
    every = ((s, m, b) for s in SUBJECTS for m in MOTIONS for b in BACKGROUNDS)
    return tuple(words for words in every if is_held_out(*words) == (split == "held_out"))


@cache
def pairs(split: Split) -> tuple[tuple[str, str], ...]:
    """Every ordered pair of different subjects of a split, in a fixed order."""
    every = ((a, b) for a in SUBJECTS for b in SUBJECTS if a != b)
    return tuple(pair for pair in every if is_held_out_pair(*pair) == (split == "held_out"))


PAIR_SHARE, CARTOON_SHARE, SIZED_SHARE, COLOURED_SHARE = 0.25, 0.25, 0.35, 0.6


def sample_scene(seed: int, split: Split) -> Scene:
    """The scene of an integer seed: a uniform combination of the split, one in four with a pair of subjects of the split instead."""
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more.")
    rng = np.random.default_rng([seed, 1])  # the 1 keeps these draws apart from the placement's, which start from the seed alone
    possible = combinations(split)
    subject, motion, background = possible[rng.integers(len(possible))]
    if rng.random() < PAIR_SHARE:
        subject, second = pairs(split)[rng.integers(len(pairs(split)))]
        return compose(subject, motion, background, seed, rng, second=second)
    return compose(subject, motion, background, seed, rng)


def compose(
    subject: str, motion: str, background: str, seed: int, rng: np.random.Generator, second: str | None = None, unseen: bool = False
) -> Scene:
    """A scene of these words, perhaps with a size, a colour and a style, and a caption for it.

    `unseen` chooses a sentence built as no training caption is. A subject alone may have a size and, if in COLOURABLE, a colour.
    """
    style, size, colour = "cartoon" if rng.random() < CARTOON_SHARE else "realistic", "normal", None
    if second is None and rng.random() < SIZED_SHARE:
        size = ("small", "large")[rng.integers(2)]
    if second is None and subject in COLOURABLE and rng.random() < COLOURED_SHARE:
        colour = tuple(HUES)[rng.integers(len(HUES))]
    scene = Scene(subject, motion, background, "", seed, second, size, colour, style)
    return replace(scene, caption=write_caption(scene, rng, unseen))


# --- Words ---------------------------------------------------------------------------------------------------------------------

NOUNS = {
    "cat": ("cat", "grey cat", "kitten"),
    "dog": ("dog", "brown dog", "puppy"),
    "car": ("car", "automobile"),
    "rocket": ("rocket", "space rocket", "spaceship"),
    "fish": ("fish", "yellow fish", "striped fish"),
    "bird": ("bird", "songbird"),
    "ball": ("ball", "orange ball", "basketball"),
    "heart": ("heart", "love heart"),
    "flower": ("flower", "yellow flower", "sunflower"),
    "boat": ("boat", "sailing boat", "sailboat"),
    "robot": ("robot", "robot head"),
    "balloon": ("balloon", "party balloon"),
    "bus": ("bus", "school bus"),
    "train": ("train", "steam train", "locomotive"),
    "airplane": ("airplane", "plane", "aeroplane"),
    "helicopter": ("helicopter", "yellow helicopter", "chopper"),
    "butterfly": ("butterfly", "orange butterfly"),
    "bee": ("bee", "bumblebee", "honey bee"),
    "turtle": ("turtle", "green turtle", "tortoise"),
    "elephant": ("elephant", "grey elephant"),
    "penguin": ("penguin", "emperor penguin"),
    "frog": ("frog", "green frog"),
    "pig": ("pig", "pink pig", "piglet"),
    "octopus": ("octopus", "pink octopus"),
    "crab": ("crab", "red crab"),
    "whale": ("whale", "blue whale"),
    "dinosaur": ("dinosaur", "green dinosaur", "t-rex"),
    "mushroom": ("mushroom", "red mushroom", "toadstool"),
    "apple": ("apple", "red apple"),
    "star": ("star",),
    "umbrella": ("umbrella", "parasol"),
    "teddy": ("teddy bear", "teddy", "toy bear"),
}
SIZE_WORDS = {"normal": ("",), "small": ("small ", "little ", "tiny "), "large": ("big ", "large ", "huge ")}
WALKERS, RIDERS, FLYERS, SWIMMERS, FLOATERS = (
    ("walks", "runs"),
    ("drives", "rolls"),
    ("flies", "floats"),
    ("swims", "floats"),
    ("floats", "drifts"),
)
VERBS = {
    **dict.fromkeys(("cat", "dog", "robot", "turtle", "elephant", "penguin", "frog", "pig", "crab", "dinosaur", "teddy"), WALKERS),
    **dict.fromkeys(("car", "bus", "train"), RIDERS),
    **dict.fromkeys(("rocket", "bird", "heart", "balloon", "airplane", "helicopter", "butterfly", "bee", "star"), FLYERS),
    **dict.fromkeys(("fish", "octopus", "whale"), SWIMMERS),
    **dict.fromkeys(("flower", "mushroom", "apple", "umbrella"), FLOATERS),
    "ball": ("rolls", "bounces"),
    "boat": ("sails", "drifts"),
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
PLURALS = {"flies": "fly", "goes": "go", "does": "do"}  # of the other verbs, the s falls
PLACES = {
    "grass": ("on the grass", "in the park", "in a grassy field", "over a green meadow"),
    "sea": ("over the ocean", "on the sea", "over the water", "at sea"),
    "night": ("at night", "under the night sky", "in the dark", "in the moonlight"),
    "desert": ("in the desert", "over the sand", "on the sand dunes", "in a sandy desert"),
    "snow": ("in the snow", "over the snow", "in a snowy field", "on a winter day"),
    "forest": ("in the forest", "in the woods", "among the trees", "in a dark green forest"),
    "mountains": ("in the mountains", "before the mountains", "near a rocky mountain", "in the alps"),
    "sunset": ("at sunset", "in the evening sun", "at dusk", "under an orange sky"),
    "space": ("in space", "in outer space", "near a planet", "among the planets"),
    "city": ("in the city", "in the town", "before tall buildings", "over the rooftops"),
}
PLAIN = "{subject} {motion} {place}"
TEMPLATES = (PLAIN, PLAIN, "{place}, {subject} {motion}", "a video where {subject} {motion} {place}")
CAMERA_TEMPLATES = (
    "{subject} {place}, the camera {motion}",
    "the camera {motion}, {subject} {place}",
    "{place}, {subject}, camera {motion}",
    "the camera {motion} while {subject} rests {place}",
)
# Only for judging: how no caption of the training is built.
UNSEEN_TEMPLATES = (
    "watch how {subject} {motion} {place}",
    "{place} there is a scene: {subject} {motion}",
    "look, {subject} {motion} {place}",
)
UNSEEN_CAMERA_TEMPLATES = ("watch {subject} {place} as the camera {motion}", "{place} the camera slowly {motion} and shows {subject}")
STYLE_WORDS = {
    "realistic": ("", "", "", ", realistic style", ", realistic style", ", a realistic video"),
    "cartoon": (", cartoon style", ", cartoon style", ", a cartoon", ", drawn as a cartoon"),
}


def write_caption(scene: Scene, rng: np.random.Generator, unseen: bool = False) -> str:
    """A random sentence that says all there is in a scene, each part in one of 3 to 5 ways; at most 25 words."""

    def pick(choices: tuple[str, ...]) -> str:
        return choices[rng.integers(len(choices))]

    def name(subject: str, adjectives: str) -> str:
        noun = adjectives + pick(NOUNS[subject] if scene.colour is None else NOUNS[subject][:1])
        article = pick(("a", "a", "the"))
        return f"{'an' if article == 'a' and noun[0] in 'aeiou' else article} {noun}"

    someone = name(scene.subject, pick(SIZE_WORDS[scene.size]) + (f"{scene.colour} " if scene.colour else ""))
    if scene.second is not None:
        someone += " and " + name(scene.second, "")
    if scene.motion in CAMERA:
        template, deed = pick(UNSEEN_CAMERA_TEMPLATES if unseen else CAMERA_TEMPLATES), pick(CAMERA[scene.motion])
        if scene.second is not None:
            template = template.replace("rests", "rest")
    else:
        verbs = VERBS[scene.subject] if scene.second is None or VERBS[scene.subject] == VERBS[scene.second] else ()
        template, deed = pick(UNSEEN_TEMPLATES if unseen else TEMPLATES), pick(PHRASES[scene.motion]).format(verb=pick((*verbs, "moves")))
        if scene.second is not None:
            first, *rest = deed.split(" ")
            deed = " ".join([PLURALS.get(first, first.removesuffix("s")), *rest])
    sentence = template.format(subject=someone, motion=deed, place=pick(PLACES[scene.background])) + pick(STYLE_WORDS[scene.style])
    if rng.random() < 0.7:
        sentence = sentence[0].upper() + sentence[1:]
    return sentence + pick(("", "."))


# --- Pictures ------------------------------------------------------------------------------------------------------------------


@cache
def _sprite(subject: str, colour: str | None, style: str, side: int) -> Float[np.ndarray, "4 S S"]:
    """A subject's blurred tile at a side of 64 or 128: RGB in [0, 255] already multiplied by opacity, then opacity in [0, 1]."""
    with files("hunyuan_video.training").joinpath("sprites.png").open("rb") as file:
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
    "grow": (0.0, 0.0, SMALL, LARGE),
    "shrink": (0.0, 0.0, LARGE, SMALL),
    "still": (0.0, 0.0, 1.0, 1.0),
}
# Of the camera: pixels to the right, and magnification, from the first frame to the last.
_CAMERA_PATHS = {
    "pan_left": (-TRAVEL, 1.0, 1.0),
    "pan_right": (TRAVEL, 1.0, 1.0),
    "zoom_in": (0.0, FAR, NEAR),
    "zoom_out": (0.0, NEAR, FAR),
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
    right, down, first, last = _PATHS.get(scene.motion, _PATHS["still"])
    pan, far, near = _CAMERA_PATHS.get(scene.motion, (0.0, 1.0, 1.0))
    cast = [(scene.subject, 0.0)] if scene.second is None else [(scene.subject, -PAIR_GAP / 2), (scene.second, PAIR_GAP / 2)]
    if scene.second is not None:
        right, down = PAIR_TRAVEL * right, PAIR_TRAVEL * down
    # Picture coordinates in units of the world, from the middle of the picture.
    x = ((np.arange(width) + 0.5) - width / 2)[None, :] / scale
    y = ((np.arange(height) + 0.5) - height / 2)[:, None] * (SIDE / height)
    disc_x *= width / min(height, width)

    frames = np.empty((num_frames, height, width, 3), np.uint8)
    canvas: np.ndarray | None = None
    for number, along in enumerate(np.linspace(-0.5, 0.5, num_frames) if num_frames > 1 else [0.0]):
        zoom, look = (far + near) / 2 + (near - far) * along, pan * along
        if canvas is None or scene.motion in CAMERA:
            centre_x = width / (2 * scale)
            canvas = _background(scene.background, scene.style, centre_x + look + x / zoom, SIDE / 2 + y / zoom, disc_x, phase)
        frame = canvas.copy()
        for subject, beside in cast:
            size = SPRITE_SIZE.get(subject, DEFAULT_SIZE) * SIZES[scene.size] * ((first + last) / 2 + (last - first) * along)
            size *= zoom * scale * (1.0 if scene.second is None else PAIR_SIZE)
            tile = _sprite(subject, scene.colour, scene.style, 64 if size < 64 else 128)
            if scene.motion == "right":
                tile = tile[:, :, ::-1]
            place_x = width / 2 + (offset_x + beside + right * along - look) * zoom * scale
            place_y = height / 2 + (1.0 + offset_y + down * along) * zoom * scale
            _paste(frame, tile, place_x, place_y, size)
        frames[number] = np.clip(frame + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return frames
