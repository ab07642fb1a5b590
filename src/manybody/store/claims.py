"""Claims: where a task stands, and whether the run that holds it is alive."""

from __future__ import annotations

from sqlalchemy import Connection, RowMapping, bindparam, func, select, update

from manybody.store.liveness import Owner
from manybody.store.schema import attempts, checkpoints, results, runs, tasks

LEASE_S = 30.0  # without a heartbeat for this long, a run on another machine holds nothing any more


# Statements of every claim and every finish, made once: to make one costs more than to execute it.
LOCK = select(tasks.c.digest).where(tasks.c.digest == bindparam("asked")).with_for_update(key_share=True)
EARLIER = select(func.coalesce(func.max(attempts.c.number), 0)).where(attempts.c.task == bindparam("asked"))
CLOSE = (
    update(attempts)
    .where((attempts.c.id == bindparam("current")) & (attempts.c.state == "running"))
    .values(state=bindparam("how"), ended=bindparam("when"), reason=bindparam("why"), worker=bindparam("by"))
    .returning(attempts.c.task)
)
_STANDING = (
    select(
        results.c.digest.label("result"), attempts.c.id.label("attempt"), checkpoints.c.digest.label("checkpoint"),
        checkpoints.c.attempt.label("checkpoint_attempt"), runs.c.id, runs.c.machine, runs.c.pid, runs.c.process_started,
        runs.c.host, runs.c.heartbeat, runs.c.ended,
    )
    .select_from(tasks)
    .outerjoin(results, (results.c.task == tasks.c.digest) & results.c.withdrawn.is_(None))
    .outerjoin(attempts, (attempts.c.task == tasks.c.digest) & (attempts.c.state == "running"))
    .outerjoin(runs, runs.c.id == attempts.c.run)
    .outerjoin(checkpoints, checkpoints.c.task == tasks.c.digest)
    .where(tasks.c.digest == bindparam("asked"))
)  # fmt: skip


def find_standing(connection: Connection, task_digest: str) -> RowMapping:
    """Where a task stands: its `result`, its current `attempt` with the run that holds it, and its `checkpoint`; or None."""
    return connection.execute(_STANDING, {"asked": task_digest}).mappings().one()


def is_alive(run: RowMapping, now: float) -> bool:
    """Whether a run still holds its claims: its process lives here, or its heartbeat from elsewhere is fresh."""
    if run["ended"] is not None:
        return False
    life = Owner(run["machine"], run["pid"], run["process_started"]).life()
    return now - run["heartbeat"] < LEASE_S if life == "unknown" else life == "alive"
