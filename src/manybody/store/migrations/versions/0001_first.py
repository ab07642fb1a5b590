"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables as they were in version 0001; never changed afterwards, later versions add to it."""
    op.create_table(
        "studies",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("recorded", sa.Double, nullable=False),
    )
    op.create_table(
        "provenances",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("study", sa.String(64), sa.ForeignKey("studies.digest"), nullable=False, index=True),
        sa.Column("out", sa.Text, nullable=False),
        sa.Column("command", sa.Text, nullable=False),
        sa.Column("provenance", sa.String(64), sa.ForeignKey("provenances.digest"), nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("machine", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("process_started", sa.BigInteger, nullable=False),
        sa.Column("heartbeat", sa.Double, nullable=False),
        sa.Column("started", sa.Double, nullable=False),
        sa.Column("ended", sa.Double),
        sa.Column("verdict", sa.Text, nullable=False, server_default=""),
        sa.Column("certificate", sa.Text),
        sa.Column("report", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "tasks",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("cost", sa.Double, nullable=False),
        sa.Column("recorded", sa.Double, nullable=False),
    )
    op.create_table(
        "run_tasks",
        sa.Column("run", sa.Integer, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("task", sa.String(64), sa.ForeignKey("tasks.digest"), primary_key=True, index=True),
        sa.Column("position", sa.Integer, nullable=False),
    )
    _attempts_and_results()


def _attempts_and_results() -> None:
    op.create_table(
        "attempts",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("task", sa.String(64), sa.ForeignKey("tasks.digest"), nullable=False, index=True),
        sa.Column("run", sa.Integer, sa.ForeignKey("runs.id"), nullable=False, index=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("started", sa.Double, nullable=False),
        sa.Column("ended", sa.Double),
        sa.Column("worker", sa.Text, nullable=False, server_default=""),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.UniqueConstraint("task", "number"),
    )
    running = sa.text("state = 'running'")
    op.create_index("one_current_attempt", "attempts", ["task"], unique=True, sqlite_where=running, postgresql_where=running)
    op.create_table(
        "results",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("task", sa.String(64), sa.ForeignKey("tasks.digest"), nullable=False, index=True),
        sa.Column("attempt", sa.String(32), sa.ForeignKey("attempts.id"), nullable=False, unique=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("nbytes", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("provenance", sa.String(64), sa.ForeignKey("provenances.digest"), nullable=False),
        sa.Column("finished", sa.Double, nullable=False),
        sa.Column("withdrawn", sa.Double),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
    )
    counts = sa.text("withdrawn IS NULL")
    op.create_index("one_current_result", "results", ["task"], unique=True, sqlite_where=counts, postgresql_where=counts)
