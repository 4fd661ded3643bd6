"""The cheapest way to put words together by the rules of the grammar: a chart of all phrases from every word to every other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hunyuan_video.rewriting import english
from hunyuan_video.rewriting.grammar import ALONE, RULES
from hunyuan_video.rewriting.phrases import Noun, Place, Quantity, Verb, join

Cell = dict[str, tuple[float, Any]]  # of each kind of phrase the cheapest: its cost and value
FRAGMENT = 3.0  # what one phrase more costs, where they make no whole
LOST = 6.0  # and a word that means nothing alone


def parse(words: Sequence[Cell]) -> str:
    """The English of a clause, of whose words all readings are given. Time grows with the cube of their number."""
    count = len(words)
    chart: dict[tuple[int, int], Cell] = {}
    for length in range(1, count + 1):
        for start in range(count - length + 1):
            end = start + length
            cell: Cell = dict(words[start]) if length == 1 else {}
            for middle in range(start + 1, end):
                _combine(chart[start, middle], chart[middle, end], cell)
            _alone(cell)
            chart[start, end] = cell
    return _cover(chart, count)


def _combine(left: Cell, right: Cell, cell: Cell) -> None:
    for left_kind, (left_cost, left_value) in left.items():
        for right_kind, (right_cost, right_value) in right.items():
            for kind, extra, make in RULES.get((left_kind, right_kind), ()):
                cost = left_cost + right_cost + extra
                if (kind not in cell or cost < cell[kind][0]) and (value := make(left_value, right_value)) is not None:
                    cell[kind] = (cost, value)


def _alone(cell: Cell) -> None:
    waiting = list(cell)
    while waiting:
        kind = waiting.pop()
        for becomes, extra, make in ALONE.get(kind, ()):
            cost = cell[kind][0] + extra
            if becomes not in cell or cost < cell[becomes][0]:
                cell[becomes] = (cost, make(cell[kind][1]))
                waiting.append(becomes)


def _cover(chart: dict[tuple[int, int], Cell], count: int) -> str:
    """The cheapest row of phrases from end to end."""
    best: list[tuple[float, list[str]]] = [(0.0, [])]
    for end in range(1, count + 1):
        ways = [
            (best[start][0] + cost + (FRAGMENT if value else LOST), best[start][1], kind, value)
            for start in range(end)
            for kind, (cost, value) in chart[start, end].items()
        ]
        cost, before, kind, value = min(ways, key=lambda way: way[0])
        best.append((cost, [*before, _said(kind, value)]))
    return join(*best[count][1])


def _said(kind: str, value: Any) -> str:
    """Of a phrase that stands alone."""
    if isinstance(value, tuple):
        return join(value[0], _said(kind, value[1]))
    if isinstance(value, Quantity):
        return join(value.word or english.numeral(value.number or 0), value.measure.rstrip("+"))
    if isinstance(value, Verb):
        return value.going()
    if isinstance(value, Noun | Place):
        return join(value.said(), "of" if kind == "NDE" else "")
    if kind in ("DE", "DI", "DEC", "ASP", "ZAI", "BEI", "BA"):
        return ""
    return {"SHI": "is", "YOU": "with"}.get(kind, str(value))
