"""Whether a rewritten prompt may stand for what was typed: English, short enough, and with the same quoted text, numbers and negations."""

from __future__ import annotations

import re
import unicodedata

from hunyuan_video.rewriting import numerals
from hunyuan_video.rewriting.english import forms

MAX_TOKENS = 255  # the encoder reads 256, one of which ends the prompt
MAX_CHARACTERS = 8 * MAX_TOKENS  # more than any that short
_QUOTED = re.compile(
    r"\"([^\"\n]{1,200})\"|“([^”\n]{1,200})”|「([^」\n]{1,200})」|『([^』\n]{1,200})』|‘([^’\n]{1,200})’|(?<!\w)'([^'\n]{1,200})'(?!\w)"
)

_ONES = [
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen",
    "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_VALUES = {word: value for value, word in enumerate(_ONES, start=1)}
_VALUES |= {word: 10 * value for value, word in enumerate(_TENS, start=2)} | {"hundred": 100, "thousand": 1000, "dozen": 12}
_VALUES |= {"pair": 2, "couple": 2, "both": 2, "twin": 2, "twins": 2, "double": 2, "trio": 3, "triple": 3}
_COMPOUND = re.compile(rf"\b({'|'.join(_TENS)})[- ]({'|'.join(_ONES[:9])})\b")
_COUNTED = re.compile(r"([一二两三四五六七八九十百千万]+)(?=[个只条头匹辆架艘座棵朵本张把位名片群对双颗枚件台部栋幢层块杯碗瓶支根首幅扇])")

_NEGATION = re.compile(
    r"\b(?:no|not|never|without|none|nobody|nothing|neither|nor|cannot|absen[ct]e?|devoid|lack\w*|free of|empty)\b|n't\b|n’t\b"
    r"|\w{3}less\b",
    re.IGNORECASE,
)
_DENIED = re.compile(r"\b(?:no|not|never|without|none|nobody|nothing|neither|nor|cannot)\b|n't\b|n’t\b", re.IGNORECASE)
_DENIED_IN_CHINESE = re.compile(
    r"没有|没(?!收)|不(?![锈断同仅但久远过论管少])|(?<![非常])无(?!人机|限|数|论|线|缝|尽|比|垠|边)|(?<!特|分|差|告|级|个|区|性)别(?!墅|致|的|针|人)"
)


def problems(original: str, text: str) -> list[str]:
    """What is wrong with it, each as a clause; nothing if it may be used."""
    if not text.strip():
        return ["it is empty"]
    if len(text) > MAX_CHARACTERS:
        return [f"it has {len(text)} characters"]
    outside = _QUOTED.sub(" ", text)
    wrong = [] if is_english(outside) else ["it is not in English"]
    if (tokens := estimated_tokens(text)) > MAX_TOKENS:
        wrong.append(f"it has about {tokens} tokens, of which the model reads {MAX_TOKENS}")
    wrong += [f"it lacks the quoted text {quoted!r}" for quoted in quotes(original) if quoted not in text]
    kept = numbers(text)
    wanted = sorted(numbers(_QUOTED.sub(" ", original)) - kept)
    wrong += [
        f"it lacks the number {n}" for n in wanted if len(n) == 1 or not any(other.endswith(n) for other in kept)
    ]  # 80年代: the 1980s
    if is_denying(_QUOTED.sub(" ", original)) and not _NEGATION.search(outside):
        wrong.append("it lacks the negation")
    return wrong


def quotes(text: str) -> list[str]:
    """What stands in quotation marks, without them."""
    return [next(filter(None, found)) for found in _QUOTED.findall(text)]


def is_english(text: str) -> bool:
    """By its letters, and by the small words of English and of languages with the same letters."""
    letters = [c for c in text if c.isalpha()]
    if any(not unicodedata.name(c, "").startswith("LATIN") for c in letters):
        return False
    words = re.findall(r"[^\W\d_]+", text.lower())
    return sum(word in forms("other") for word in words) <= sum(word in forms("english") for word in words) + 1


def estimated_tokens(text: str) -> int:
    """About as many as Llama's tokenizer makes: one for a word of up to eight letters or a mark, two for a sign of another script."""
    words = re.findall(r"[A-Za-z]+|\d{1,3}|[^\w\s]|[^\W\dA-Za-z]", text)
    return sum(1 + (len(word) - 1) // 8 if word.isascii() else 2 for word in words)


def numbers(text: str) -> set[str]:
    """Those from two upwards, in digits; one is an article as often as not."""
    found = {digits.lstrip("0") or "0" for digits in re.findall(r"\d+", unicodedata.normalize("NFKC", text))}
    lower = text.lower()
    found |= {str(_VALUES[tens] + _VALUES[ones]) for tens, ones in _COMPOUND.findall(lower)}
    found |= {str(_VALUES[word]) for word in re.findall(r"[a-z]+", _COMPOUND.sub(" ", lower)) if word in _VALUES}
    found |= {str(numerals.value(numeral)) for numeral in _COUNTED.findall(text)}
    return found - {"0", "1"}


def is_denying(text: str) -> bool:
    return bool(_DENIED.search(text) or _DENIED_IN_CHINESE.search(text))
