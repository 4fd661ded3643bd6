"""Whether a rewritten prompt may stand for what was typed: English, short enough, and with the same quoted text, numbers and negations."""

from __future__ import annotations

import re
import unicodedata

MAX_TOKENS = 255  # the encoder reads 256, one of which ends the prompt
_QUOTED = re.compile(r"\"([^\"\n]+)\"|“([^”\n]+)”|「([^」\n]+)」|『([^』\n]+)』|‘([^’\n]+)’|(?<!\w)'([^'\n]+)'(?!\w)")

_ENGLISH = frozenset("the of and with in on is are at its from by over through an into under while their his her to as".split())
_OTHERS = frozenset(
    "el la los las un una unos del que por para con y der die das und ein eine mit auf im den dem le les des et une dans sur avec du il lo gli "
    "di che della nel sul o os uma um da do na no com em het een van op met".split()
)

_NUMBER_WORDS = {
    2: "two pair couple both twin twins double duo", 3: "three trio triple", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine",
    10: "ten", 11: "eleven", 12: "twelve dozen", 13: "thirteen", 15: "fifteen", 20: "twenty", 30: "thirty", 100: "hundred", 1000: "thousand",
}  # fmt: skip
_VALUES = {word: value for value, words in _NUMBER_WORDS.items() for word in words.split()}
_DIGITS = dict(zip("一二两三四五六七八九", (1, 2, 2, 3, 4, 5, 6, 7, 8, 9), strict=True))
_COUNTED = re.compile(r"([一二两三四五六七八九十百]+)(?=[个只条头匹辆架艘座棵朵本张把位名片群对双颗枚件台部栋幢层块杯碗瓶支根首幅扇])")

_NEGATION = re.compile(
    r"\b(?:no|not|never|without|none|nobody|nothing|neither|nor|cannot|absent|absence|devoid|lacks?|lacking|free of|empty)\b|n't\b|n’t\b|\w{3}less\b",
    re.IGNORECASE,
)
_DENIED = re.compile(r"\b(?:no|not|never|without|none|nobody|nothing|neither|nor|cannot)\b|n't\b|n’t\b", re.IGNORECASE)
_DENIED_IN_CHINESE = re.compile(r"没有|没(?!收)|不(?![锈断同仅但久远过论管少])|(?<![非常])无(?!人机|限|数|论|线|缝|尽|比|垠|边)|(?<!特|分|差|告|级|个|区|性)别(?!墅|致|的|针|人)")


def problems(original: str, text: str) -> list[str]:
    """What is wrong with it, each as a clause; nothing if it may be used."""
    if not text.strip():
        return ["it is empty"]
    outside = _QUOTED.sub(" ", text)
    wrong = [] if is_english(outside) else ["it is not in English"]
    if (tokens := estimated_tokens(text)) > MAX_TOKENS:
        wrong.append(f"it has about {tokens} tokens, of which the model reads {MAX_TOKENS}")
    wrong += [f"it lacks the quoted text {quoted!r}" for quoted in quotes(original) if quoted not in text]
    kept = numbers(outside) | numbers(text)
    wrong += [f"it lacks the number {number}" for number in sorted(numbers(_QUOTED.sub(" ", original)) - kept)]
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
    return sum(word in _OTHERS for word in words) <= sum(word in _ENGLISH for word in words) + 1


def estimated_tokens(text: str) -> int:
    """About as many as Llama's tokenizer makes: one for a word of up to eight letters or a mark, two for a sign of another script."""
    words = re.findall(r"[A-Za-z]+|\d{1,3}|[^\w\s]|[^\W\dA-Za-z]", text)
    return sum(1 + (len(word) - 1) // 8 if word.isascii() else 2 for word in words)


def numbers(text: str) -> set[str]:
    """Those from two upwards, in digits; one is an article as often as not."""
    found = {digits.lstrip("0") or "0" for digits in re.findall(r"\d+", unicodedata.normalize("NFKC", text))}
    found |= {str(_VALUES[word]) for word in re.findall(r"[a-z]+", text.lower()) if word in _VALUES}
    found |= {str(_chinese(numeral)) for numeral in _COUNTED.findall(text)}
    return found - {"0", "1"}


def _chinese(numeral: str) -> int:
    """The value of 三, 十二 or 三百."""
    total, digit = 0, 0
    for sign in numeral:
        if sign in _DIGITS:
            digit = _DIGITS[sign]
        else:
            total, digit = total + max(digit, 1) * {"十": 10, "百": 100}[sign], 0
    return total + digit


def is_denying(text: str) -> bool:
    return bool(_DENIED.search(text) or _DENIED_IN_CHINESE.search(text))
