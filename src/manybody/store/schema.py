"""The tables of the ledger, portable between SQLite and PostgreSQL. `migrations` brings a file of an older version here.

Times are seconds since 1970 (UTC). Documents are JSON text, parsed where they are read.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

HEAD = "0005"  # the newest migration; older files are brought up to it, newer ones refused

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

studies = Table(
    "studies",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("recorded", Double, nullable=False),
)

provenances = Table(
    "provenances",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("document", Text, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("study", ForeignKey("studies.digest"), nullable=False, index=True),
    Column("out", Text, nullable=False),
    Column("command", Text, nullable=False),
    Column("provenance", ForeignKey("provenances.digest"), nullable=False),
    Column("host", Text, nullable=False),  # for people; `machine`, `pid` and `process_started` say who holds a claim
    Column("machine", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_started", BigInteger, nullable=False),
    Column("heartbeat", Double, nullable=False),
    Column("started", Double, nullable=False),
    Column("ended", Double),
    Column("verdict", Text, nullable=False, server_default=""),
    Column("certificate", Text),
    Column("report", Text),
    sqlite_autoincrement=True,  # a number is never given twice, whatever is deleted
)

tasks = Table(
    "tasks",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("method", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("cost", Double, nullable=False),
    Column("recorded", Double, nullable=False),
)

run_tasks = Table(
    "run_tasks",
    metadata,
    Column("run", ForeignKey("runs.id"), primary_key=True),
    Column("task", ForeignKey("tasks.digest"), primary_key=True, index=True),
    Column("position", Integer, nullable=False),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("task", ForeignKey("tasks.digest"), nullable=False, index=True),
    Column("run", ForeignKey("runs.id"), nullable=False, index=True),
    Column("number", Integer, nullable=False),  # of the task's attempts, from 1 and ever rising: a fencing token
    Column("state", String(16), nullable=False),  # running, finished, failed, lost
    Column("started", Double, nullable=False),
    Column("ended", Double),
    Column("worker", Text, nullable=False, server_default=""),
    Column("reason", Text, nullable=False, server_default=""),
    UniqueConstraint("task", "number"),
)
_RUNNING = text("state = 'running'")
Index("one_current_attempt", attempts.c.task, unique=True, sqlite_where=_RUNNING, postgresql_where=_RUNNING)

results = Table(
    "results",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("task", ForeignKey("tasks.digest"), nullable=False, index=True),
    Column("attempt", ForeignKey("attempts.id"), nullable=False, unique=True),
    Column("digest", String(64), nullable=False, index=True),
    Column("nbytes", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("worker", Text, nullable=False),
    Column("provenance", ForeignKey("provenances.digest"), nullable=False),
    Column("finished", Double, nullable=False),
    Column("withdrawn", Double),  # null where the result counts; kept as history otherwise
    Column("reason", Text, nullable=False, server_default=""),
    Column("inputs", Text, nullable=False, server_default=""),  # JSON: the results that were read, by name; empty if unknown
)
_COUNTS = text("withdrawn IS NULL")
Index("one_current_result", results.c.task, unique=True, sqlite_where=_COUNTS, postgresql_where=_COUNTS)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("task", ForeignKey("tasks.digest"), primary_key=True),  # only the newest one is kept
    Column("digest", String(64), nullable=False, index=True),
    Column("nbytes", BigInteger, nullable=False),
    Column("fraction", Double, nullable=False),  # of the task that is behind it
    Column("attempt", ForeignKey("attempts.id"), nullable=False),
    Column("worker", Text, nullable=False),
    Column("stored", Double, nullable=False),
)

audits = Table(
    "audits",
    metadata,
    Column("attempt", ForeignKey("attempts.id"), primary_key=True),  # the one that gave the result in question
    Column("computation", String(64), nullable=False, index=True),  # the task that it answers, replicas being the same
    Column("node", Text, nullable=False, index=True),  # whose it is: the fingerprint of its certificate where it has one
    Column("chance", Double, nullable=False),  # with which it was to be recomputed
    Column("drawn", Boolean, nullable=False),  # whether it was to be
    Column("verdict", String(16), nullable=False, server_default=""),  # agreed, caught; empty while nothing is known
    Column("how", Text, nullable=False, server_default=""),  # by what it was judged
    Column("study", String(64), nullable=False, server_default="", index=True),  # in which it was
    Column("judged", Double),
    Column("reason", Text, nullable=False, server_default=""),
)

# --- the federation: who has joined, who may join, and the queue from which nodes pull ------------------------------

members = Table(
    "members",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),  # node, client
    Column("fingerprint", String(64), nullable=False, unique=True),  # SHA-256 of the certificate
    Column("certificate", Text, nullable=False),  # PEM; signatures of results are verified with it for ever
    Column("joined", Double, nullable=False),
    Column("seen", Double),
    Column("report", Text, nullable=False, server_default=""),  # JSON: what a node has and can do, as it measured
    Column("load", Double),  # of its processors, as it last told: tasks that run or want to, averaged over a minute
    Column("revoked", Double),
    Column("reason", Text, nullable=False, server_default=""),
    sqlite_autoincrement=True,
)

invitations = Table(
    "invitations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("secret", String(64), nullable=False),  # SHA-256 of the secret, which is shown once and kept nowhere
    Column("role", String(16), nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("used", Double),
)

queue = Table(
    "queue",
    metadata,
    Column("attempt", String(64), primary_key=True),  # the fencing token
    Column("task", String(64), nullable=False, index=True),
    Column("method", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("avoid", Text, nullable=False),
    Column("owner", Text, nullable=False),  # the process that asked
    Column("state", String(16), nullable=False),  # waiting, leased, finished, failed, lost, cancelled, follows
    Column("source", String(64), index=True),  # of one that follows: the attempt whose end is its own
    Column("submitted", Double, nullable=False),
    Column("deadline_s", Double, nullable=False),
    Column("member", ForeignKey("members.id"), index=True),
    Column("leased", Double),
    Column("expires", Double),
    Column("ended", Double),
    Column("worker", Text, nullable=False, server_default=""),
    Column("progress", Text, nullable=False, server_default=""),
    Column("result", String(64), nullable=False, server_default=""),
    Column("nbytes", BigInteger, nullable=False, server_default="0"),
    Column("seconds", Double, nullable=False, server_default="0"),
    Column("reason", Text, nullable=False, server_default=""),
    Column("signature", Text, nullable=False, server_default=""),  # of the node, over what `protocol.claim` says
    Column("protocol", Integer, nullable=False, server_default="0"),
    Column("resumes", String(64)),  # the checkpoint to go on from; empty: none there is; null: none is wanted
    Column("checkpoint", String(64), nullable=False, server_default=""),  # the newest that its node has left
    Column("checkpoint_nbytes", BigInteger, nullable=False, server_default="0"),
    Column("checkpoint_fraction", Double, nullable=False, server_default="0"),
    Column("checkpoint_signature", Text, nullable=False, server_default=""),  # of the node, over `protocol.checkpoint_claim`
    Column("checkpointed", Double),
)
Index("ix_queue_state_submitted", queue.c.state, queue.c.submitted)
