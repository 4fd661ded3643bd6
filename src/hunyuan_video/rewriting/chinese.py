"""From Chinese into English: sentences are cut into words that the lexicon knows, and put together by the grammar."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from hunyuan_video.rewriting import numerals
from hunyuan_video.rewriting.chart import Cell, parse
from hunyuan_video.rewriting.lexicon import lexicon
from hunyuan_video.rewriting.phrases import Noun, Quantity, Verb, join

MAX_WORDS = 24  # of a clause, which is cut there: the grammar's time grows with their cube
_MARKS = {"，": ",", "。": ".", "！": "!", "？": "?", "；": ";", "：": ":", "…": "..."}
_PIECE = re.compile(
    r"(?P<quote>\"[^\"\n]{1,200}\"|“[^”\n]{1,200}”|「[^」\n]{1,200}」|『[^』\n]{1,200}』|‘[^’\n]{1,200}’)"
    r"|(?P<mark>[，。！？；：…,.!?;:\n]+)"
    r"|(?P<han>[\u3400-\u9fff\uf900-\ufaff〇、·]+)"
    r"|(?P<digits>\d+(?:[.:]\d+)*(?![\dA-Za-z]))"
    r"|(?P<other>(?:(?![\"“「『‘，。！？；：…,.!?;:\u3400-\u9fff\uf900-\ufaff〇、·])\S)+|\S)"
)
# "A tranquil picture of …", around sentences: in English the picture comes first.
_FRAMED = re.compile(r"(一[幅张段])([^。]{10,})的([^的，。]{0,6}(?:画面|场景|油画|照片|图片|视频|镜头|水彩画|插画))([，。].*|)", re.DOTALL)
_BRACKETS = re.compile(r"[{\[]([^{}\[\]]*[\u3400-\u9fff][^{}\[\]]*)[}\]]")  # around words, which may come in another order
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_NUMERAL = re.compile(f"[{numerals.SIGNS}]+")
_PARTS = {
    "adjective": "A", "adverb": "D", "conjunction": "C", "phrase": "K", "localizer": "L", "measure": "M", "preposition": "P",
    "complement": "R", "modal": "MODAL",
}  # fmt: skip
_PARTICLES = {
    "的": "DE", "地": "DI", "得": "DEC", "在": "ZAI", "着": "ASP", "被": "BEI", "把": "BA", "是": "SHI", "有": "YOU",
    "not": "NEG", "never": "NEG", "no": "NEG",
}  # fmt: skip


def has_chinese(text: str) -> bool:
    """And no Japanese or Korean, which share its signs."""
    return bool(_HAN.search(text)) and not re.search(r"[\u3040-\u30ff\uac00-\ud7af]", text)


def translate(text: str) -> tuple[str, list[str]]:
    """In English, and what could not be translated and so stays as it is. Quoted text is not touched, nor are words in other letters.

    A text that is English but for some words keeps its order.
    """
    if len(re.findall("[A-Za-z]", text)) > 2 * len(_HAN.findall(text)):
        unknown = list[str]()
        return _PIECE.sub(lambda found: _words_alone(found, unknown), text), unknown
    text = _BRACKETS.sub(r"\1", re.sub(r"(\d+)年代", r"\1s", text))
    if framed := _FRAMED.fullmatch(text.strip()):
        text = f"{framed[1]}{framed[3]}：{framed[2]}{framed[4]}"
    said, unknown = "", list[str]()
    clause: list[Cell] = []
    for kind, piece in _pieces(text):
        if kind == "mark":
            said, clause = _close(said, clause), []
            mark = "".join(_MARKS.get(sign, sign) for sign in piece if sign != "\n") or ","
            said = f"{said}{mark}" if said else said
        for readings in _words(kind, piece, unknown):
            clause.append(readings)
            if len(clause) == MAX_WORDS:
                said, clause = _close(said, clause), []
    return _close(said, clause), unknown


def _words(kind: str, piece: str, unknown: list[str]) -> list[Cell]:
    """Of a piece of text, each word with all its readings."""
    if kind == "mark":
        return []
    if kind == "han":
        return [readings for word in cut(piece) if (readings := _readings(word, unknown))]
    if kind == "digits" and piece.isdecimal() and len(piece) < 10:
        return [{"NUM": (0.0, Quantity(int(piece))), "N": (1.5, Noun(piece, "name"))}]
    return [{"N": (0.5, Noun(piece, "name", "quote" if kind == "quote" else ""))}]


def _words_alone(found: re.Match[str], unknown: list[str]) -> str:
    if found.lastgroup != "han":
        return found[0]
    words = _words("han", found[0], unknown)
    return join(*(parse(words[start : start + MAX_WORDS]) for start in range(0, len(words), MAX_WORDS)))


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    for found in _PIECE.finditer(text):
        assert found.lastgroup is not None
        yield found.lastgroup, found[0]


def _close(said: str, clause: list[Cell]) -> str:
    """With the clause behind what was said so far."""
    if not clause:
        return said
    words = parse(clause)
    if not said or said[-1] in ".!?":
        words = words[:1].upper() + words[1:]
    return join(said, words)


def cut(text: str) -> list[str]:
    """Into as few words as can be, the longer ones rather; neighbours that the lexicon does not know make one."""
    words, longest = lexicon(), _longest()
    best: list[tuple[float, int]] = [(0.0, 0)]  # the cost up to here, and where the last word began
    for end in range(1, len(text) + 1):
        ways = []
        for start in range(max(0, end - longest), end):
            word = text[start:end]
            if word in words or _NUMERAL.fullmatch(word):
                ways.append((best[start][0] + _price(word), start))
            elif len(word) == 1:
                ways.append((best[start][0] + 2.5, start))
        best.append(min(ways))
    parts, end = list[str](), len(text)
    while end:
        start = best[end][1]
        parts.append(text[start:end])
        end = start
    return _together(reversed(parts))


def _price(word: str) -> float:
    """Less for a longer word; and a little for a small one that belongs to what is before it, as in 太空|中."""
    if len(word) > 1:
        return 1.0 - 0.02 * len(word)
    return 1.1 if word == "的" or any(meaning.part == "localizer" for meaning in lexicon().get(word, ())) else 1.15


def _together(parts: Iterator[str]) -> list[str]:
    words = list[str]()
    for part in parts:
        if words and not _is_known(part) and not _is_known(words[-1]):
            words[-1] += part
        else:
            words.append(part)
    return words


def _is_known(word: str) -> bool:
    return word in lexicon() or _NUMERAL.fullmatch(word) is not None


@cache
def _longest() -> int:
    return max(map(len, lexicon()))


def _readings(word: str, unknown: list[str]) -> Cell:
    """All kinds of phrase that a word may be; none for one that English leaves out. What is not known is a name, and added to `unknown`."""
    cell: Cell = {}
    for meaning in lexicon().get(word, ()):
        english = meaning.english
        if meaning.part == "noun":
            cell["N"] = (0.0, Noun.of(english, meaning.topic))
        elif meaning.part == "name":
            cell["N"] = (0.0, Noun.of(english if english[0].isupper() or english.startswith("the ") else english.capitalize(), "name"))
        elif meaning.part == "pronoun":
            cell["NP"] = (0.0, Noun(english, "many" if english in ("they", "we", "you") else "name", "pronoun"))
        elif meaning.part == "verb":
            cell["V"] = (0.05, Verb(english))
        elif meaning.part == "determiner":
            cell["DET"] = (0.0, Quantity(None, english))
        elif meaning.part == "particle":
            if english:
                cell[_PARTICLES[english]] = (0.0, english)
        else:
            cell[_PARTS[meaning.part]] = (0.0, english)
    if _NUMERAL.fullmatch(word):
        cell["NUM"] = (0.0, Quantity(numerals.value(word)))
    elif word not in lexicon():
        unknown.append(word)
        cell["N"] = (1.0, Noun(word, "name"))
    return cell
