"""What a prompt leaves open, said in the words of film: style, light, mood, framing and camera. Nothing that was given is added twice."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from hunyuan_video.rewriting.lexicon import topics

Light = Literal["natural", "indoor", "warm", "night", "dramatic"]

STYLE = re.compile(
    r"\b(?:style|realis\w+|photoreal\w*|painting|drawing|sketch|illustration|watercolou?r|anime|cartoon|comic|animation|animated|claymation|pixel|"
    r"3d|2d|cgi|render\w*|cyberpunk|steampunk|surreal\w*|abstract|black and white|monochrome|ukiyo\w*|impressionis\w+|cinematic|"
    r"documentary|film|noir|vintage|retro|fantasy|sci-fi|science fiction|digital art|pop art|low poly|origami|paper-cut|lego)\b",
    re.IGNORECASE,
)
LIGHT = re.compile(
    r"\b(?:light|lights|lighting|lit|backlit|illuminated|glow\w*|neon|shadows?|silhouettes?|sunlight|moonlight|candlelight|golden hour|"
    r"blue hour|overcast|dark|darkness|dim|bright|sunny|foggy|misty|chiaroscuro)\b",
    re.IGNORECASE,
)
MOOD = re.compile(
    r"\b(?:mood|atmosphere|peaceful|calm|quiet|tranquil|serene|cozy|tense|dramatic|happy|happily|cheerful|sad|melanchol\w+|mysterious|eerie|scary|"
    r"romantic|funny|epic|majestic|lonely|angry|joyful|playful|lively|energetic|gloomy|dreamy|dreamlike|nostalgic|intense|excited|terrifying|casual|formal|intimate|industrial|professional|humorous)\b",
    re.IGNORECASE,
)
CAMERA = re.compile(
    r"\b(?:camera|zoom\w*|pan (?:left|right|up|down)|panning|tilt\w*|dolly|tracking|orbit\w*|handheld|close-?up|wide(?:-angle)? shot|"
    r"aerial|drone|bird's-eye|first-person|point-of-view|focus\w*|slow motion|time-?lapse|perspective|(?:front|rear|side|top) view|"
    r"static shot|still frame|shot)\b",
    re.IGNORECASE,
)
_NIGHT = re.compile(r"\b(?:night|midnight|moon|moonlit|stars|starry|fireworks|aurora|lanterns?)\b", re.IGNORECASE)
_WARM = re.compile(r"\b(?:sunset|sunrise|dusk|dawn|setting sun|campfire|fireplace|candles?|autumn)\b", re.IGNORECASE)
_VIOLENT = re.compile(
    r"\b(?:storms?|thunderstorm|lightning|tornado|hurricane|tsunami|explo\w+|battle\w*|fight\w*|war|fire|volcano|erupt\w*|chas\w+|crash\w*|attack\w*|"
    r"monster|zombies?|dragon)\b",
    re.IGNORECASE,
)

_LIGHT_WORDS: dict[Light, str] = {
    "natural": "Natural lighting", "indoor": "Indoor lighting", "warm": "Warm lighting", "night": "Night lighting",
    "dramatic": "Dramatic lighting",
}  # fmt: skip
_MOODS = {
    "nature": "Peaceful", "animal": "Peaceful", "indoor": "Casual", "food": "Casual", "clothes": "Casual", "person": "Casual",
    "sport": "Energetic", "city": "Casual", "vehicle": "Casual", "space": "Mysterious",
}  # fmt: skip

_FRAMINGS = {
    "person": "A medium shot at eye level sets the figure on a third of the frame, clear against the background",
    "animal": "A medium shot at the animal's eye level fills two thirds of the frame and leaves room in the direction of its gaze",
    "place": "A wide shot in three layers leads the eye from a detailed foreground to a far horizon",
    "thing": "A close shot places the subject slightly off center, with clean space around it",
}
_LIGHTS: dict[Light, str] = {
    "natural": "Soft natural light from one side models every shape and keeps the shadows open",
    "indoor": "Soft window light from one side falls off gently into warm shadows",
    "warm": "Low, warm light draws long shadows and golden edges",
    "night": "Small pools of light stand against deep blue shadows",
    "dramatic": "Hard light from one side cuts strong contrasts",
}
_MOVES = {
    "person": "The camera moves slowly toward the subject",
    "animal": "The camera follows smoothly at the same height",
    "place": "The camera glides slowly forward",
    "thing": "The camera moves in a slow arc around the subject",
}
_FINISH = "Shallow depth of field, rich texture, fine detail and harmonious colors"


@dataclass(frozen=True)
class Scene:
    """What an English description is about: the topic of most of its nouns, and the light that goes with it."""

    topic: str
    light: Light

    @classmethod
    def of(cls, text: str) -> Scene:
        known = topics()
        words = re.findall(r"[a-z]+", text.lower())
        found = [known.get(word) or known.get(word.removesuffix("s")) or known.get(word.removesuffix("ies") + "y", "") for word in words]
        counts = Counter(topic for topic in found if topic not in ("", "body", "thing", "picture"))
        topic = counts.most_common(1)[0][0] if counts else "thing"
        if _WARM.search(text):
            return cls(topic, "warm")
        if _NIGHT.search(text):
            return cls(topic, "night")
        if _VIOLENT.search(text) or topic == "space":
            return cls(topic, "dramatic")
        outdoors = counts["nature"] or counts["city"] or counts["animal"] or counts["vehicle"] or counts["sport"]
        return cls(topic, "indoor" if (counts["indoor"] or counts["food"]) and not outdoors else "natural")

    @property
    def subject(self) -> str:
        if self.topic in ("person", "clothes", "sport"):
            return "person"
        return {"animal": "animal", "nature": "place", "city": "place", "space": "place"}.get(self.topic, "thing")


def closing(text: str) -> str:
    """A few plain words on style, light and mood, of those that the text leaves open; perhaps none."""
    scene = Scene.of(text)
    words = [] if STYLE.search(text) else ["Realistic"]
    if not LIGHT.search(text):
        words.append(_LIGHT_WORDS[scene.light])
    if not MOOD.search(text) and (mood := "Tense" if _VIOLENT.search(text) else _MOODS.get(scene.topic)):
        words.append(mood)
    return ", ".join(words)


def direction(text: str) -> list[str]:
    """Sentences on framing, light, camera and finish, of those that the text leaves open."""
    scene = Scene.of(text)
    has_camera = bool(CAMERA.search(text))
    sentences = [] if has_camera else [_FRAMINGS[scene.subject]]
    if not LIGHT.search(text):
        sentences.append(_LIGHTS[scene.light])
    if not has_camera:
        sentences.append(_MOVES[scene.subject])
    return [*sentences, _FINISH if STYLE.search(text) else f"{_FINISH}, in a cinematic style"]
