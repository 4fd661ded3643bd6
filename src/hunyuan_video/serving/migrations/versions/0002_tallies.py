"""How long things took and what failed, counted; and the most memory that each worker has taken."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "tallies",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("label", sa.String(64), primary_key=True),
        sa.Column("bucket", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("total", sa.Float(53), nullable=False),
    )
    op.add_column("workers", sa.Column("memory", sa.BigInteger))
