"""When a job of each owner was last begun, which outlives the jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table("owners", sa.Column("name", sa.String(200), primary_key=True), sa.Column("served_at", sa.Float(53), nullable=False))
    op.execute("insert into owners select owner, max(started_at) from jobs where started_at is not null group by owner")
