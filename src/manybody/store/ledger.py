"""The ledger: the durable record of studies, runs, tasks, attempts and results, and of who may compute what now.

A task is computed by claiming it: one transaction answers whether it is done, held by another live run, or the
claimant's, under a new attempt. Only the attempt that is current may finish, so a late answer changes nothing.

A run that is killed on this machine holds nothing from that moment on. A run on another machine holds its claims
until its heartbeat is `LEASE_S` old, by the clock of the database's server where there is one. A run that is merely
stopped on this machine keeps them.

SQLite lets one transaction write at a time. On PostgreSQL those that claim a task wait for each other at its row, and
those that end an attempt at the row of the attempt; whoever comes second looks again.
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
from manybody.store import audits
from manybody.store.audits import Audit
from manybody.store.claims import CLOSE, EARLIER, LOCK, find_standing, is_alive
from manybody.store.database import Database
from manybody.store.liveness import Owner
from manybody.store.provenance import OWN_TO_A_MACHINE
from manybody.store.rows import AttemptRow, AttemptState, CheckpointRow, Claim, ResultRow, RunRow, StudyRow, TaskRow, TaskState
from manybody.store.schema import attempts, checkpoints, provenances, results, run_tasks, runs, studies, tasks

if TYPE_CHECKING:
    from manybody.core.study import Study

_BATCH = 1000  # rows a statement: bounds the memory of one, and the time that others wait for the transaction


class Ledger:
    """The ledger in an SQLite file, or in a database by URL. Any number of processes may use one at once."""

    def __init__(self, where: str | Path) -> None:
        self.database = Database(where)
        self._known: set[str] = set()  # provenances that this process has read from the database: none is ever removed

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
        owner = Owner.this()
        with self.database.writing() as connection:
            now = self.database.now(connection)
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
        with self.database.writing(lasting=False) as connection:
            connection.execute(update(runs).where(runs.c.id == run).values(heartbeat=self.database.now(connection)))

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

    def add_tasks(self, run: int, wanted: Iterable[Task], first: int = 0) -> None:
        """Record the tasks of a run, in order, in one transaction; `first` is the place of the first of them."""
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
        members = [{"run": run, "task": row["digest"], "position": position} for position, row in enumerate(new, first)]
        new.sort(key=lambda row: str(row["digest"]))  # two that add the same tasks in other orders would block each other
        with self.database.writing() as connection:
            for table, rows in ((tasks, new), (run_tasks, members)):
                for first in range(0, len(rows), _BATCH):
                    self.database.insert_new(connection, table, rows[first : first + _BATCH])

    # --- who computes what -------------------------------------------------------------------------------------

    def claim(self, run: int, task_digest: str) -> Claim:
        """Ask for the right to compute a task; one transaction, so that of several claimants one gets it.

        `done` when a result counts; `held` when a live attempt of another run holds it; else `mine`, under a new
        attempt: the attempts of runs that are gone, and an earlier one of the same run, are marked lost. A power cut may
        undo a claim, with the process that has made it; no result can, for the transaction that records it lasts.
        """
        with self.database.writing(lasting=False) as connection:
            if connection.execute(LOCK, {"asked": task_digest}).one_or_none() is None:
                raise StoreError(f"The ledger holds no task {task_digest}. Add the tasks of a run before claiming them.")
            standing = find_standing(connection, task_digest)
            while standing["result"] is None and standing["attempt"] is not None:
                if standing["id"] != run and is_alive(standing, self.database.now(connection)):
                    return Claim("held", holder=f"run {standing['id']} (process {standing['pid']} on {standing['host']})")
                reason = "claimed again by its own run" if standing["id"] == run else f"run {standing['id']} is gone"
                self._close_attempt(connection, standing["attempt"], "lost", reason)  # unless it has just ended by itself
                standing = find_standing(connection, task_digest)
            if standing["result"] is not None:
                return Claim("done", result=standing["result"])
            attempt = uuid.uuid4().hex
            number = connection.execute(EARLIER, {"asked": task_digest}).scalar_one() + 1
            row = {"id": attempt, "task": task_digest, "run": run, "number": number, "state": "running", "started": time.time()}
            connection.execute(attempts.insert(), row)
            left = standing["checkpoint"]
            usable = left is not None and self._are_alike(connection, run, standing["checkpoint_attempt"])
            return Claim("mine", attempt=attempt, checkpoint=left if usable else "")

    def finish(
        self,
        attempt: str,
        result: str,
        nbytes: int,
        seconds: float,
        worker: str,
        provenance: Mapping[str, Any],
        *,
        inputs: Mapping[str, str] | None = None,
        audit: Audit | None = None,
        refused: str = "",
    ) -> bool:
        """Record the result of an attempt, and forget the checkpoint of its task.

        `inputs` are the digests of the results that were read, by name; `audit` is what was decided on the result. One
        that is `refused`, with the reason, is kept as history and counts from no moment on. False when the attempt is no
        longer current: the result does not count.
        """
        with self.database.writing() as connection:
            task = self._close_attempt(connection, attempt, "finished", "", worker)
            if task is None:
                return False
            connection.execute(checkpoints.delete().where(checkpoints.c.task == task))
            now = time.time()
            row = {
                "task": task,
                "attempt": attempt,
                "digest": result,
                "nbytes": nbytes,
                "seconds": seconds,
                "worker": worker,
                "provenance": self._provenance(connection, provenance),
                "finished": now,
                "withdrawn": now if refused else None,
                "reason": refused,
                "inputs": "" if inputs is None else canonical_json(dict(inputs)),
            }
            connection.execute(results.insert(), row)
            if audit is not None:
                audits.record(connection, self.database, [audit])
            return True

    def fail(self, attempt: str, reason: str, worker: str = "") -> bool:
        """Record that the task itself failed. False when the attempt is no longer current."""
        with self.database.writing() as connection:
            return self._close_attempt(connection, attempt, "failed", reason, worker) is not None

    def lose(self, attempt: str, reason: str, worker: str = "") -> bool:
        """Record that the worker of an attempt was lost: the task may be claimed again. False when not current."""
        with self.database.writing() as connection:
            return self._close_attempt(connection, attempt, "lost", reason, worker) is not None

    def withdraw(self, task_digest: str, reason: str) -> bool:
        """Let a result count no more (corrupt, unwanted): the task can be claimed again, from its start.

        False when there is none.
        """
        counts = (results.c.task == task_digest) & results.c.withdrawn.is_(None)
        with self.database.writing() as connection:
            connection.execute(checkpoints.delete().where(checkpoints.c.task == task_digest))
            changed = connection.execute(update(results).where(counts).values(withdrawn=time.time(), reason=reason))
            return changed.rowcount == 1

    # --- checkpoints -------------------------------------------------------------------------------------------

    def keep_checkpoint(self, attempt: str, digest: str, nbytes: int, fraction: float, worker: str) -> bool:
        """Record where the next attempt at a task may go on, in place of what was recorded before.

        False when the attempt is no longer current: nothing was recorded.
        """
        with self.database.writing() as connection:
            current = select(attempts.c.task).where((attempts.c.id == attempt) & (attempts.c.state == "running"))
            task = connection.execute(current.with_for_update(key_share=True)).scalar_one_or_none()
            if task is None:
                return False
            row = {"digest": digest, "nbytes": nbytes, "fraction": fraction, "attempt": attempt, "worker": worker}
            connection.execute(checkpoints.delete().where(checkpoints.c.task == task))
            connection.execute(checkpoints.insert().values(row | {"task": task, "stored": time.time()}))
            return True

    def forget_checkpoint(self, task_digest: str, digest: str) -> None:
        """Let the next attempt at a task begin anew, unless another checkpoint than this one was recorded meanwhile."""
        which = (checkpoints.c.task == task_digest) & (checkpoints.c.digest == digest)
        with self.database.writing() as connection:
            connection.execute(checkpoints.delete().where(which))

    def checkpoint(self, task_digest: str) -> CheckpointRow | None:
        """The checkpoint from which a task may go on, if there is one."""
        found = self._all(select(checkpoints).where(checkpoints.c.task == task_digest))
        return CheckpointRow(**found[0]) if found else None

    def is_needed(self, digest: str) -> bool:
        """Whether a result, withdrawn ones too, or a checkpoint is the object with this digest."""
        with self.database.reading() as connection:
            wanted = (select(table.c.digest).where(table.c.digest == digest).limit(1) for table in (results, checkpoints))
            return any(connection.execute(query).first() is not None for query in wanted)

    # --- what is known -----------------------------------------------------------------------------------------

    def result(self, task_digest: str) -> ResultRow | None:
        """The result of a task that counts, if there is one."""
        return next((row for row in self.history(task_digest) if row.withdrawn is None), None)

    def results(self, run: int) -> dict[str, ResultRow]:
        """The results that count of all tasks of a run, by task, as of one moment."""
        query = select(results, provenances.c.document.label("versions")).join(provenances)
        query = query.join(run_tasks, run_tasks.c.task == results.c.task)
        query = query.where((run_tasks.c.run == run) & results.c.withdrawn.is_(None))
        return {row["task"]: ResultRow.read(row) for row in self._all(query)}

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
        found = self._all(query.limit(2))
        if len(found) != 1:
            raise _unclear("task", digest_prefix, bool(found))
        return _task(found[0])

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
        return self._runs(query if study is None else query.where(runs.c.study == study))

    def run(self, number: int) -> RunRow:
        """The run with this number; an unknown one raises `InputError`."""
        found = self._runs(_RUNS.where(runs.c.id == number))
        if not found:
            raise _unclear("run", str(number), False)
        return found[0]

    # --- within a transaction ----------------------------------------------------------------------------------

    def _close_attempt(
        self, connection: Connection, attempt: str, state: AttemptState, reason: str, worker: str = ""
    ) -> str | None:
        """End an attempt if it is the current one: the fence that a late or replayed answer does not pass. Its task."""
        how = {"how": state, "when": time.time(), "why": reason, "by": worker, "current": attempt}
        return connection.execute(CLOSE, how).scalar_one_or_none()

    def _are_alike(self, connection: Connection, run: int, attempt: str) -> bool:
        """Whether what a run computes with gives the same bits as what an earlier attempt was made with."""
        documents = select(runs.c.id, provenances.c.document).join(provenances)
        there = select(attempts.c.run).where(attempts.c.id == attempt).scalar_subquery()
        found = connection.execute(documents.where((runs.c.id == run) | (runs.c.id == there)))
        one, *others = (json.loads(row.document) for row in found)
        names = set(one).union(*others) - OWN_TO_A_MACHINE
        return all(one.get(name) == other.get(name) for other in others for name in names)

    def _provenance(self, connection: Connection, provenance: Mapping[str, Any]) -> str:
        """The digest under which a provenance is kept, once however many results share it."""
        digest = digest_document(dict(provenance))
        if digest in self._known:
            return digest
        if connection.execute(select(provenances.c.digest).where(provenances.c.digest == digest)).first() is not None:
            self._known.add(digest)
        else:
            row = {"digest": digest, "document": canonical_json(dict(provenance))}
            self.database.insert_new(connection, provenances, [row])
        return digest

    def _all(self, query: Select[Any]) -> list[RowMapping]:
        with self.database.reading() as connection:
            return list(connection.execute(query).mappings())

    def _runs(self, query: Select[Any]) -> list[RunRow]:
        with self.database.reading() as connection:
            now = self.database.now(connection)
            return [RunRow.read(row, is_alive(row, now)) for row in connection.execute(query).mappings()]


_RUNS = select(runs, studies.c.name, provenances.c.document.label("versions")).join(studies).join(provenances)


def _unclear(what: str, asked: str, several: bool) -> InputError:
    came = f"`{asked}`, of which there is {'more than one' if several else 'none'}"
    remedy = "Give more digits." if several else f"See `manybody show` for the {what}s there are."
    return InputError(Problem(what, f"one {what} of the ledger", came, remedy))


def _task(row: RowMapping) -> Task:
    return Task.model_validate(json.loads(row["document"]) | {"cost": row["cost"]})


def _task_row(row: RowMapping) -> TaskRow:
    if row["result"] is not None:
        return TaskRow(_task(row), "finished", row["attempts"], row["result"], row["computed_by"], row["seconds"])
    state: TaskState = row["state"] if row["state"] in ("running", "failed") else "waiting"
    return TaskRow(_task(row), state, row["attempts"] or 0, worker=row["worker"] or "", reason=row["reason"] or "")
