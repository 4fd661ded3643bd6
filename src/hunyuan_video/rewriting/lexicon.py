"""The words that the rules know, read from lexicon.txt at the first use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from hunyuan_video.rewriting.words import entries


@dataclass(frozen=True)
class Word:
    """A meaning of a Chinese word: its part of speech, English, and of a noun what it belongs to."""

    part: str
    english: str
    topic: str = ""


@cache
def lexicon() -> dict[str, tuple[Word, ...]]:
    """Of each Chinese word all meanings, the one that was written first before others of the same part of speech."""
    words: dict[str, dict[str, Word]] = {}
    for section, chinese, english in entries("lexicon.txt"):
        part, _, topic = section.partition(" ")
        words.setdefault(chinese, {}).setdefault(part, Word(part, english.removeprefix("-"), topic))
    return {chinese: tuple(meanings.values()) for chinese, meanings in words.items()}


@cache
def topics() -> dict[str, str]:
    """What English nouns belong to, by their last word, in lower case."""
    found: dict[str, str] = {}
    for meanings in lexicon().values():
        for word in meanings:
            if word.part == "noun":
                found.setdefault(word.english.strip("~=").split()[-1].lower(), word.topic)
    return found
