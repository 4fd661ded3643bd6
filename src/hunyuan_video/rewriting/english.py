"""Forms of English words."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from hunyuan_video.rewriting.words import entries

_DOERS = {"have": "has", "be": "is", "do": "does", "go": "goes"}
_NUMERALS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


@cache
def forms(section: str) -> dict[str, str]:
    """A section of english.txt: words, and forms of them where it has some."""
    return {word: form for name, word, form in entries("english.txt") if name == section}


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
    return verb + (verb[-1] if verb in forms("doubled") else "") + "ing"


def present(verb: str) -> str:
    """walks"""
    if verb in _DOERS:
        return _DOERS[verb]
    if re.search(r"(s|sh|ch|x|z|o)$", verb):
        return verb + "es"
    return verb[:-1] + "ies" if re.search(r"[^aeiou]y$", verb) else verb + "s"


def done(verb: str) -> str:
    """walked, seen"""
    if irregular := forms("participle").get(verb):
        return irregular
    if verb.endswith("e"):
        return verb + "d"
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ied"
    return verb + (verb[-1] if verb in forms("doubled") else "") + "ed"


def plural(noun: str) -> str:
    *before, word = noun.split(" ")
    if " of " in noun:
        head, _, rest = noun.partition(" of ")
        return f"{plural(head)} of {rest}"
    if irregular := forms("plural").get(word):
        many = irregular
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
