"""The prompt in what a language model says: without its thoughts, fences, labels and courtesies."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

_THOUGHT = re.compile(r"<(/?)(?:think|thinking|reasoning|thought)>", re.IGNORECASE)
_FENCE = re.compile(r"```[\w-]*\n(.*?)(?:```|\Z)", re.DOTALL)
_NAMES = ("prompt", "rewritten_prompt", "rewritten", "enhanced_prompt", "output", "description", "caption", "text", "result", "answer")
_LABEL = re.compile(
    r"[\s#>*_]*(?:(?:sure|certainly|of course|okay|ok)\b[^\n:]{0,80}[!.,:]\s*)?"
    r"(?:here(?:'s| is| are)\b[^\n:]{0,80}:|(?:(?:the|my|your)\s+)?"
    r"(?:(?:re-?written|enhanced|improved|final|new|english|video|output)\s+){0,3}"
    r"(?:prompt|description|caption|output|answer|result)\s*[*_]*\s*:)[\s*_]*",
    re.IGNORECASE,
)
_COURTESY = re.compile(
    r"[\s*_(]*(?:note|explanation|let me know|i hope|i have|i've|feel free|this (?:prompt|description|version))\b", re.IGNORECASE
)
_QUOTES = {'"': '"', "“": "”", "'": "'", "‘": "’", "「": "」"}


def prompt_in(answer: str) -> str:
    """In one line; the empty string if there is none."""
    text = _thought_through(answer)
    if fenced := _FENCE.search(text):
        text = fenced[1]
    text = _of_json(text) or text
    text = _LABEL.sub("", text, count=1) if _LABEL.match(text) else text
    paragraphs = [part for part in re.split(r"\n\s*\n", text.strip()) if part.strip()]
    while len(paragraphs) > 1 and _COURTESY.match(paragraphs[-1]):
        paragraphs.pop()
    return _unquoted(_one_line("\n".join(paragraphs)))


def _thought_through(answer: str) -> str:
    """What comes after the thoughts. Some templates open them themselves, and some models never end them."""
    marks = list(_THOUGHT.finditer(answer))
    ends = [mark.end() for mark in marks if mark[1]]
    start = ends[-1] if ends else 0
    return answer[start : next((mark.start() for mark in marks if mark.start() >= start), None)]


def _of_json(text: str) -> str | None:
    """Of an object with one of the usual names, or with a single text in it; also if something stands before or after it."""
    start = text.find("{")
    if start < 0:
        return None
    try:
        found: Any = json.JSONDecoder().raw_decode(text, start)[0]
    except (ValueError, RecursionError):  # braces that are the prompt's own
        return None
    named = {name.lower(): value for name, value in found.items() if isinstance(value, str)}
    return next((named[name] for name in _NAMES if name in named), next(iter(named.values())) if len(named) == 1 else None)


def _one_line(text: str) -> str:
    """Without control characters, which could speak to a terminal, and half characters, which no file can keep."""
    return " ".join("".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text).split())


def _unquoted(text: str) -> str:
    """Without quotation marks around all of it."""
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1] and text[-1] not in text[1:-1]:
        return text[1:-1].strip()
    return text
