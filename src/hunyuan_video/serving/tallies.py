"""How long things took and what failed, counted in the database: all processes see the same sums, and they outlive the jobs."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, and_, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from hunyuan_video.serving.tables import events, tallies

Kind = Literal["step", "stage", "job", "error"]
# Seconds, up to and including each; beyond the last is one more bucket. From the miniature's steps to an hour of a long video.
BOUNDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0)


@dataclass(frozen=True)
class Tally:
    """So many things of a kind that took up to `BOUNDS[bucket]` seconds, and `total` seconds together."""

    kind: str
    label: str
    bucket: int
    number: int
    total: float


def count(db: Connection, kind: Kind, label: str, seconds: float = 0.0) -> None:
    """One more."""
    bucket = bisect_left(BOUNDS, seconds)
    here = and_(tallies.c.kind == kind, tallies.c.label == label, tallies.c.bucket == bucket)
    more = update(tallies).where(here).values(number=tallies.c.number + 1, total=tallies.c.total + seconds)
    if db.execute(more).rowcount:
        return
    try:
        with db.begin_nested():
            db.execute(insert(tallies), {"kind": kind, "label": label, "bucket": bucket, "number": 1, "total": seconds})
    except IntegrityError:  # in PostgreSQL, where another process may have been faster
        db.execute(more)


def count_step(db: Connection, row: Row[Any], stage: str, is_last: bool, now: float) -> None:
    """Of a job's row, before the step is told: how long it took since what was told before; and if it is the last one, its stage."""
    told = and_(events.c.job == row.id, events.c.at >= row.started_at)
    before = db.scalar(select(func.max(events.c.at)).where(told))
    count(db, "step", stage, now - (before or row.started_at))
    if is_last:
        steps = db.execute(select(events.c.at, events.c.data).where(told, events.c.kind == "step"))
        count(db, "stage", stage, now - max((step.at for step in steps if step.data["stage"] != stage), default=row.started_at))


def read(db: Connection) -> list[Tally]:
    query = select(tallies).order_by(tallies.c.kind, tallies.c.label, tallies.c.bucket)
    return [Tally(row.kind, row.label, row.bucket, row.number, row.total) for row in db.execute(query)]
