"""Jobs, what happened to them, workers, webhooks to send and files to remove."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(200), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("progress", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("started_at", sa.Float(53)),
        sa.Column("completed_at", sa.Float(53)),
        sa.Column("expires_at", sa.Float(53)),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("order", sa.JSON, nullable=False),
        sa.Column("remixed_from", sa.String(64)),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_message", sa.Text),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("crashes", sa.Integer, nullable=False),
        sa.Column("worker", sa.String(200)),
        sa.Column("lease_until", sa.Float(53)),
        sa.Column("cancelling", sa.Boolean, nullable=False),
        sa.Column("stage", sa.String(16)),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("state", sa.String(200)),
        sa.Column("state_step", sa.Integer, nullable=False),
        sa.Column("files", sa.JSON, nullable=False),
        sa.Column("provenance", sa.JSON),
        sa.Column("webhook", sa.Text),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.UniqueConstraint("owner", "idempotency_key", name="jobs_idempotency"),
    )
    op.create_index("jobs_by_status", "jobs", ["status", "created_at"])
    op.create_index("jobs_by_owner", "jobs", ["owner", "created_at", "id"])
    op.create_table(
        "events",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("job", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("events_by_job", "events", ["job", "number"])
    op.create_table(
        "workers",
        sa.Column("id", sa.String(200), primary_key=True),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("seen_at", sa.Float(53), nullable=False),
        sa.Column("job", sa.String(64)),
    )
    op.create_table(
        "deliveries",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("job", sa.String(64), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("next_at", sa.Float(53), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table("garbage", sa.Column("name", sa.String(200), primary_key=True))
