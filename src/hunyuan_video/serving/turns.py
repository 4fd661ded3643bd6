"""Whose turn it is: owners take turns, however many jobs each has waiting. Inside a transaction of `store`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, update

from hunyuan_video.serving.jobs import Job
from hunyuan_video.serving.tables import jobs, owners


def next_job(db: Connection, model: str | None) -> Row[Any] | None:
    """The waiting job (for a model, if given) of the owner with the fewest running ones, and among these the one served longest ago.
    It is locked."""
    number = func.count().label("number")
    running = select(jobs.c.owner, number).where(jobs.c.status == "in_progress").group_by(jobs.c.owner).subquery()
    all_of = jobs.outerjoin(running, running.c.owner == jobs.c.owner).outerjoin(owners, owners.c.name == jobs.c.owner)
    turn = (func.coalesce(running.c.number, 0), func.coalesce(owners.c.served_at, 0), jobs.c.created_at, jobs.c.id)
    query = select(jobs).select_from(all_of).where(waiting(model)).order_by(*turn).limit(1)
    return db.execute(query.with_for_update(of=jobs)).one_or_none()  # in SQLite, whoever writes has the whole database


def waiting(model: str | None) -> Any:
    return and_(jobs.c.status == "queued", *(() if model is None else (jobs.c.model == model,)))


def serve(db: Connection, owner: str, now: float) -> None:
    """A job of an owner begins. That is kept apart from jobs, else who deletes finished ones would always be next."""
    if db.execute(update(owners).where(owners.c.name == owner).values(served_at=now)).rowcount == 0:
        db.execute(insert(owners), {"name": owner, "served_at": now})


def place(db: Connection, job: Job) -> int:
    """How many begin before a waiting job, if no other comes: the owner's earlier ones, and as many and one more of each other owner."""
    earlier = or_(jobs.c.created_at < job.created_at, and_(jobs.c.created_at == job.created_at, jobs.c.id < job.id))
    own = db.scalar(select(func.count()).where(waiting(job.model), jobs.c.owner == job.owner, earlier)) or 0
    others = select(func.count()).where(waiting(job.model), jobs.c.owner != job.owner).group_by(jobs.c.owner)
    return own + sum(min(number, own + 1) for number in db.scalars(others))
