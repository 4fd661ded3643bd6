"""What raters were shown and said, in SQLite. Rows are added and never changed, which the database itself sees to: a changed mind is a
further row."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    DDL,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    ScalarSelect,
    String,
    Table,
    Text,
    event,
    func,
    insert,
    select,
)
from sqlalchemy.exc import DatabaseError, OperationalError

from hunyuan_video.config import require
from hunyuan_video.rating.design import Kind, Showing, Task
from hunyuan_video.serving.database import connect, reading, writing

VERSION = 1
MOST_UNFINISHED = 500  # raters who have come in the last hour and not finished; more are no people
MOST_CHANGES = 20  # of one's mind, at one place
GONE = 3600.0  # seconds without a vote after which an unfinished rater counts as gone, and the block goes to another
metadata = MetaData()

openings = Table("openings", metadata, Column("mode", String(16), primary_key=True), Column("terms", Text, nullable=False))

raters = Table(
    "raters",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("mode", String(16), nullable=False),
    Column("block", Integer, nullable=False),
    Column("at", Float(53), nullable=False),
)

tasks = Table(
    "tasks",
    metadata,
    Column("rater", ForeignKey("raters.number"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("prompt", Text, nullable=False),
    Column("left", Text, nullable=False),
    Column("right", Text, nullable=False),
    Column("truth", String(16), nullable=False),
    Column("left_id", String(32), nullable=False, unique=True),
    Column("right_id", String(32), nullable=False, unique=True),
)

votes = Table(
    "votes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("rater", ForeignKey("raters.number"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("question", String(16), nullable=False),
    Column("answer", String(16), nullable=False),
    Column("latency_ms", Integer, nullable=False),
    Column("at", Float(53), nullable=False),
    Index("votes_by_task", "rater", "number", "at"),
)

for _table in metadata.tables.values():
    for _change in ("UPDATE", "DELETE"):
        _rule = f"BEFORE {_change} ON {_table.name} BEGIN SELECT RAISE(ABORT, 'votes are added, and never changed'); END"
        event.listen(_table, "after_create", DDL(f"CREATE TRIGGER {_table.name}_{_change.lower()} {_rule}"))


@dataclass(frozen=True)
class Rater:
    number: int
    name: str
    """as it stands in a table of votes"""


@dataclass(frozen=True)
class Shown:
    """A task as its rater gets it: clips under names that tell nothing."""

    number: int
    task: Task
    left_id: str
    right_id: str
    answers: Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """A vote with what it is on."""

    rater: str
    mode: str
    number: int
    task: Task
    question: str
    answer: str
    latency_ms: int
    at: float


class CrowdedError(Exception):
    """Nobody else is let in for now."""


class Store:
    """Raises a ValueError for a file that is damaged, or that a newer version of this program has written."""

    def __init__(self, path: Path):
        self.engine = connect(f"sqlite:///{path}")
        try:
            with writing(self.engine) as db:
                version = db.exec_driver_sql("PRAGMA user_version").scalar_one()
                if version == 0:
                    metadata.create_all(db)
                    db.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
        except DatabaseError as error:
            self.close()
            if isinstance(error, OperationalError):  # a full disk, or somebody else's lock
                raise OSError(f"{path} cannot be written ({error.orig}).") from error
            raise ValueError(f"{path} is no database of votes ({error.orig}); bring it back from a copy, or move it away.") from error
        if version not in (0, VERSION):
            self.close()
            raise ValueError(f"{path} is of version {version}, and this program knows {VERSION}; update it.")

    def close(self) -> None:
        self.engine.dispose()

    def begin(self, mode: str, terms: Mapping[str, Any]) -> None:
        """Begin to rate in this way, or go on.

        Raises:
            ValueError: it has begun by other terms.
        """
        with writing(self.engine) as db:
            stored = db.scalar(select(openings.c.terms).where(openings.c.mode == mode))
            if stored is None:
                db.execute(insert(openings), {"mode": mode, "terms": json.dumps(terms)})
                return
        before = json.loads(stored)
        other = next((name for name in terms if terms[name] != before.get(name)), None)
        whole = "go on with that, or make another study, for the votes would not add up."
        require(other != "clips", "This study has been rated with clips that have changed since, or of which some are gone; " + whole)
        require(other is None, f"This study has been rated with {other} {before.get(other)!r}, and not {terms.get(other or '')!r}; {whole}")

    def terms(self) -> list[dict[str, Any]]:
        """By which it has begun, in each way to rate."""
        with reading(self.engine) as db:
            return [json.loads(terms) for terms in db.scalars(select(openings.c.terms))]

    def join(self, mode: str, blocks: int, session: Callable[[int, int], Sequence[Task]], now: float) -> tuple[Rater, str]:
        """A new rater, and the secret by which they are known from now on. `session` gives the tasks of a block and a rater.

        Raises:
            CrowdedError: too many have come lately and done nothing.
        """
        secret = secrets.token_urlsafe(24)
        with writing(self.engine) as db:
            if (db.scalar(select(func.count()).where(raters.c.at > now - GONE, _said() < _asked())) or 0) >= MOST_UNFINISHED:
                raise CrowdedError("Too many have come within an hour and not finished; try again later.")
            block = self._next_block(db, mode, blocks, now)
            row = {"digest": (digest := _digest(secret)), "mode": mode, "block": block, "at": now}
            made = db.execute(insert(raters).values(row)).inserted_primary_key
            assert made is not None  # for a type checker
            rater = made[0]
            db.execute(insert(tasks), [_row(rater, number, task) for number, task in enumerate(session(block, rater), start=1)])
        return Rater(rater, _name(digest)), secret

    def rater(self, mode: str, secret: str) -> Rater | None:
        digest = _digest(secret)
        with reading(self.engine) as db:
            number = db.scalar(select(raters.c.number).where(raters.c.digest == digest, raters.c.mode == mode))
        return None if number is None else Rater(number, _name(digest))

    def progress(self, rater: Rater) -> tuple[int, int]:
        """The first place without a vote, or the one after the last; and how many there are."""
        said = select(votes.c.number).where(votes.c.rater == rater.number)
        with reading(self.engine) as db:
            total = db.scalar(select(func.count()).where(tasks.c.rater == rater.number)) or 0
            first = db.scalar(select(func.min(tasks.c.number)).where(tasks.c.rater == rater.number, tasks.c.number.not_in(said)))
        return total + 1 if first is None else first, total

    def shown(self, rater: Rater, number: int) -> Shown | None:
        with reading(self.engine) as db:
            row = db.execute(select(tasks).where(tasks.c.rater == rater.number, tasks.c.number == number)).one_or_none()
            said = select(votes.c.question, votes.c.answer).where(votes.c.rater == rater.number, votes.c.number == number)
            answers = {row.question: row.answer for row in db.execute(said.order_by(votes.c.id))}
        return None if row is None else Shown(number, _task(row), row.left_id, row.right_id, answers)

    def clip(self, rater: Rater, name: str) -> tuple[str, str] | None:
        """The prompt and the system of which a rater's name of a clip is."""
        with reading(self.engine) as db:
            named = (tasks.c.left_id == name) | (tasks.c.right_id == name)
            row = db.execute(select(tasks).where(named, tasks.c.rater == rater.number)).one_or_none()
        return None if row is None else (row.prompt, row.left if row.left_id == name else row.right)

    def vote(self, rater: Rater, number: int, answers: Mapping[str, str], latency_ms: int, now: float) -> None:
        """Add what a rater says at a place, if it is something else than before.

        Raises:
            ValueError: they have changed their mind too often there.
        """
        more = {"rater": rater.number, "number": number, "latency_ms": latency_ms, "at": now}
        here = select(votes).where(votes.c.rater == rater.number, votes.c.number == number).order_by(votes.c.id)
        with writing(self.engine) as db:
            before = db.execute(here).all()
            if {row.question: row.answer for row in before} == dict(answers):
                return
            require(len(before) <= MOST_CHANGES * len(answers), f"You have changed your mind {MOST_CHANGES} times here; that is enough.")
            db.execute(insert(votes), [{"question": question, "answer": answer, **more} for question, answer in answers.items()])

    def rows(self) -> list[Row]:
        """Every vote, in the order in which they came."""
        where = (votes.c.rater == tasks.c.rater) & (votes.c.number == tasks.c.number)
        asked = select(votes, tasks, raters.c.digest, raters.c.mode).join(tasks, where).join(raters, raters.c.number == votes.c.rater)
        with reading(self.engine) as db:
            return [
                Row(_name(row.digest), row.mode, row.number, _task(row), row.question, row.answer, row.latency_ms, row.at)
                for row in db.execute(asked.order_by(votes.c.id))
            ]

    def _next_block(self, db: Connection, mode: str, blocks: int, now: float) -> int:
        """The first of those that fewest raters have finished or are at."""
        last = select(func.max(votes.c.at)).where(votes.c.rater == raters.c.number).scalar_subquery()
        taken = [0] * blocks
        query = select(raters.c.block, raters.c.at, last.label("last"), (_said() == _asked()).label("finished")).where(
            raters.c.mode == mode
        )
        for row in db.execute(query):
            taken[row.block] += bool(row.finished or now - (row.last or row.at) < GONE)
        return taken.index(min(taken))


def _said() -> ScalarSelect[int]:
    """At how many places a rater has voted."""
    return select(func.count(votes.c.number.distinct())).where(votes.c.rater == raters.c.number).scalar_subquery()


def _asked() -> ScalarSelect[int]:
    """How many places a rater has."""
    return select(func.count()).where(tasks.c.rater == raters.c.number).scalar_subquery()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _name(digest: str) -> str:
    return digest[:16]


def _row(rater: int, number: int, task: Task) -> dict[str, Any]:
    showing = task.showing
    said = {"kind": task.kind, "prompt": showing.prompt, "left": showing.left, "right": showing.right, "truth": task.truth}
    return said | {"rater": rater, "number": number, "left_id": secrets.token_hex(12), "right_id": secrets.token_hex(12)}


def _task(row: Any) -> Task:
    kind: Kind = row.kind
    return Task(kind, Showing(row.prompt, row.left, row.right), row.truth)
