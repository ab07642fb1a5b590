"""Checkpoints that nodes of a federation leave at the gateway, which of them an attempt goes on from, and nodes' load."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns of version 0004; never changed afterwards."""
    op.add_column("members", sa.Column("load", sa.Double))
    for column in (
        sa.Column("resumes", sa.String(64)),
        sa.Column("checkpoint", sa.String(64), nullable=False, server_default=""),
        sa.Column("checkpoint_nbytes", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("checkpoint_fraction", sa.Double, nullable=False, server_default="0"),
        sa.Column("checkpoint_signature", sa.Text, nullable=False, server_default=""),
        sa.Column("checkpointed", sa.Double),
    ):
        op.add_column("queue", column)
