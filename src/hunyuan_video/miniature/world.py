"""A rendered world with captions: the training data of the embedded miniature model, and the truth it is judged by.

32 subjects × 11 motions × 10 backgrounds make 3,520 combinations, of which a tenth is held out: never rendered in training of a subject
alone, so that getting them right shows the words were understood one by one. A scene may also name a size, a colour, a second subject (a
tenth of the pairs is held out, too, in their order) and a style. Everything follows from an integer seed. Here are the scenes and their
words; `drawing` renders them.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np

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
RESIZING = ("grow", "shrink", "zoom_in", "zoom_out")
BACKGROUNDS = ("grass", "sea", "night", "desert", "snow", "forest", "mountains", "sunset", "space", "city")
SIZES = {"normal": 1.0, "small": 0.6, "large": 1.4}  # also the ends of growing and zooming: every size to draw a subject in is to be learnt
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


@dataclass(frozen=True)
class Scene:
    """One clip to render: what moves how and where, the words for it, and the seed of what no word mentions (sky and skyline)."""

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
    """Whether no training shows a subject alone so: one background of each (subject, motion), one subject in ten of the others.

    Pairs are held out by themselves (`is_held_out_pair`), so one of a pair may be seen in a combination that is held out here.
    """
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


PAIR_SHARE, CARTOON_SHARE, SIZED_SHARE, COLOURED_SHARE = 0.5, 0.25, 0.35, 0.6


def sample_scene(seed: int, split: Split) -> Scene:
    """The scene of an integer seed: a uniform combination of the split, or for `PAIR_SHARE` of them a pair of the split in its place."""
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more.")
    rng = np.random.default_rng([seed, 1])  # the 1 keeps these draws apart from the picture's, which start from the seed alone
    possible = combinations(split)
    subject, motion, background = possible[rng.integers(len(possible))]
    if rng.random() < PAIR_SHARE:
        subject, second = pairs(split)[rng.integers(len(pairs(split)))]
        return compose(subject, motion, background, seed, rng, second=second)
    return compose(subject, motion, background, seed, rng)


def coloured_scene(seed: int, split: Split) -> Scene:
    """As `sample_scene`, of those with a subject alone that has a colour."""
    rng = np.random.default_rng([seed, 7])
    possible = [words for words in combinations(split) if words[0] in COLOURABLE]
    words = possible[rng.integers(len(possible))]
    while (scene := compose(*words, seed, rng)).colour is None:
        pass
    return scene


def compose(
    subject: str, motion: str, background: str, seed: int, rng: np.random.Generator, second: str | None = None, unseen: bool = False
) -> Scene:
    """A scene of these words, perhaps with a size, a colour and a style, and a caption for it.

    `unseen` chooses a sentence built as no training caption is. A subject alone may have a colour, if in COLOURABLE, and a size, if nothing
    else changes that: every size that a subject is ever drawn in is another shape to learn.
    """
    style, size, colour = "cartoon" if rng.random() < CARTOON_SHARE else "realistic", "normal", None
    if second is None and motion not in RESIZING and rng.random() < SIZED_SHARE:
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
# Not every "and" announces a second subject: were it so, a model would draw one wherever it reads the word.
TEMPLATES = (
    *(PLAIN, PLAIN, "{place}, {subject} {motion}", "a video where {subject} {motion} {place}"),
    *("all is calm and {subject} {motion} {place}", "{subject} {motion} {place} and nothing else happens"),
    *("here {subject} {motion} {place}", "{place} one day {subject} {motion}", "{place} there {is} {subject} that {motion}"),
)
CAMERA_TEMPLATES = (
    "{subject} {place}, the camera {motion}",
    "the camera {motion}, {subject} {place}",
    "{place}, {subject}, camera {motion}",
    "the camera {motion} while {subject} {rests} {place}",
    "the camera {motion} and {subject} {rests} {place}",
    "{subject} {is} {place} and the camera {motion}",
    "here the camera {motion}: {subject} {place}",
    "{place} one day {subject}, the camera {motion}",
    "{place} there {is} {subject} and the camera {motion}",
    "the camera {motion} and there {is} {subject} {place}",
)
# Only for judging: how no caption of the training is built.
UNSEEN_TEMPLATES = (
    "watch how {subject} {motion} {place}",
    "{place} there is a scene: {subject} {motion}",
    "look, {subject} {motion} {place}",
)
UNSEEN_CAMERA_TEMPLATES = ("watch {subject} {place} as the camera {motion}", "{place} the camera slowly {motion} and shows {subject}")
# What may be said to a picture that shows the rest.
HINTS = ("it {motion}", "something {motion}", "this {motion}", "{motion}", "the picture {motion}")
CAMERA_HINTS = ("the camera {motion}", "camera {motion}")
NOTHING = ("something happens", "bring this to life", "a picture that moves")
STYLE_WORDS = {
    "realistic": ("", "", "", ", realistic style", ", realistic style", ", a realistic video"),
    "cartoon": (", cartoon style", ", cartoon style", ", a cartoon", ", drawn as a cartoon"),
}

# Words that say nothing about a scene here.
FILLER = (
    "a beautiful cinematic shot of very happy cute slowly quickly gently golden light detailed colourful high quality 4k soft warm bright "
    "old young lovely one with the its film scene fluffy funny sleepy brave shiny new calm clear some view full"
)


def with_unknown_words(caption: str, rng: np.random.Generator) -> str:
    """The caption with one to four words put between its own, side by side or apart, that mean nothing; half of them are not even words."""
    words = caption.split()
    place = 0
    for number in range(rng.integers(1, 5)):
        if number == 0 or rng.random() < 0.5:
            place = rng.integers(len(words) + 1)
        nonsense = "".join(rng.choice(list(string.ascii_lowercase), rng.integers(2, 10)))
        words.insert(place, nonsense if rng.random() < 0.5 else rng.choice(FILLER.split()))
    return " ".join(words)


def sometimes_with_unknown_words(caption: str, rng: np.random.Generator) -> str:
    """As a training reads captions: who has read unknown words in 3 of 10 does not stumble over the first one."""
    return with_unknown_words(caption, rng) if rng.random() < 0.3 else caption


def vague_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption that leaves everything to a given picture, but perhaps what happens."""
    phrases, hints = (CAMERA, CAMERA_HINTS) if scene.motion in CAMERA else (PHRASES, HINTS)
    phrase, template = (choices[rng.integers(len(choices))] for choices in (phrases[scene.motion], (*hints, *NOTHING)))
    return template.format(motion=phrase.format(verb="moves"))


def write_caption(scene: Scene, rng: np.random.Generator, unseen: bool = False) -> str:
    """A random sentence that says all there is in a scene, each part in one of several ways; at most 25 words."""

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
    else:
        verbs = VERBS[scene.subject] if scene.second is None or VERBS[scene.subject] == VERBS[scene.second] else ()
        template, deed = pick(UNSEEN_TEMPLATES if unseen else TEMPLATES), pick(PHRASES[scene.motion]).format(verb=pick((*verbs, "moves")))
        if scene.second is not None:
            first, *rest = deed.split(" ")
            deed = " ".join([PLURALS.get(first, first.removesuffix("s")), *rest])
    number = {"rests": "rests", "is": "is"} if scene.second is None else {"rests": "rest", "is": "are"}
    place = pick(PLACES[scene.background])
    sentence = template.format(subject=someone, motion=deed, place=place, **number) + pick(STYLE_WORDS[scene.style])
    if rng.random() < 0.7:
        sentence = sentence[0].upper() + sentence[1:]
    return sentence + pick(("", "."))
