"""Forms of English words."""

from __future__ import annotations

import re
from collections.abc import Callable

_DOUBLED = frozenset(
    "run sit swim cut put stop hug jog chat nod get hit spin clap pat drip dig win hop skip nap wag shop grab begin drag split trim flap hum knit "
    "squat set let shut step slip rub pet dip wrap flip tap rip beg bet plan ship whip".split()
)
_DOERS = {"have": "has", "be": "is", "do": "does", "go": "goes"}
_PARTICIPLES = dict(
    pair.split(":")
    for pair in (
        "be:been have:had do:done go:gone come:come become:become run:run see:seen take:taken give:given eat:eaten drink:drunk write:written "
        "read:read ride:ridden drive:driven fly:flown swim:swum sing:sung sit:sat stand:stood lie:lain sleep:slept hold:held catch:caught "
        "throw:thrown wear:worn tear:torn break:broken build:built buy:bought bring:brought make:made meet:met find:found leave:left lose:lost "
        "light:lit hit:hit cut:cut put:put shut:shut set:set spread:spread hide:hidden bite:bitten blow:blown grow:grown draw:drawn show:shown "
        "know:known speak:spoken tell:told say:said teach:taught think:thought fight:fought feel:felt feed:fed hang:hung spin:spun sink:sunk "
        "shake:shaken fall:fallen rise:risen freeze:frozen weave:woven sew:sewn win:won shoot:shot sweep:swept send:sent lead:led pay:paid sell:sold "
        "split:split burst:burst swing:swung stick:stuck get:got begin:begun bend:bent dig:dug"
    ).split()
)
_PLURALS = {
    "person": "people", "man": "men", "woman": "women", "child": "children", "foot": "feet", "tooth": "teeth", "mouse": "mice", "goose": "geese",
    "leaf": "leaves", "wolf": "wolves", "knife": "knives", "shelf": "shelves", "wife": "wives", "thief": "thieves", "calf": "calves", "scarf": "scarves",
    "elf": "elves", "dwarf": "dwarves", "life": "lives", "sheep": "sheep", "deer": "deer", "fish": "fish", "moose": "moose", "shrimp": "shrimp",
    "aircraft": "aircraft", "passerby": "passersby", "fireman": "firemen", "businessman": "businessmen", "fisherman": "fishermen", "snowman": "snowmen",
    "hero": "heroes", "superhero": "superheroes", "potato": "potatoes", "tomato": "tomatoes", "goldfish": "goldfish", "jellyfish": "jellyfish",
}  # fmt: skip
_NUMERALS = "zero one two three four five six seven eight nine ten eleven twelve".split()


def first(change: Callable[[str], str], phrase: str) -> str:
    """Of a phrase such as `look at` or `twist and bend`, the verbs changed, by one of the functions below."""
    verbs = (part.partition(" ") for part in phrase.split(" and "))
    return " and ".join(change(verb) + space + rest for verb, space, rest in verbs)


def participle(verb: str) -> str:
    """walking"""
    if verb in ("be", "see") or verb.endswith(("ee", "oe", "ye")):
        return verb + "ing"
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e"):
        return verb[:-1] + "ing"
    return verb + (verb[-1] if verb in _DOUBLED else "") + "ing"


def present(verb: str) -> str:
    """walks"""
    if verb in _DOERS:
        return _DOERS[verb]
    if re.search(r"(s|sh|ch|x|z|o)$", verb):
        return verb + "es"
    return verb[:-1] + "ies" if re.search(r"[^aeiou]y$", verb) else verb + "s"


def done(verb: str) -> str:
    """walked, seen"""
    if verb in _PARTICIPLES:
        return _PARTICIPLES[verb]
    if verb.endswith("e"):
        return verb + "d"
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ied"
    return verb + (verb[-1] if verb in _DOUBLED else "") + "ed"


def plural(noun: str) -> str:
    *before, word = noun.split(" ")
    if " of " in noun:
        head, _, rest = noun.partition(" of ")
        return f"{plural(head)} of {rest}"
    if word in _PLURALS:
        many = _PLURALS[word]
    elif re.search(r"(s|sh|ch|x|z)$", word):
        many = word + "es"
    else:
        many = word[:-1] + "ies" if re.search(r"[^aeiou]y$", word) else word + "s"
    return " ".join([*before, many])


def adverb(adjective: str) -> str:
    """slowly"""
    if adjective in ("fast", "hard", "high", "low", "straight") or adjective.endswith("ly"):
        return adjective
    if adjective.endswith("y"):
        return adjective[:-1] + "ily"
    if adjective.endswith("le"):
        return adjective[:-1] + "y"
    return adjective + ("ally" if adjective.endswith("ic") else "ly")


def article(words: str) -> str:
    """a or an, before these."""
    sounds_open = re.match(r"[aeiouAEIOU]|hour|honest|[FHLMNRSX](?:[A-Z]|-)", words)
    return "an" if sounds_open and not re.match(r"uni|us[ei]|eu|one", words, re.IGNORECASE) else "a"


def numeral(value: int) -> str:
    """In a word up to twelve, as people write."""
    return _NUMERALS[value] if value < len(_NUMERALS) else str(value)
