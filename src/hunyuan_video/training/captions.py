"""Captions of several fields, and the texts that are made of them: fields left out, and the others in another order, as HunyuanVideo was
trained, so that a model understands long prompts and short ones.

    {"short": "A cat walks.", "dense": "A grey cat walks over wet grass …", "background": "A garden.", "style": "Realistic.",
     "shot": "Medium shot.", "lighting": "Morning sun.", "atmosphere": "Calm.", "camera": "The camera pans left."}

Every field may be missing. Text states are cached, so a clip's texts are chosen when it is encoded: a few of them, of which each stands for
the clip once an epoch.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping

DESCRIPTIONS = ("short", "dense")  # of which one is always there
FIELDS = (*DESCRIPTIONS, "background", "style", "shot", "lighting", "atmosphere", "camera")
KEPT = 0.5  # how likely a field stays
TRIES = 20  # draws for each text that is wanted: few fields make few different ones


def fields_of(caption: str) -> dict[str, str] | None:
    """What a caption says, by field; None for a plain one.

    Raises:
        ValueError: it is a JSON object of something else.
    """
    if not caption.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(caption)
    except (ValueError, RecursionError):
        return None  # words that begin with a brace
    return check(found)


def check(found: Mapping[str, object]) -> dict[str, str]:
    """The fields that say something. Raises a ValueError for any other field, one that is no text, or without a description."""
    if unknown := sorted(set(found) - set(FIELDS)):
        raise ValueError(f"a caption has the fields {', '.join(unknown)}; it can have {', '.join(FIELDS)}.")
    said = {name: text.strip() for name, text in found.items() if isinstance(text, str) and is_text(text)}
    if len(said) < len(found) or not any(said.get(name) for name in DESCRIPTIONS):
        raise ValueError("the fields of a caption must be texts, one of them short or dense.")
    return {name: said[name] for name in FIELDS if said.get(name)}


def is_text(words: str) -> bool:
    """Whether it has no NUL, as UTF-16 taken for UTF-8 has, and no half of a character."""
    return not re.search("[\0\ud800-\udfff]", words)


def texts_of(caption: str, most: int) -> list[str]:
    """The texts that stand for a clip: a plain caption itself, of one with fields up to `most` different ones, always the same.

    Raises a ValueError as `fields_of`.
    """
    fields = fields_of(caption)
    if fields is None:
        return [caption]
    draw = random.Random(hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).digest())
    return list(dict.fromkeys(_text(fields, draw) for _ in range(TRIES * most)))[:most]


def _text(fields: Mapping[str, str], draw: random.Random) -> str:
    described = [name for name in DESCRIPTIONS if name in fields]
    chosen = {draw.choice(described), *(name for name in fields if draw.random() < KEPT)}
    order = [name for name in fields if name in chosen]  # not of the set, which has another in each process
    draw.shuffle(order)
    return " ".join(fields[name] if fields[name][-1] in ".!?。！？" else f"{fields[name]}." for name in order)
