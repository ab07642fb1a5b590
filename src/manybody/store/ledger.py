"""The ledger: the durable record of studies, runs, tasks, attempts and results, and of who may compute what now.

A task is computed by claiming it: one transaction answers whether it is done, held by another live run, or the
claimant's, under a new attempt. Only the attempt that is current may finish, so a late answer changes nothing.

A run that is killed on this machine holds nothing from that moment on. A run on another machine holds its claims
until its heartbeat is `LEASE_S` old. A run that is merely stopped on this machine keeps them.
"""

from __future__ import annotations

import json
import platform
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, RowMapping, Select, func, select, update

from manybody.core.digest import canonical_json, digest_document
from manybody.core.errors import InputError, Problem, StoreError
from manybody.core.task import Task
from manybody.store.database import Database
from manybody.store.liveness import Owner
from manybody.store.rows import AttemptRow, AttemptState, Claim, ResultRow, RunRow, StudyRow, TaskRow, TaskState
from manybody.store.schema import attempts, provenances, results, run_tasks, runs, studies, tasks

if TYPE_CHECKING:
    from manybody.core.study import Study

LEASE_S = 30.0  # without a heartbeat for this long, a run on another machine holds nothing any more
_BATCH = 1000  # rows a statement: bounds the memory of one, and the time that others wait for the transaction


