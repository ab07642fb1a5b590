"""Checkpoints: where the next attempt at a task may go on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the table of checkpoints as it was in version 0003, and find results by digest; never changed afterwards."""
    op.create_table(
        "checkpoints",
        sa.Column("task", sa.String(64), sa.ForeignKey("tasks.digest"), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, index=True),
        sa.Column("nbytes", sa.BigInteger, nullable=False),
        sa.Column("fraction", sa.Double, nullable=False),
        sa.Column("attempt", sa.String(32), sa.ForeignKey("attempts.id"), nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("stored", sa.Double, nullable=False),
    )
    op.create_index("ix_results_digest", "results", ["digest"])
