"""The database of jobs: SQLite (one machine) or PostgreSQL (many). What was acknowledged is on the disk; nothing here is kept in memory.

A worker claims a job for the time of a lease, which it renews. Every write of a worker names the attempt that it makes and changes nothing
if the job has another by now, so one that was thought dead and comes back can spoil nothing. Each method is one transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

from sqlalchemy import Connection, Row, and_, delete, func, insert, or_, select, text, update
from sqlalchemy.exc import IntegrityError

from hunyuan_video.config import FullSampling
from hunyuan_video.serving import tallies, turns
from hunyuan_video.serving.database import connect, reading, writing
from hunyuan_video.serving.jobs import (
    CANCELLED,
    CRASHED,
    EXPIRED,
    REFUSED,
    Claim,
    Delivery,
    Event,
    Job,
    KeyReusedError,
    LeaseLostError,
    NewJob,
    Order,
    QueueFullError,
    Worker,
    progress_of,
)
from hunyuan_video.serving.tables import deliveries, events, garbage, jobs, workers

MAX_CRASHES = 3
LEASE = 30.0  # seconds without a sign of life after which a worker counts as dead
HOW_LONG_KEPT = 7 * 24 * 3600.0  # seconds for which a finished video can be had
HOW_LONG_QUEUED = 7 * 24 * 3600.0  # seconds after which a job that nobody has begun is given up
FIRST_GUESS = 60.0  # seconds a video takes, as long as none has been made
FORGET_WORKER = 3600.0  # seconds after its last sign of life
# Of PostgreSQL's advisory locks. Claims come one after the other, for each looks at all owners; an owner's jobs are counted one by one.
_CLAIMING, _COUNTING = 0x4875_6E79, 0x4875_6E7A


class Store:
    """`url` is SQLAlchemy's: sqlite:///jobs.db or postgresql+psycopg://user@host/name. The tables must be there: see `migrations.upgrade`.
    `clock` gives seconds since 1970 (default: PostgreSQL's own, so that machines need not agree on the time, or this machine's)."""

    def __init__(
        self,
        url: str,
        *,
        lease: float = LEASE,
        kept: float = HOW_LONG_KEPT,
        queued: float = HOW_LONG_QUEUED,
        clock: Callable[[], float] | None = None,
    ):
        self.lease, self.kept, self.queued, self._clock = lease, kept, queued, clock
        self.engine = connect(url)
        self._is_sqlite = self.engine.dialect.name == "sqlite"

    def close(self) -> None:
        self.engine.dispose()

    # What clients ask for.

    def submit(self, new: NewJob, *, limit: int | None = None) -> Job:
        """Keep a job; or return the one that the same owner's same idempotency key has made.

        Raises:
            QueueFullError: `limit` jobs of this owner wait already.
            KeyReusedError: the key came with something else.
        """
        with writing(self.engine) as db:
            if (made := self._made_before(db, new)) is not None:
                return made
            if limit is not None:
                self._check_queue(db, new.owner, limit)
            row = {
                "id": new.id, "owner": new.owner, "status": "queued", "progress": 0, "created_at": self._now(db), "model": new.model,
                "order": new.order.to_json(), "remixed_from": new.remixed_from, "attempt": 0, "crashes": 0, "cancelling": False, "step": 0,
                "total": 0, "state_step": 0, "files": {}, "webhook": new.webhook, "idempotency_key": new.idempotency_key,
                "digest": new.digest,
            }  # fmt: skip
            try:
                with db.begin_nested():
                    db.execute(insert(jobs), row)
            except IntegrityError:  # in PostgreSQL, where another process may have been faster
                if (made := self._made_before(db, new)) is None:
                    raise
                return made
            self._tell(db, new.id, "queued", {})
            return self._job(db, new.id)

    def get(self, job_id: str, owner: str | None = None) -> Job | None:
        """None if there is none, or it is another owner's (None: anybody's)."""
        with reading(self.engine) as db:
            row = db.execute(select(jobs).where(jobs.c.id == job_id, *_of(owner))).one_or_none()
            return None if row is None else _to_job(row)

    def list(
        self, owner: str | None = None, *, after: str | None = None, limit: int = 20, order: Literal["asc", "desc"] = "desc"
    ) -> tuple[list[Job], bool]:
        """An owner's jobs by the time they came, after the one with an id; and whether there are more. Raises a LookupError for an id that
        is none of them."""
        direction = (lambda column: column.asc()) if order == "asc" else (lambda column: column.desc())
        query = select(jobs).where(*_of(owner)).order_by(direction(jobs.c.created_at), direction(jobs.c.id)).limit(limit + 1)
        with reading(self.engine) as db:
            if after is not None:
                row = db.execute(select(jobs.c.created_at, jobs.c.id).where(jobs.c.id == after, *_of(owner))).one_or_none()
                if row is None:
                    raise LookupError(f"after is {after!r}, which is no video of yours.")
                at, same = jobs.c.created_at, jobs.c.created_at == row.created_at
                further = (at > row.created_at, jobs.c.id > row.id) if order == "asc" else (at < row.created_at, jobs.c.id < row.id)
                query = query.where(or_(further[0], and_(same, further[1])))
            found = [_to_job(row) for row in db.execute(query)]
        return found[:limit], len(found) > limit

    def place(self, job: Job) -> int:
        """How many jobs are before it in the queue, as owners take turns: 0 is the next one."""
        with reading(self.engine) as db:
            return turns.place(db, job)

    def cancel(self, job_id: str, owner: str | None = None) -> Job | None:
        """End a waiting job, or ask the worker of a running one to end it; of one that is over, nothing. None as for `get`."""
        with writing(self.engine) as db:
            row = db.execute(self._locked(select(jobs).where(jobs.c.id == job_id, *_of(owner)))).one_or_none()
            if row is None:
                return None
            if row.status == "queued":
                self._end(db, row, "failed", error_code=CANCELLED, error_message="Cancelled before it began.")
            elif row.status == "in_progress":
                db.execute(update(jobs).where(jobs.c.id == job_id).values(cancelling=True))
            return self._job(db, job_id)

    def delete(self, job_id: str, owner: str | None = None) -> bool:
        """Forget a job and its files, also one that waits or runs (its worker then finds its lease lost). False if there is none."""
        with writing(self.engine) as db:
            if db.execute(delete(jobs).where(jobs.c.id == job_id, *_of(owner))).rowcount == 0:
                return False
            self._forget(db, job_id)
            return True

    def events(self, job_id: str, after: int = 0) -> list[Event]:
        """What happened to a job after the event with a number."""
        query = select(events).where(events.c.job == job_id, events.c.number > after).order_by(events.c.number)
        with reading(self.engine) as db:
            return [Event(row.number, row.kind, row.at, row.data) for row in db.execute(query)]

    # What workers ask for.

    def claim(self, worker: str, model: str | None = None) -> Claim | None:
        """The job whose turn it is (see `turns`), of those for `model` (None: any); None if none waits. `worker` is then known to live."""
        with reading(self.engine) as db:  # most times nothing waits, and whoever asks twice a second should not write then
            if not self._has_work(db, worker, model, self._now(db)):
                return None
        with writing(self.engine) as db:
            if not self._is_sqlite:
                db.execute(select(func.pg_advisory_xact_lock(_CLAIMING)))
            now = self._now(db)
            self._seen(db, worker, None, now, model)
            self._reap(db, now)
            row = self._next(db, model)
            if row is None:
                return None
            values = {"status": "in_progress", "started_at": now, "worker": worker, "lease_until": now + self.lease}
            db.execute(update(jobs).where(jobs.c.id == row.id).values(attempt=row.attempt + 1, **values))
            turns.serve(db, row.owner, now)
            self._seen(db, worker, row.id, now, model)
            job = self._job(db, row.id)
            if job.attempt > 1:
                self._tell(db, job.id, "resumed", {"attempt": job.attempt, "step": job.state_step})
            return Claim(job, worker)

    def renew(self, claim: Claim) -> bool:
        """Go on for another lease. Returns whether to stop, because the job is to be cancelled. Raises a LeaseLostError, as all below."""
        with writing(self.engine) as db:
            now = self._now(db)
            row = self._held(db, claim)
            self._write(db, claim, lease_until=now + self.lease)
            self._seen(db, claim.worker, claim.job.id, now)
            return row.cancelling

    def report(
        self,
        claim: Claim,
        stage: str,
        step: int,
        total: int,
        *,
        state: str | None = None,
        state_step: int | None = None,
        preview: str | None = None,
        memory: int | None = None,
    ) -> bool:
        """Say that a piece of work is done, and what is kept of it: a `state` (of the denoising, after `state_step` of its steps, or else
        this one) and a `preview`, files of `Results`; and the most bytes that the worker has taken, if it knows. Renews the lease; returns
        what `renew` does."""
        with writing(self.engine) as db:
            now = self._now(db)
            row = self._held(db, claim)
            changes: dict[str, Any] = {"stage": stage, "step": step, "total": total, "lease_until": now + self.lease}
            changes["progress"] = max(row.progress, progress_of(stage, step, total))  # after a crash, too, it does not fall
            if state is not None:
                changes |= {"state": state, "state_step": step if state_step is None else state_step}
            if preview is not None:
                changes["files"] = row.files | {"preview": preview}
            self._write(db, claim, **changes)
            self._seen(db, claim.worker, claim.job.id, now, memory=memory)
            tallies.count_step(db, row, stage, step == total, now)
            self._tell(db, row.id, "step", {"stage": stage, "step": step, "total": total, "progress": changes["progress"]})
            if preview is not None:
                self._tell(db, row.id, "preview", {"step": step, "total": total})
            return row.cancelling

    def finish(self, claim: Claim, files: dict[str, str], provenance: dict[str, Any]) -> None:
        """The video is there, whole: `files` says where, by what they are. One that was to be cancelled meanwhile is done all the same. May
        be said again, if the answer was lost."""
        with writing(self.engine) as db:
            said = (jobs.c.id == claim.job.id, jobs.c.attempt == claim.job.attempt, jobs.c.status == "completed")
            if db.scalar(select(jobs.c.id).where(*said)) is not None:
                return
            row = self._held(db, claim)
            self._end(db, row, "completed", files=files, provenance=provenance, progress=100)
            self._seen(db, claim.worker, None, self._now(db))

    def fail(self, claim: Claim, code: str, message: str) -> None:
        """It cannot be made, and shall not be tried again."""
        with writing(self.engine) as db:
            self._end(db, self._held(db, claim), "failed", error_code=code, error_message=message)
            self._seen(db, claim.worker, None, self._now(db))

    def release(self, claim: Claim) -> None:
        """Give a job back, to be gone on with by another worker: this one is asked to stop. One that was to be cancelled ends."""
        with writing(self.engine) as db:
            row = self._held(db, claim)
            if row.cancelling:
                self._end(db, row, "failed", error_code=CANCELLED, error_message="Cancelled.")
            else:
                self._write(db, claim, status="queued", worker=None, lease_until=None)
            self._seen(db, claim.worker, None, self._now(db))

    def lost(self, worker: str) -> None:
        """A worker has ended without a word, as whoever started it knows: its job is another's at once."""
        with writing(self.engine) as db:
            db.execute(update(jobs).where(jobs.c.worker == worker, jobs.c.status == "in_progress").values(lease_until=0.0))
            db.execute(delete(workers).where(workers.c.id == worker))
            self._reap(db, self._now(db))

    def gone(self, worker: str) -> None:
        """Forget a worker that ends in order."""
        with writing(self.engine) as db:
            db.execute(delete(workers).where(workers.c.id == worker))

    # What keeps the house.

    def reap(self) -> None:
        """Give the jobs of dead workers back, or up after `MAX_CRASHES`, and forget such workers; give up what waited too long; forget what
        is over and expired."""
        with writing(self.engine) as db:
            self._reap(db, self._now(db))

    def live_workers(self) -> list[Worker]:
        with reading(self.engine) as db:
            alive = select(workers).where(workers.c.seen_at > self._now(db) - self.lease)
            return [Worker(row.id, row.model, row.seen_at, row.job, row.memory) for row in db.execute(alive.order_by(workers.c.id))]

    def counts(self) -> dict[str, int]:
        """How many jobs there are, by status."""
        with reading(self.engine) as db:
            found = {
                row.status: row.number for row in db.execute(select(jobs.c.status, func.count().label("number")).group_by(jobs.c.status))
            }
        return {status: found.get(status, 0) for status in ("queued", "in_progress", "completed", "failed")}

    def queue_age(self) -> float:
        """Seconds for which the job that came first waits; 0 if none does."""
        with reading(self.engine) as db:
            oldest = db.scalar(select(func.min(jobs.c.created_at)).where(jobs.c.status == "queued"))
            return 0.0 if oldest is None else max(0.0, self._now(db) - oldest)

    def tallies(self) -> list[tallies.Tally]:
        """How long things took and what failed, since the database was made."""
        with reading(self.engine) as db:
            return tallies.read(db)

    def unwanted(self) -> list[str]:
        """Files to remove, by the beginning of their names; say so with `removed` once they are."""
        with reading(self.engine) as db:
            return [row.name for row in db.execute(select(garbage.c.name).order_by(garbage.c.name).limit(100))]

    def removed(self, name: str) -> None:
        with writing(self.engine) as db:
            db.execute(delete(garbage).where(garbage.c.name == name))

    def wanted(self, folder: str) -> bool:
        """Whether a folder of `Results`, "job" or "job/attempt", is of a job that is there, and of its last attempt or what that goes on
        from."""
        job_id, _, attempt = folder.partition("/")
        job = self.get(job_id)
        if job is None or not attempt:
            return job is not None
        names = (*job.files.values(), job.state or "", *job.order.media)
        return attempt == str(job.attempt) or any(name.startswith(f"{folder}/") for name in names)

    def due_delivery(self, pause: float) -> Delivery | None:
        """The next webhook to send; if nobody says with `delivered` that it was, it is due again after `pause` seconds."""
        with writing(self.engine) as db:
            now = self._now(db)
            due = select(deliveries).where(deliveries.c.next_at <= now).order_by(deliveries.c.next_at).limit(1)
            row = db.execute(due if self._is_sqlite else due.with_for_update(skip_locked=True)).one_or_none()
            if row is None:
                return None
            again = {"tries": row.tries + 1, "next_at": now + pause * 2**row.tries}
            db.execute(update(deliveries).where(deliveries.c.number == row.number).values(again))
            return Delivery(row.number, row.job, row.url, row.kind, row.created_at, row.tries)

    def delivered(self, delivery: Delivery) -> None:
        """Or given up."""
        with writing(self.engine) as db:
            db.execute(delete(deliveries).where(deliveries.c.number == delivery.number))

    # Inside a transaction.

    def _made_before(self, db: Connection, new: NewJob) -> Job | None:
        if new.idempotency_key is None:
            return None
        query = select(jobs).where(jobs.c.owner == new.owner, jobs.c.idempotency_key == new.idempotency_key)
        row = db.execute(query).one_or_none()
        if row is not None and row.digest != new.digest:
            raise KeyReusedError("This Idempotency-Key came with another request before; use a new one for each video.")
        return None if row is None else _to_job(row)

    def _check_queue(self, db: Connection, owner: str, limit: int) -> None:
        if not self._is_sqlite:
            db.execute(select(func.pg_advisory_xact_lock(_COUNTING, func.hashtext(owner))))
        number = db.scalar(select(func.count()).where(jobs.c.status == "queued", jobs.c.owner == owner)) or 0
        if number >= limit:
            raise QueueFullError(f"{number} of your videos wait already, and no more may; try again later.", self._retry_after(db))

    def _has_work(self, db: Connection, worker: str, model: str | None, now: float) -> bool:
        """Whether a claim would change anything: a job waits, one is overdue, or it is time to say that the worker lives."""
        overdue = and_(jobs.c.status == "in_progress", jobs.c.lease_until < now)
        if db.scalar(select(jobs.c.id).where(or_(turns.waiting(model), overdue)).limit(1)) is not None:
            return True
        known = (workers.c.id == worker, *(() if model is None else (workers.c.model == model,)))
        return db.scalar(select(workers.c.id).where(*known, workers.c.seen_at > now - self.lease / 3)) is None

    def _next(self, db: Connection, model: str | None) -> Row[Any] | None:
        """Jobs that cannot be read fail here, one by one: nobody could make them, and they must not stop the others."""
        while (row := turns.next_job(db, model)) is not None:
            try:
                Order.from_json(row.order)
            except ValueError as error:
                self._end(db, row, "failed", error_code=REFUSED, error_message=str(error))
                continue
            return row
        return None

    def _retry_after(self, db: Connection) -> int:
        """Until a place is free, by what the last videos took and how many workers there are."""
        took = select((jobs.c.completed_at - jobs.c.started_at).label("took")).where(jobs.c.status == "completed")
        last = took.order_by(jobs.c.completed_at.desc()).limit(10).subquery()
        alive = db.scalar(select(func.count()).select_from(workers).where(workers.c.seen_at > self._now(db) - self.lease)) or 1
        return max(1, round((db.scalar(select(func.avg(last.c.took))) or FIRST_GUESS) / alive))

    def _held(self, db: Connection, claim: Claim) -> Row[Any]:
        held = select(jobs).where(jobs.c.id == claim.job.id, jobs.c.attempt == claim.job.attempt, jobs.c.status == "in_progress")
        row = db.execute(self._locked(held)).one_or_none()
        if row is None:
            raise LeaseLostError(f"{claim.worker} no longer has {claim.job.id}.")
        return row

    def _write(self, db: Connection, claim: Claim, **values: Any) -> None:
        db.execute(update(jobs).where(jobs.c.id == claim.job.id).values(values))

    def _end(self, db: Connection, row: Row[Any], status: Literal["completed", "failed"], **values: Any) -> None:
        """Of a job that is locked. Keeps of its files those of the result, and says so to whoever follows."""
        now = self._now(db)
        values = {"files": {}, "state": None, "state_step": 0, "cancelling": False, "lease_until": None} | values
        db.execute(update(jobs).where(jobs.c.id == row.id).values(status=status, completed_at=now, expires_at=now + self.kept, **values))
        for attempt in range(1, row.attempt + (status == "failed")):
            self._discard(db, f"{row.id}/{attempt}")
        if row.state is not None and status == "completed":
            self._discard(db, row.state)
        if "preview" in row.files and status == "completed":
            self._discard(db, row.files["preview"])
        error = {"code": values["error_code"], "message": values["error_message"]} if status == "failed" else {}
        if status == "failed":
            tallies.count(db, "error", values["error_code"])
        if row.started_at is not None:
            tallies.count(db, "job", status, now - row.created_at)
        self._tell(db, row.id, status, error)
        if row.webhook is not None:
            sent = {"job": row.id, "url": row.webhook, "kind": f"video.{status}", "created_at": now, "tries": 0, "next_at": now}
            db.execute(insert(deliveries), sent)

    def _reap(self, db: Connection, now: float) -> None:
        for row in db.execute(self._locked(select(jobs).where(jobs.c.status == "in_progress", jobs.c.lease_until < now))).all():
            crashes = row.crashes + 1
            db.execute(update(jobs).where(jobs.c.id == row.id).values(crashes=crashes))
            if row.cancelling:
                self._end(db, row, "failed", error_code=CANCELLED, error_message="Cancelled.")
            elif crashes >= MAX_CRASHES:
                said = f"Its worker has ended without a word {crashes} times; it may need more memory than there is."
                self._end(db, row, "failed", error_code=CRASHED, error_message=said)
            else:
                db.execute(update(jobs).where(jobs.c.id == row.id).values(status="queued", worker=None, lease_until=None))
        late = select(jobs).where(jobs.c.status == "queued", jobs.c.attempt == 0, jobs.c.created_at < now - self.queued)
        for row in db.execute(self._locked(late)).all():
            self._end(db, row, "failed", error_code=EXPIRED, error_message="No worker has begun it in time.")
        db.execute(delete(workers).where(workers.c.seen_at < now - max(FORGET_WORKER, self.lease)))
        for job_id in db.scalars(select(jobs.c.id).where(jobs.c.expires_at < now)).all():
            if db.execute(delete(jobs).where(jobs.c.id == job_id)).rowcount:
                self._forget(db, job_id)

    def _forget(self, db: Connection, job_id: str) -> None:
        db.execute(delete(events).where(events.c.job == job_id))
        db.execute(delete(deliveries).where(deliveries.c.job == job_id))
        self._discard(db, job_id)

    def _discard(self, db: Connection, name: str) -> None:
        if db.scalar(select(garbage.c.name).where(garbage.c.name == name)) is None:
            db.execute(insert(garbage), {"name": name})

    def _tell(self, db: Connection, job_id: str, kind: str, data: dict[str, Any]) -> None:
        db.execute(insert(events), {"job": job_id, "kind": kind, "at": self._now(db), "data": data})

    def _seen(
        self, db: Connection, worker: str, job_id: str | None, now: float, model: str | None = None, memory: int | None = None
    ) -> None:
        """A worker lives. Its model is said when it claims, its memory now and then."""
        news = {"model": model, "memory": memory}
        said: dict[str, Any] = {"seen_at": now, "job": job_id} | {name: value for name, value in news.items() if value is not None}
        if db.execute(update(workers).where(workers.c.id == worker).values(said)).rowcount == 0:
            db.execute(insert(workers), {"id": worker, "model": ""} | said)

    def _job(self, db: Connection, job_id: str) -> Job:
        return _to_job(db.execute(select(jobs).where(jobs.c.id == job_id)).one())

    def _now(self, db: Connection) -> float:
        if self._clock is not None:
            return self._clock()
        return time.time() if self._is_sqlite else float(db.scalar(text("select extract(epoch from clock_timestamp())")) or 0)

    def _locked(self, query: Any) -> Any:
        """A SQLite transaction that writes has the whole database."""
        return query if self._is_sqlite else query.with_for_update()


def _of(owner: str | None) -> list[Any]:
    return [] if owner is None else [jobs.c.owner == owner]


def _to_job(row: Row[Any]) -> Job:
    values: dict[str, Any] = dict(row._mapping)
    for name in ("lease_until", "idempotency_key", "digest"):
        del values[name]
    values["order"] = _order_of(values["order"])
    return Job(**values)


def _order_of(values: Any) -> Order:
    """To look at. One of another version shows what it can; `Store.claim` fails the job if it still waits."""
    try:
        return Order.from_json(values)
    except ValueError:
        prompt = values.get("prompt") if isinstance(values, dict) else None
        return Order(prompt if isinstance(prompt, str) and prompt.strip() else "(of another version)", FullSampling())