class Ledger:
    """The ledger in an SQLite file, or in a database by URL. Any number of processes may use one at once."""

    def __init__(self, where: str | Path) -> None:
        self.database = Database(where)

    def close(self) -> None:
        """Close the connections; what was written is durable without."""
        self.database.close()

    # --- studies and runs --------------------------------------------------------------------------------------

    def record_study(self, study: Study) -> None:
        """Record what is asked; a study that is already there stays as it is."""
        row = {
            "digest": study.digest,
            "name": study.name,
            "title": study.title,
            "document": canonical_json(study.document()),
            "recorded": time.time(),
        }
        with self.database.writing() as connection:
            self.database.insert_new(connection, studies, [row])

    def begin_run(self, study_digest: str, out: Path, command: str, provenance: Mapping[str, Any]) -> int:
        """Record that the calling process starts a run of a recorded study; returns the run's number."""
        owner, now = Owner.this(), time.time()
        with self.database.writing() as connection:
            row = {
                "study": study_digest,
                "out": str(out.absolute()),
                "command": command,
                "provenance": self._provenance(connection, provenance),
                "host": platform.node(),
                "machine": owner.machine,
                "pid": owner.pid,
                "process_started": owner.started,
                "heartbeat": now,
                "started": now,
            }
            return int(connection.execute(runs.insert().values(row).returning(runs.c.id)).scalar_one())

    def heartbeat(self, run: int) -> None:
        """Say that a run is alive; to be called several times within `LEASE_S`."""
        with self.database.writing() as connection:
            connection.execute(update(runs).where(runs.c.id == run).values(heartbeat=time.time()))

    def end_run(self, run: int, verdict: str, certificate: Path | None, report: Path | None) -> None:
        """Record how a run ended; attempts it still holds are free for others."""
        now = time.time()
        ended = {
            "ended": now,
            "verdict": verdict,
            "certificate": str(certificate.absolute()) if certificate else None,
            "report": str(report.absolute()) if report else None,
        }
        with self.database.writing() as connection:
            connection.execute(update(runs).where(runs.c.id == run).values(ended))
            current = (attempts.c.run == run) & (attempts.c.state == "running")
            connection.execute(update(attempts).where(current).values(state="lost", ended=now, reason="its run ended"))

    def add_tasks(self, run: int, wanted: Iterable[Task]) -> None:
        """Record the tasks of a run, in order, in one transaction."""
        now = time.time()
        new = [
            {
                "digest": task.digest,
                "method": task.method,
                "stage": task.stage,
                "version": task.version,
                "document": canonical_json(task.document()),
                "cost": task.cost,
                "recorded": now,
            }
            for task in wanted
        ]
        with self.database.writing() as connection:
            for first in range(0, len(new), _BATCH):
                batch = new[first : first + _BATCH]
                self.database.insert_new(connection, tasks, batch)
                members = [{"run": run, "task": row["digest"], "position": first + i} for i, row in enumerate(batch)]
                self.database.insert_new(connection, run_tasks, members)

    # --- who computes what -------------------------------------------------------------------------------------

    def claim(self, run: int, task_digest: str) -> Claim:
        """Ask for the right to compute a task; one transaction, so that of several claimants one gets it.

        `done` when a result counts; `held` when a live attempt of another run holds it; else `mine`, under a new
        attempt: the attempts of runs that are gone, and an earlier one of the same run, are marked lost.
        """
        with self.database.writing() as connection:
            # Where rows can be locked (PostgreSQL), claimants of one task wait for each other here.
            known = connection.execute(select(tasks.c.digest).where(tasks.c.digest == task_digest).with_for_update())
            if known.one_or_none() is None:
                raise StoreError(f"The ledger holds no task {task_digest}. Add the tasks of a run before claiming them.")
            counts = (results.c.task == task_digest) & results.c.withdrawn.is_(None)
            done = connection.execute(select(results.c.digest).where(counts)).scalar_one_or_none()
            if done is not None:
                return Claim("done", result=done)
            current = (attempts.c.task == task_digest) & (attempts.c.state == "running")
            query = select(runs, attempts.c.id.label("attempt")).join(attempts, attempts.c.run == runs.c.id).where(current)
            holder = connection.execute(query).mappings().one_or_none()
            if holder is not None:
                if holder["id"] != run and _is_alive(holder):
                    return Claim("held", holder=f"run {holder['id']} (process {holder['pid']} on {holder['host']})")
                reason = "claimed again by its own run" if holder["id"] == run else f"run {holder['id']} is gone"
                self._close_attempt(connection, holder["attempt"], "lost", reason)
            attempt = uuid.uuid4().hex
            row = {"id": attempt, "task": task_digest, "run": run, "state": "running", "started": time.time()}
            earlier = select(func.coalesce(func.max(attempts.c.number), 0)).where(attempts.c.task == task_digest)
            connection.execute(attempts.insert().values(row | {"number": earlier.scalar_subquery() + 1}))
            return Claim("mine", attempt=attempt)

    def finish(self, attempt: str, result: str, nbytes: int, seconds: float, worker: str, provenance: Mapping[str, Any]) -> bool:
        """Record the result of an attempt. False when the attempt is no longer current: the result does not count."""
        with self.database.writing() as connection:
            if not self._close_attempt(connection, attempt, "finished", "", worker):
                return False
            row = {
                "task": select(attempts.c.task).where(attempts.c.id == attempt).scalar_subquery(),
                "attempt": attempt,
                "digest": result,
                "nbytes": nbytes,
                "seconds": seconds,
                "worker": worker,
                "provenance": self._provenance(connection, provenance),
                "finished": time.time(),
            }
            connection.execute(results.insert().values(row))
            return True

    def fail(self, attempt: str, reason: str, worker: str = "") -> bool:
        """Record that the task itself failed. False when the attempt is no longer current."""
        with self.database.writing() as connection:
            return self._close_attempt(connection, attempt, "failed", reason, worker)

    def lose(self, attempt: str, reason: str, worker: str = "") -> bool:
        """Record that the worker of an attempt was lost: the task may be claimed again. False when not current."""
        with self.database.writing() as connection:
            return self._close_attempt(connection, attempt, "lost", reason, worker)

    def withdraw(self, task_digest: str, reason: str) -> bool:
        """Let a result count no more (corrupt, unwanted): the task can be claimed again. False when there is none."""
        counts = (results.c.task == task_digest) & results.c.withdrawn.is_(None)
        with self.database.writing() as connection:
            changed = connection.execute(update(results).where(counts).values(withdrawn=time.time(), reason=reason))
            return changed.rowcount == 1

    # --- what is known -----------------------------------------------------------------------------------------

    def result(self, task_digest: str) -> ResultRow | None:
        """The result of a task that counts, if there is one."""
        return next((row for row in self.history(task_digest) if row.withdrawn is None), None)

    def history(self, task_digest: str) -> list[ResultRow]:
        """Every result that a task has had, the withdrawn ones too, oldest first."""
        query = select(results, provenances.c.document.label("versions")).join(provenances)
        query = query.where(results.c.task == task_digest).order_by(results.c.id)
        return [ResultRow.read(row) for row in self._all(query)]

    def attempts(self, task_digest: str) -> list[AttemptRow]:
        """Every attempt at a task, oldest first."""
        query = select(attempts).where(attempts.c.task == task_digest).order_by(attempts.c.number)
        return [AttemptRow(**row) for row in self._all(query)]

    def task(self, digest_prefix: str) -> Task:
        """The task whose digest begins with `digest_prefix`; none or several raise `InputError`."""
        query = select(tasks.c.digest, tasks.c.document, tasks.c.cost).where(
            tasks.c.digest.startswith(digest_prefix, autoescape=True)
        )
        return _task(self._one(query, "task", digest_prefix))

    def tasks(self, run: int) -> list[TaskRow]:
        """The tasks of a run in order, each with its state."""
        tried = select(attempts.c.task, func.max(attempts.c.number).label("attempts")).group_by(attempts.c.task).subquery()
        last = (attempts.c.task == tried.c.task) & (attempts.c.number == tried.c.attempts)
        query = (
            select(
                tasks.c.digest, tasks.c.document, tasks.c.cost, tried.c.attempts, attempts.c.state, attempts.c.reason,
                attempts.c.worker, results.c.digest.label("result"), results.c.seconds, results.c.worker.label("computed_by"),
            )
            .join(run_tasks, run_tasks.c.task == tasks.c.digest)
            .outerjoin(tried, tried.c.task == tasks.c.digest)
            .outerjoin(attempts, last)
            .outerjoin(results, (results.c.task == tasks.c.digest) & results.c.withdrawn.is_(None))
            .where(run_tasks.c.run == run)
            .order_by(run_tasks.c.position)
        )  # fmt: skip
        return [_task_row(row) for row in self._all(query)]

    def studies(self) -> list[StudyRow]:
        """Every recorded study, newest first."""
        count = select(func.count()).where(runs.c.study == studies.c.digest).scalar_subquery()
        query = select(studies, count.label("runs")).order_by(studies.c.recorded.desc())
        return [StudyRow.read(row) for row in self._all(query)]

    def runs(self, study: str | None = None) -> list[RunRow]:
        """Every run, or those of the study with this digest, newest first."""
        query = _RUNS.order_by(runs.c.id.desc())
        found = self._all(query if study is None else query.where(runs.c.study == study))
        return [RunRow.read(row, _is_alive(row)) for row in found]

    def run(self, number: int) -> RunRow:
        """The run with this number; an unknown one raises `InputError`."""
        row = self._one(_RUNS.where(runs.c.id == number), "run", str(number))
        return RunRow.read(row, _is_alive(row))

    # --- within a transaction ----------------------------------------------------------------------------------

    def _close_attempt(self, connection: Connection, attempt: str, state: AttemptState, reason: str, worker: str = "") -> bool:
        """End an attempt if it is the current one: the fence that a late or replayed answer does not pass."""
        current = (attempts.c.id == attempt) & (attempts.c.state == "running")
        ended = {"state": state, "ended": time.time(), "reason": reason, "worker": worker}
        return connection.execute(update(attempts).where(current).values(ended)).rowcount == 1

    def _provenance(self, connection: Connection, provenance: Mapping[str, Any]) -> str:
        """The digest under which a provenance is kept, once however many results share it."""
        digest = digest_document(dict(provenance))
        self.database.insert_new(connection, provenances, [{"digest": digest, "document": canonical_json(dict(provenance))}])
        return digest

    def _all(self, query: Select[Any]) -> list[RowMapping]:
        with self.database.reading() as connection:
            return list(connection.execute(query).mappings())

    def _one(self, query: Select[Any], what: str, asked: str) -> RowMapping:
        found = self._all(query.limit(2))
        if len(found) == 1:
            return found[0]
        came = f"`{asked}`, of which there is {'more than one' if found else 'none'}"
        remedy = "Give more digits." if found else f"See `manybody show` for the {what}s there are."
        raise InputError(Problem(what, f"one {what} of the ledger", came, remedy))


_RUNS = select(runs, studies.c.name, provenances.c.document.label("versions")).join(studies).join(provenances)


def _is_alive(run: RowMapping) -> bool:
    """Whether a run still holds its claims: its process lives here, or its heartbeat from elsewhere is fresh."""
    if run["ended"] is not None:
        return False
    life = Owner(run["machine"], run["pid"], run["process_started"]).life()
    return time.time() - run["heartbeat"] < LEASE_S if life == "unknown" else life == "alive"


def _task(row: RowMapping) -> Task:
    return Task.model_validate(json.loads(row["document"]) | {"cost": row["cost"]})


def _task_row(row: RowMapping) -> TaskRow:
    if row["result"] is not None:
        return TaskRow(_task(row), "finished", row["attempts"], row["result"], row["computed_by"], row["seconds"])
    state: TaskState = row["state"] if row["state"] in ("running", "failed") else "waiting"
    return TaskRow(_task(row), state, row["attempts"] or 0, worker=row["worker"] or "", reason=row["reason"] or "")
