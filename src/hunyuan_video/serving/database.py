"""A database and its transactions: SQLite (one machine) or PostgreSQL (many)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event

_PATIENCE = 30  # seconds for which SQLite waits for another's transaction


def connect(url: str) -> Engine:
    """An engine for a database; SQLite with a log that is written ahead and on the disk before anybody is told."""
    engine = create_engine(url, pool_pre_ping=True)
    if engine.dialect.name != "sqlite":
        return engine

    @event.listens_for(engine, "connect")
    def _opened(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # Python would begin transactions by itself, and late
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={_PATIENCE * 1000}"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begins(connection: Connection) -> None:
        # One that writes says so at once: two that have read and then want to write can only fail.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")

    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that may change something."""
    with engine.connect().execution_options(writes=True) as db, db.begin():
        yield db


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that changes nothing."""
    with engine.connect() as db, db.begin():
        yield db
