"""The database's tables, as `migrations` makes them; a test compares both."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

metadata = MetaData()
_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # of which SQLite counts only the latter up by itself

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("status", String(16), nullable=False),
    Column("progress", Integer, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("started_at", Float(53)),
    Column("completed_at", Float(53)),
    Column("expires_at", Float(53)),
    Column("model", String(200), nullable=False),
    Column("order", JSON, nullable=False),
    Column("remixed_from", String(64)),
    Column("error_code", String(64)),
    Column("error_message", Text),
    Column("attempt", Integer, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("worker", String(200)),
    Column("lease_until", Float(53)),
    Column("cancelling", Boolean, nullable=False),
    Column("stage", String(16)),
    Column("step", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("state", String(200)),
    Column("state_step", Integer, nullable=False),
    Column("files", JSON, nullable=False),
    Column("provenance", JSON),
    Column("webhook", Text),
    Column("idempotency_key", String(255)),
    Column("digest", String(64), nullable=False),
    UniqueConstraint("owner", "idempotency_key", name="jobs_idempotency"),
    Index("jobs_by_status", "status", "created_at"),
    Index("jobs_by_owner", "owner", "created_at", "id"),
)

events = Table(
    "events",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("job", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("at", Float(53), nullable=False),
    Column("data", JSON, nullable=False),
    Index("events_by_job", "job", "number"),
    sqlite_autoincrement=True,  # so that the number of a forgotten event never comes again
)

# `served_at` is when one of their jobs was last begun.
owners = Table("owners", metadata, Column("name", String(200), primary_key=True), Column("served_at", Float(53), nullable=False))

workers = Table(
    "workers",
    metadata,
    Column("id", String(200), primary_key=True),
    Column("model", String(200), nullable=False),
    Column("seen_at", Float(53), nullable=False),
    Column("job", String(64)),
    Column("memory", BigInteger),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("job", String(64), nullable=False),
    Column("url", Text, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("next_at", Float(53), nullable=False),
    sqlite_autoincrement=True,
)

# Files that nobody will ask for any more, by the beginning of their names. They are removed after the transaction that forgot them.
garbage = Table("garbage", metadata, Column("name", String(200), primary_key=True))

# `bucket` is of `tallies.BOUNDS`.
tallies = Table(
    "tallies",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("label", String(64), primary_key=True),
    Column("bucket", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("total", Float(53), nullable=False),
)
