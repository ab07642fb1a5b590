"""Audits: whose results were recomputed, and what came of it; and from which results a result was computed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the table of audits as it was in version 0005, and the inputs of results; never changed afterwards."""
    op.create_table(
        "audits",
        sa.Column("attempt", sa.String(32), sa.ForeignKey("attempts.id"), primary_key=True),
        sa.Column("computation", sa.String(64), nullable=False, index=True),
        sa.Column("node", sa.Text, nullable=False, index=True),
        sa.Column("chance", sa.Double, nullable=False),
        sa.Column("drawn", sa.Boolean, nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False, server_default=""),
        sa.Column("how", sa.Text, nullable=False, server_default=""),
        sa.Column("study", sa.String(64), nullable=False, server_default="", index=True),
        sa.Column("judged", sa.Double),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
    )
    op.add_column("results", sa.Column("inputs", sa.Text, nullable=False, server_default=""))
