"""A vote as it leaves the database: a line of a table that tells all a report needs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hunyuan_video.config import require
from hunyuan_video.files import replacing
from hunyuan_video.rating.design import ANSWERS, QUESTIONS


@dataclass(frozen=True)
class Vote:
    """One answer to one question. Of several by one rater at one place the last one counts."""

    rater: str
    """a hash, which tells raters apart and nothing of them"""
    mode: str
    number: int
    """its place among what this rater was shown"""
    kind: str
    """first, repeat, or plant"""
    prompt: str
    """its id"""
    tags: tuple[str, ...]
    question: str
    answer: str
    left: str
    """the system on that side, or the only one"""
    right: str
    truth: str
    """what is right, of a plant"""
    latency_ms: int
    """from when it was shown until the answer was sent"""
    at: float
    """seconds since 1970"""
    seed: int
    """with which the clips were made"""
    left_made: str
    """a hash of all that is said of how the system on the left makes clips"""
    right_made: str

    def __post_init__(self) -> None:
        require(self.mode in ANSWERS, f"mode is {self.mode!r}, and not one of {', '.join(ANSWERS)}")
        require(self.question in QUESTIONS, f"question is {self.question!r}, and not one of {', '.join(QUESTIONS)}")
        answers = ANSWERS[self.mode]
        require(self.answer in answers, f"answer is {self.answer!r}, and not one of {', '.join(answers)}")
        require(self.kind in ("first", "repeat", "plant"), f"kind is {self.kind!r}, and not first, repeat or plant")
        require(bool(self.left) and bool(self.right) == (self.mode == "pairs"), "a pair needs two systems, and a clip alone has one")


COLUMNS = tuple(field.name for field in fields(Vote))


def write_csv(votes: Iterable[Vote], path: Path) -> None:
    """All of them, in the order in which they came."""
    with replacing(path) as (temporary, _), temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(asdict(vote) | {"tags": ";".join(vote.tags)} for vote in votes)


def read_csv(path: Path) -> list[Vote]:
    """Raises a ValueError that names the line which is no vote."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        lacking = set(COLUMNS) - set(rows.fieldnames or ())
        require(not lacking, f"{path} lacks the columns {', '.join(sorted(lacking))}; give what `evaluate report --csv` has written.")
        votes = []
        for row in rows:
            try:
                votes.append(_vote(row))
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"Line {rows.line_num} of {path} is no vote: {error}.") from error
    return votes


def _vote(row: dict[str, str]) -> Vote:
    kinds = {"number": int, "latency_ms": int, "at": float, "seed": int}
    numbers: dict[str, Any] = {name: _number(row, name, kind) for name, kind in kinds.items()}
    words = {name: row[name] for name in COLUMNS if name not in numbers and name != "tags"}
    return Vote(**words, **numbers, tags=tuple(filter(None, row["tags"].split(";"))))


def _number(row: dict[str, str], name: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(row[name])
    except ValueError as error:
        raise ValueError(f"{name} is {row[name]!r}, and not a number") from error


def last_words(votes: Sequence[Vote]) -> list[Vote]:
    """Without those after which the same rater has said something else."""
    return list({(vote.rater, vote.mode, vote.number, vote.question): vote for vote in votes}.values())
