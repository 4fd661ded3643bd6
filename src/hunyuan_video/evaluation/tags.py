"""What a prompt asks for, read from its English words by rules: so results can be split by it, and some of it be looked for in the clip.

A tag is a kind and a value, such as `camera:left`, `colour:red` or `about:animal`. Rules know words and no grammar: "no red car" is red.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from hunyuan_video.rewriting.lexicon import lexicon

_TO = r"(?:s|ing|ning|es|ed)?(?: (?:slowly|slightly|quickly|smoothly|gently|steadily|gradually))?(?: (?:to|towards?) (?:the )?)?"
_MOVES = rf"(?:camera|shot|view|lens)(?: \w+)? (?:pan|move|turn|sweep|slide|truck|track|tilt|pedestal|rise|go){_TO} ?"
_PANS = rf"(?:pan|truck){_TO} ?"

CAMERA = {
    "left": rf"{_MOVES}left|{_PANS}left|leftward pan",
    "right": rf"{_MOVES}right|{_PANS}right|rightward pan",
    "up": rf"{_MOVES}up|tilt{_TO} ?up|pedestal{_TO} ?up|pan{_TO} ?up|camera rises",
    "down": rf"{_MOVES}down|tilt{_TO} ?down|pedestal{_TO} ?down|pan{_TO} ?down|camera (?:descends|lowers)",
    "in": rf"zoom{_TO} ?in\b|push(?:es|ing)? in|doll(?:y|ies|ying) (?:in|forward)|"
    r"camera (?:\w+ )?(?:moves? (?:closer|forward)|comes nearer|approaches)",
    "out": rf"zoom{_TO} ?out|pull(?:s|ing)? (?:back|out)|doll(?:y|ies|ying) (?:out|back)|camera (?:\w+ )?moves? (?:away|back)",
    "around": r"orbit|arc shot|camera (?:\w+ )?(?:circles|rotates|revolves|moves|turns|spins) around|surround(?:ing)? shot|360",
    "static": r"(?:static|fixed|still|locked|stationary) (?:camera|shot|frame)|"
    r"camera (?:(?:is|remains|stays|stands) )?(?:static|fixed|still|stationary)",
    "handheld": r"hand-?held|shaky|shaking camera|camera shak(?:es|ing)|shakes? intensely",
    "follow": r"(?:camera|shot) (?:\w+ )?follow(?:s|ing)|(?:tracking|following) shot|follow shot",
    "cut": r"(?:scene|shot) (?:switch|cut|chang)(?:es|s)?|cuts? to|transitions? to",
}
SHOT = {
    "close-up": r"close[- ]?ups?\b|closeups?|macro",
    "medium": r"medium (?:shot|close)|mid[- ]shot|half[- ]body",
    "wide": r"wide[- ](?:shot|angle)|long shot|full shot|panoram\w+|establishing shot|distant view",
    "aerial": r"aerial|drone|bird'?s[- ]eye|from above|overhead|fpv",
    "low-angle": r"low[- ]angle|worm'?s[- ]eye|looking up at",
    "high-angle": r"high[- ]angle|top[- ]down|top view",
    "front": r"front view|frontal",
    "side": r"side view|in profile",
    "first-person": r"first[- ]person|\bpov\b|point of view",
}
STYLE = {
    "realistic": r"realis(?:tic|m)|photo-?real\w*|documentary",
    "anime": r"anime|manga|ghibli|cartoon|2d animation",
    "3d": r"\b3d\b|cgi|pixar|c4d|unreal engine|clay",
    "painting": r"painting|watercolou?r|impressionis\w+|ukiyo|van gogh|sketch|ink wash|brush strokes",
    "pixel-art": r"pixel art|8[- ]bit",
    "black-and-white": r"black[- ]and[- ]white|monochrome|greyscale|grayscale",
    "cyberpunk": r"cyberpunk|neon",
    "cinematic": r"cinematic|film (?:still|look|style)|movie",
    "surreal": r"surreal\w*|dream-?like|abstract",
}
PACE = {
    "slow-motion": r"slow[- ]?mo(?:tion)?",
    "time-lapse": r"time[- ]?lapse|hyper-?lapse|timelapse|sped up",
    "still": r"still frame|frozen in time|tableau|motionless|stands? still|does not move|do not move|stays in place|rests?\b",
}
COLOURS = {
    "red": r"\b(?:red|crimson|scarlet)\b",
    "orange": r"\borange(?= (?!juice|tree|peel))(?! on| and| is|\.|,)",
    "yellow": r"\b(?:yellow|golden)\b",
    "green": r"\b(?:green|emerald)\b",
    "blue": r"\b(?:blue|azure|turquoise)\b",
    "purple": r"\b(?:purple|violet)\b",
    "pink": r"\bpink\b",
    "brown": r"\bbrown\b",
    "black": r"\bblack\b(?![- ]and[- ]white)",
    "white": r"(?<!and )(?<!and-)\bwhite\b",
    "grey": r"\bgr[ea]y\b",
}
NUMBERS = {
    "2": r"\b(?:two|pair of|couple|2)\b",
    "3": r"\b(?:three|3)\b",
    "4": r"\b(?:four|4)\b",
    "5": r"\b(?:five|5)\b",
    "many": r"\b(?:many|several|crowd|group of|flock|herd|dozens|hundreds|countless|six|seven|eight|nine|ten)\b",
}
PLACE = {
    "left-right": r"on (?:the|its|his|her|their) (?:left|right)\b(?! side of the (?:frame|screen))|left of|right of",
    "above-below": r"on (?:the )?(?:top|bottom) of|\babove\b|\bbelow\b|underneath|beneath",
}
TEXT = {"render": r"[“\"][^“”\"]{2,}[”\"]|\b(?:words?|text|letters|sign|title|caption)s? (?:that )?(?:read|say|spell)|written on"}
OWN = {  # topics beside those of the words that are known for rewriting
    **dict.fromkeys(("person", "people", "man", "men", "woman", "women", "child", "children", "baby", "couple", "kid", "guy"), "person"),
    **dict.fromkeys(("car", "airplane", "plane", "train", "truck", "motorcycle", "bicycle", "bike"), "vehicle"),
    **dict.fromkeys(("camera", "shot", "scene", "video", "frame", "stand", "orange", "crowd"), ""),  # of how it is told, or of two meanings
}

_KINDS = {
    "camera": CAMERA, "shot": SHOT, "style": STYLE, "pace": PACE, "colour": COLOURS, "count": NUMBERS, "place": PLACE, "text": TEXT,
}  # fmt: skip
_TOPICS = ("person", "animal", "nature", "city", "indoor", "food", "vehicle", "sport", "space")


@cache
def _rules() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple(
        (f"{kind}:{value}", re.compile(rule if kind == "text" else rf"\b(?:{rule})", re.IGNORECASE))  # in a forest nobody rests
        for kind, values in _KINDS.items()
        for value, rule in values.items()
    )


@cache
def _topics() -> dict[str, str]:
    """What single nouns belong to."""
    nouns = [word for meanings in lexicon().values() for word in meanings if word.part == "noun"]
    return {word.english.strip("~=").lower(): word.topic for word in nouns if " " not in word.english} | OWN


def tags_of(prompt: str) -> tuple[str, ...]:
    """All that the rules find, in their order; nothing of a prompt without English words."""
    text = " ".join(prompt.split())
    return (*(tag for tag, rule in _rules() if rule.search(text)), *_about(text))


def values(tags: Sequence[str], kind: str) -> tuple[str, ...]:
    """Those of one kind: of `colour`, `red` and `blue`."""
    return tuple(value for each, _, value in (tag.partition(":") for tag in tags) if each == kind)


def _about(text: str) -> tuple[str, ...]:
    words = set(re.findall(r"[a-z]+", text.lower()))
    words |= {word[:-1] for word in words if word.endswith("s")} | {word[:-2] for word in words if word.endswith("es")}
    found = {topic for word in words if (topic := _topics().get(word))}
    return tuple(f"about:{topic}" for topic in _TOPICS if topic in found)
