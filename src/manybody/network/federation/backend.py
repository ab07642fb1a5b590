"""The federation as a backend: attempts go into the queue of the ledger, nodes pull them through the gateway."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from types import TracebackType
from typing import Self

from sqlalchemy import Connection

from manybody.core.protocols import Event, NodeInfo
from manybody.core.task import Progress, Task
from manybody.network.federation.protocol import Installed, Report
from manybody.network.federation.room import machine_of
from manybody.network.messages import BackendError
from manybody.store import handover, members, queue
from manybody.store.ledger import Ledger
from manybody.store.queue import Standing

ALIVE_S = 30.0  # after so long without a word from it, a node is not counted on
LOOK_S, LOOK_LIMIT_S = 0.002, 0.006  # between looks at the ledger: short after an event, then longer
DEADLINE_S, DEADLINE_FACTOR = 600.0, 50.0  # a node may take this long, or so many times the expected cost
FRESH_S = 1.0  # how old may be what is known of nodes when a task is submitted
ORPHANS_S = 60.0  # how often it is asked what others have left behind: finding none costs only work done again
WINDOW = 128  # attempts looked at every time
FINAL = ("finished", "failed", "lost")


@dataclass(frozen=True)
class Told:
    """What has been told of an attempt: its worker, its progress as text, and its newest checkpoint."""

    worker: str = ""
    progress: str = ""
    checkpoint: str = ""


class Federation:
    """Runs tasks on the nodes of a federation (`core.protocols.Backend`), over the ledger that its gateway serves.

    To be used from one thread. Whoever submits may be killed at any time: what nodes finish meanwhile stays in the
    queue, and whoever submits the same task next takes it over. Workers are called ``<node>/<process>``.

    Attempts can go on from checkpoints (`core.protocols.Checkpointing`), which nodes leave at the gateway. A result then
    rests on the work of every node that left one, so a replica of its task keeps off all of them.
    """

    def __init__(self, ledger: Ledger, alive_s: float = ALIVE_S) -> None:
        self._ledger, self._alive_s = ledger, alive_s
        self._changes = queue.Changes(ledger.database)
        self._tasks: dict[str, str] = {}
        self._told: dict[str, Told] = {}
        self._lost: dict[str, set[str]] = {}
        self._reports: list[Report] = []
        self._orphans: set[str] = set()
        self._refreshed = self._looked = self._searched = -ORPHANS_S
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def submit(self, attempt: str, task: Task, inputs: Mapping[str, str], avoid: frozenset[str] = frozenset()) -> None:
        """Queue an attempt. A method, version or stage that no node has is refused: the attempt fails at once.

        Nodes that have lost the same task before are avoided as long as there are others.
        """
        self._submit(attempt, task, inputs, avoid, None)

    def submit_resumable(
        self, attempt: str, task: Task, inputs: Mapping[str, str], avoid: frozenset[str], checkpoint: str
    ) -> None:
        """Like `submit`, and tell of checkpoints; `checkpoint` is the digest of the one to go on from, or empty."""
        self._submit(attempt, task, inputs, avoid, checkpoint)

    def _submit(self, attempt: str, task: Task, inputs: Mapping[str, str], avoid: frozenset[str], checkpoint: str | None) -> None:
        if self._closed:
            raise BackendError("This backend is closed. Make a new one.")
        deadline = max(DEADLINE_S, DEADLINE_FACTOR * task.cost)
        self._refresh()
        with self._ledger.database.writing() as connection:
            shunned = avoid | self._lost.get(task.digest, set())
            if task.replica:
                shunned |= {_if_others_may(node) for node in handover.contributors(connection, task.replicated(0).digest)}
            wanted = queue.Queued(attempt, task, inputs, shunned, deadline, checkpoint)
            queue.submit(connection, wanted, refusal(task, self._reports), task.digest in self._orphans)
        self._tasks[attempt] = task.digest
        self._told[attempt] = Told()

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Events as they come; ends after `timeout` seconds without one, or when nothing is queued or running."""
        last, pause = time.monotonic(), LOOK_S
        first = True
        while self._tasks:
            overdue = time.monotonic() - self._looked > FRESH_S
            found = self._look() if first or overdue or self._changes.seen() else []
            first = False
            for event in found:
                if event.attempt in self._tasks:  # not cancelled since
                    if event.kind in FINAL:
                        del self._tasks[event.attempt], self._told[event.attempt]
                    yield event
                    first = True  # what the caller has done meanwhile may have been the last change
            if found:
                last, pause = time.monotonic(), LOOK_S
                continue
            left = None if timeout is None else last + timeout - time.monotonic()
            if left is not None and left <= 0:
                return
            time.sleep(pause if left is None else min(pause, left))
            pause = min(1.5 * pause, LOOK_LIMIT_S)

    def cancel(self, attempt: str) -> None:
        """Stop an attempt; no event of it follows. Its node drops it at the next heartbeat."""
        if self._tasks.pop(attempt, None) is not None:
            del self._told[attempt]
            with self._ledger.database.writing() as connection:
                queue.cancel(connection, attempt)

    def nodes(self) -> list[NodeInfo]:
        """The nodes that have been heard lately."""
        with self._ledger.database.reading() as connection:
            return [
                NodeInfo(
                    name=member.name, workers=report.workers, threads=report.threads, devices=report.devices,
                    memory_bytes=report.memory_bytes, address=str(report.provenance.get("host", "")), speed=report.speed,
                )
                for member, report in self._live(connection)
            ]  # fmt: skip

    def close(self) -> None:
        """Cancel what has not ended. The nodes stay: they are not this run's."""
        if not self._closed:
            for attempt in list(self._tasks):
                self.cancel(attempt)
            self._closed = True
            self._changes.close()
            self._ledger.close()

    def _live(self, connection: Connection) -> list[tuple[members.Member, Report]]:
        since = time.time() - self._alive_s
        return [
            (member, Report.model_validate_json(member.report))
            for member in members.everyone(connection)
            if member.role == "node" and member.revoked is None and member.report and (member.seen or 0.0) > since
        ]

    def _refresh(self) -> None:
        """Know, as of a moment ago, what nodes can do; and, less often, what processes that are gone have left behind."""
        now = time.monotonic()
        if now - self._refreshed <= FRESH_S:
            return
        self._refreshed = now
        with self._ledger.database.reading() as connection:
            self._reports = [report for _, report in self._live(connection)]
            if now - self._searched > ORPHANS_S:
                self._searched = now
                self._orphans = queue.orphans(connection)

    def _look(self) -> list[Event]:
        """What is new. Attempts are leased in order, so news is of the oldest; all are looked at once in a while."""
        now = time.monotonic()
        everything = now - self._looked > FRESH_S
        self._looked = now if everything else self._looked
        asked = list(self._tasks) if everything else list(islice(self._tasks, WINDOW))
        with self._ledger.database.reading() as connection:
            found = queue.standings(connection, asked)
        return [event for standing in found for event in self._news(standing)]

    def _news(self, standing: Standing) -> Iterator[Event]:
        """What has not been told of an attempt yet."""
        attempt, task, worker = standing.attempt, standing.task, standing.worker
        before = self._told[attempt]
        if worker and not before.worker:
            yield Event("started", attempt, task, worker)
        if standing.progress and standing.progress != before.progress:
            yield Event("progress", attempt, task, worker, progress=Progress(**json.loads(standing.progress)))
        if standing.checkpoint and standing.checkpoint != before.checkpoint:
            shown = Progress(**json.loads(standing.progress)) if standing.progress else Progress(0.0)
            yield Event(
                "checkpoint", attempt, task, worker, replace(shown, fraction=standing.checkpoint_fraction),
                result=standing.checkpoint, nbytes=standing.checkpoint_nbytes,
            )  # fmt: skip
        self._told[attempt] = Told(worker or before.worker, standing.progress, standing.checkpoint)
        if standing.state == "finished":
            yield Event(
                "finished", attempt, task, worker, result=standing.result, nbytes=standing.nbytes, seconds=standing.seconds
            )
        elif standing.state == "failed":
            yield Event("failed", attempt, task, worker, seconds=standing.seconds, reason=standing.reason)
        elif standing.state in ("lost", "cancelled"):  # cancelled by somebody else
            if worker:
                self._lost.setdefault(task, set()).add(_if_others_may(worker))
            yield Event("lost", attempt, task, worker, seconds=standing.seconds, reason=standing.reason)


