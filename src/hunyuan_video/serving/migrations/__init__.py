"""The database's tables through the versions of this program, by Alembic. `upgrade` brings any to this version's."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config

from hunyuan_video.serving.database import connect


def upgrade(url: str) -> None:
    """Make the tables, or bring older ones to this version's. Any number of processes may do so at once.

    Raises:
        ValueError: a newer version of this program has been there.
    """
    engine = connect(url)
    try:
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent))
        with engine.connect().execution_options(writes=True) as db, db.begin():
            if db.dialect.name == "postgresql":
                db.exec_driver_sql("select pg_advisory_xact_lock(1215654265)")  # SQLite's transaction is a lock already
            config.attributes["connection"] = db
            command.upgrade(config, "head")
    finally:
        engine.dispose()
