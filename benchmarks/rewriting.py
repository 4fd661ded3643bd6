"""How the offline rewriter does on VBench's 946 prompts: what arrives of their Chinese, and its style beside the model's own rewriter's.

    python benchmarks/rewriting.py FOLDER

FOLDER holds three files of https://github.com/Vchitect/VBench, line by line the same prompts: all_dimension.txt (English),
all_dimension_cn.txt (Chinese) and hunyuan_all_dimension.txt (the English as HunyuanVideo's authors had it rewritten).

A word of the English prompt has arrived if the translation has a word of the same lemma; another word for the same thing counts as lost. A
word that can be a verb and ends in -ing or -ed, or can be nothing else, counts as a verb; one that can be a noun as a noun. The lexicon
was extended by looking at lines 1, 3, 5 …, so lines 2, 4, 6 … say what to expect.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from lemminflect import getAllLemmas  # pyright: ignore[reportMissingTypeStubs]

from hunyuan_video.rewriting import rewrite, style
from hunyuan_video.rewriting.checks import problems
from hunyuan_video.rewriting.chinese import translate

COLOURS = (
    "red", "green", "blue", "yellow", "orange", "purple", "pink", "black", "white", "gray", "grey", "brown", "golden", "silver",
    "turquoise", "amber",
)  # fmt: skip
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "hundred", "thousand")
SMALL = (
    "a", "an", "the", "of", "and", "or", "in", "on", "at", "to", "is", "are", "was", "were", "be", "being", "with", "by", "from", "for",
    "its", "their", "his", "her", "it", "as", "into", "over", "through", "up",
)  # fmt: skip
CLASSES = ("nouns", "verbs", "colours", "numbers")


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+", text.lower())


@cache
def lemmas(word: str) -> frozenset[str]:
    return frozenset([word, *(lemma for forms in getAllLemmas(word).values() for lemma in forms)])


@cache
def class_of(word: str) -> str | None:
    if word in COLOURS:
        return "colours"
    if word in NUMBERS or word.isdigit():
        return "numbers"
    kinds = set(getAllLemmas(word)) - {"PROPN"}
    if word in SMALL or not kinds:
        return None
    if "VERB" in kinds and (word.endswith(("ing", "ed")) or not kinds & {"NOUN", "ADJ", "ADV"}):
        return "verbs"
    return "nouns" if "NOUN" in kinds else None


def arrived(english: str, translation: str) -> Counter[tuple[str, bool]]:
    """Of the words of a prompt, how many of each class arrived, and how many did not."""
    there = frozenset().union(*(lemmas(word) for word in words_of(translation)))
    return Counter((kind, bool(lemmas(word) & there)) for word in set(words_of(english)) if (kind := class_of(word)))


def translation_table(english: Sequence[str], chinese: Sequence[str]) -> Iterable[str]:
    translated = [translate(line) for line in chinese]
    yield "| lines | " + " | ".join(CLASSES) + " | nothing left in Chinese |"
    yield "|---|" + "---|" * (len(CLASSES) + 1)
    for name, part in (("looked at (1, 3, 5 …)", slice(0, None, 2)), ("held out (2, 4, 6 …)", slice(1, None, 2)), ("all", slice(None))):
        counts = sum((arrived(line, text) for line, (text, _) in zip(english[part], translated[part], strict=True)), Counter())
        shares = [share(counts[kind, True], counts[kind, True] + counts[kind, False]) for kind in CLASSES]
        whole = sum(not unknown for _, unknown in translated[part])
        yield f"| {name} | " + " | ".join([*shares, share(whole, len(translated[part]))]) + " |"


def share(part: int, whole: int) -> str:
    return f"{100 * part // whole} % of {whole}"  # rounded down: 100 % is all


def style_table(english: Sequence[str], columns: dict[str, Sequence[str]]) -> Iterable[str]:
    yield "| | " + " | ".join(columns) + " |"
    yield "|---|" + "---|" * len(columns)
    yield row("words, median (and the longest tenth from)", [f"{median} ({tenth})" for median, tenth in map(lengths, columns.values())])
    for name, pattern in (("style", style.STYLE), ("light", style.LIGHT), ("mood", style.MOOD), ("camera", style.CAMERA)):
        yield row(f"{name} is named", [share(sum(bool(pattern.search(text)) for text in texts), len(texts)) for texts in columns.values()])
    yield row("light comes in the last third, where it is named", [light_comes_late(texts) for texts in columns.values()])
    yield row("nouns and verbs of the prompt that are kept", [kept(english, texts) for texts in columns.values()])
    yield row("the checks for language models pass", [share(sum(map(passes, english, texts)), len(texts)) for texts in columns.values()])


def row(name: str, cells: Iterable[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def lengths(texts: Sequence[str]) -> tuple[int, int]:
    counts = [len(words_of(text)) for text in texts]
    return round(statistics.median(counts)), round(statistics.quantiles(counts, n=10)[-1])


def light_comes_late(texts: Sequence[str]) -> str:
    starts = [[*style.LIGHT.finditer(text)][-1].start() / len(text) for text in texts if style.LIGHT.search(text)]
    return share(sum(start > 2 / 3 for start in starts), len(starts)) if starts else "-"


def kept(english: Sequence[str], texts: Sequence[str]) -> str:
    counts = sum(map(arrived, english, texts), Counter())
    here, gone = (sum(counts[kind, there] for kind in ("nouns", "verbs")) for there in (True, False))
    return share(here, here + gone)


def passes(prompt: str, text: str) -> bool:
    return not problems(prompt, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    names = ("all_dimension.txt", "all_dimension_cn.txt", "hunyuan_all_dimension.txt")
    english, chinese, theirs = ((folder / name).read_text(encoding="utf-8").splitlines() for name in names)
    print(*translation_table(english, chinese), "", sep="\n")
    columns = {
        "as typed": english,
        "their rewriter": theirs,
        "offline, normal": [rewrite(line, "normal").prompt for line in english],
        "offline, normal, from Chinese": [rewrite(line, "normal").prompt for line in chinese],
        "offline, master": [rewrite(line, "master").prompt for line in english],
    }
    print(*style_table(english, columns), sep="\n")


if __name__ == "__main__":
    main()
