"""The federation: members, invitations, and the queue from which nodes pull."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the tables of the federation as they were in version 0002; never changed afterwards."""
    op.create_table(
        "members",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False, unique=True),
        sa.Column("certificate", sa.Text, nullable=False),
        sa.Column("joined", sa.Double, nullable=False),
        sa.Column("seen", sa.Double),
        sa.Column("report", sa.Text, nullable=False, server_default=""),
        sa.Column("revoked", sa.Double),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "invitations",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("secret", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
        sa.Column("used", sa.Double),
    )
    _queue()


def _queue() -> None:
    op.create_table(
        "queue",
        sa.Column("attempt", sa.String(64), primary_key=True),
        sa.Column("task", sa.String(64), nullable=False, index=True),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("inputs", sa.Text, nullable=False),
        sa.Column("avoid", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("source", sa.String(64), index=True),
        sa.Column("submitted", sa.Double, nullable=False),
        sa.Column("deadline_s", sa.Double, nullable=False),
        sa.Column("member", sa.Integer, sa.ForeignKey("members.id"), index=True),
        sa.Column("leased", sa.Double),
        sa.Column("expires", sa.Double),
        sa.Column("ended", sa.Double),
        sa.Column("worker", sa.Text, nullable=False, server_default=""),
        sa.Column("progress", sa.Text, nullable=False, server_default=""),
        sa.Column("result", sa.String(64), nullable=False, server_default=""),
        sa.Column("nbytes", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("seconds", sa.Double, nullable=False, server_default="0"),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("signature", sa.Text, nullable=False, server_default=""),
        sa.Column("protocol", sa.Integer, nullable=False, server_default="0"),
    )
    op.create_index("ix_queue_state_submitted", "queue", ["state", "submitted"])