def _if_others_may(worker: str) -> str:
    """How to avoid a worker, or a node, as long as there are others: a node by its name alone is never asked."""
    return worker if "/" in worker else f"{worker}/"


def refusal(task: Task, reports: list[Report]) -> str:
    """Why no node could ever run a task; empty where one can, or where no node is there yet to tell."""
    have = [report.methods[task.method] for report in reports if task.method in report.methods]
    fit = [report for report in reports if _could_run(task, report.methods.get(task.method))]
    lacking = [machine_of(report).lacks(task.needs) for report in fit]
    if not reports or "" in lacking:
        return ""
    if lacking:
        told = "; ".join(sorted(set(lacking)))
        return f"{task.label}: expected a node that has what it needs; of those with the method one lacks {told}."
    if not have:
        known = ", ".join(sorted({name for report in reports for name in report.methods})) or "no method at all"
        return f"{task.label}: expected a method that a node has ({known}); got `{task.method}`. Install it on the nodes."
    if not any(task.version == method.version for method in have):
        theirs = _versions(have)
        return (
            f"{task.label}: expected version {task.version} of {task.method}; the nodes have {theirs}. Install the same release."
        )
    return f"{task.label}: expected a stage of {', '.join(have[0].stages)}; got `{task.stage}`."


def _could_run(task: Task, method: Installed | None) -> bool:
    return method is not None and task.version == method.version and task.stage in method.stages


def _versions(have: list[Installed]) -> str:
    return ", ".join(sorted({method.version for method in have}))
