"""Conduct: claim what is ready, submit it, record what comes back, until every task of a plan has a result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from manybody.core.errors import CorruptResultError, ManybodyError, StoreError, TaskError
from manybody.core.protocols import Backend, Checkpointing, Event
from manybody.core.study import Plan
from manybody.core.task import Task
from manybody.store.ledger import Ledger
from manybody.store.objects import ObjectStore
from manybody.store.provenance import provenance
from manybody.store.rows import ResultRow
from manybody.study.excerpts import Excerpts

ATTEMPTS = 3  # a task whose worker is lost this often is not tried again
POLL_S = 0.5  # how often a task that another run computes is asked for
HEARTBEAT_S = 5.0  # well within the ledger's lease


class BudgetError(ManybodyError):
    """The study's wall time is over; finished work is kept."""


@dataclass(frozen=True)
class Tally:
    """Tasks by state."""

    total: int
    computed: int
    cached: int
    failed: int
    running: int
    waiting: int


Watch = Callable[[Event, Task, Tally, float | None], None]


@dataclass
class Conductor:
    """One run's way through a plan.

    The ledger decides who computes what, so several conductors may share a plan: each claims a task only when a
    worker is free for it, and takes from the ledger what another has finished.
    """

    plan: Plan
    run: int
    ledger: Ledger
    objects: ObjectStore
    backend: Backend
    results: dict[str, str] = field(default_factory=dict)
    workers: dict[str, str] = field(default_factory=dict)
    computed: set[str] = field(default_factory=set)
    failures: dict[str, str] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Index the plan, and the longest chain of work that hangs on each task."""
        self._tasks = {task.digest: task for task in self.plan.tasks}
        self._needs = {digest: _needs(task) for digest, task in self._tasks.items()}
        self._chain = {digest: task.cost for digest, task in self._tasks.items()}
        for digest, task in reversed(self._tasks.items()):
            for need in self._needs[digest]:
                self._chain[need] = max(self._chain[need], self._tasks[need].cost + self._chain[task.digest])
        self._origin = provenance()
        self._slots = self._count_slots()
        self._begin = self._beat = time.monotonic()
        self._spent_cost = self._spent_seconds = 0.0
        self._held_until: dict[str, float] = {}
        self._checkpoints: dict[str, str] = {}
        self._excerpts = Excerpts(self._tasks.values(), self.objects)

    @property
    def expected_s(self) -> float:
        """Expected wall time of what is left: shared by all workers, but no shorter than the longest chain."""
        left = [digest for digest in self._tasks if digest not in self.results]
        chain = max((self._chain[digest] for digest in left), default=0.0)
        pace = self._spent_seconds / self._spent_cost if self._spent_cost else 1.0
        return pace * max(chain, sum(self._tasks[digest].cost for digest in left) / max(1, self._slots))

    @property
    def tally(self) -> Tally:
        """Tasks by state now."""
        cached = len(self.results) - len(self.computed)
        waiting = len(self._tasks) - len(self.results) - len(self.running) - len(self.failures)
        return Tally(len(self._tasks), len(self.computed), cached, len(self.failures), len(self.running), waiting)

    def recover(self) -> int:
        """Take over what the ledger has, every result verified; returns how many. A bad one will be computed again."""
        for digest in self._tasks:
            self._recover(digest)
        return len(self.results)

    def _recover(self, digest: str) -> None:
        row = self.ledger.result(digest)
        if row is None:
            return
        try:
            self.objects.get(row.result)
        except CorruptResultError as error:
            self.ledger.withdraw(digest, str(error))
        except StoreError:
            if self.objects.has(row.result):
                raise
            self._refuse_strange_store(row)
            self.ledger.withdraw(digest, "the result is no longer in the store")
        else:
            self.results[digest], self.workers[digest] = row.result, row.worker

    def _refuse_strange_store(self, row: ResultRow) -> None:
        """Raise where a missing result of another machine means that its store is not ours, not that it is lost."""
        host = row.provenance.get("host")
        if self.ledger.database.is_file or host == self._origin["host"] or self.objects.was_set_aside(row.result):
            return
        raise StoreError(
            f"Expected result {row.result[:12]}, which {host} has computed, in {self.objects.root}; it is not there. "
            "Coordinators that share a ledger must see the same objects: mount that folder here, or use a ledger of your own."
        )

    def conduct(self, watch: Watch) -> Tally:
        """Go on until every task has a result. `watch` is called with every event.

        Raises `TaskError` naming the root cause when tasks fail, after finishing those that do not need them.
        """
        try:
            while len(self.results) < len(self._tasks) and not self._stuck():
                self._keep_time()
                self._submit()
                if not self.running and len(self.results) < len(self._tasks):
                    self._wait_for_others()
                for event in self.backend.events(timeout=POLL_S):
                    self._take(event)
                    watch(event, self._tasks[event.task], self.tally, self.expected_s)
                    self._keep_time()
                    self._submit()
        finally:
            for attempt in list(self.running):
                self.backend.cancel(attempt)
                self.ledger.lose(attempt, "the run stopped")
            self._excerpts.discard_all()
        if self.failures:
            causes = "\n".join(f"{self._tasks[digest].label}: {reason}" for digest, reason in self.failures.items())
            raise TaskError(f"{len(self.failures)} of {len(self._tasks)} tasks failed.\n{causes}")
        return self.tally

    def _stuck(self) -> bool:
        """Nothing runs, and everything that has no result waits for a task that failed."""
        if self.running or not self.failures:
            return False
        doomed = set(self.failures)
        for digest, needs in self._needs.items():
            if doomed & needs:
                doomed.add(digest)
        return all(digest in doomed for digest in self._tasks if digest not in self.results)

    def _keep_time(self) -> None:
        now = time.monotonic()
        if now - self._beat > HEARTBEAT_S:
            self._beat = now
            self.ledger.heartbeat(self.run)
            self._slots = self._count_slots()  # nodes join and leave
        budget = self.plan.study.budget.wall_time_s
        if now - self._begin > budget:
            done = f"{len(self.results)} of {len(self._tasks)} tasks are done and kept"
            raise BudgetError(f"The budget of {budget:g} s is spent; {done}. Run again to go on, or raise `budget.wall_time`.")

    def _submit(self) -> None:
        """Claim and submit what is ready, longest chain first, while workers are free."""
        if len(self.running) >= self._slots:
            return
        for digest in sorted(self._ready(), key=lambda digest: -self._chain[digest]):
            if len(self.running) >= self._slots:
                return
            self._claim(digest)

    def _count_slots(self) -> int:
        return sum(node.workers for node in self.backend.nodes())

    def _wait_for_others(self) -> None:
        """Nothing runs: there is no node yet, or another run computes everything left. Give them a moment."""
        if not self._slots:
            time.sleep(POLL_S)
            self._slots = self._count_slots()
            return
        now = time.monotonic()
        time.sleep(max(0.0, min((until for until in self._held_until.values() if until > now), default=now) - now))

    def _ready(self) -> list[str]:
        busy = set(self.running.values())
        now = time.monotonic()
        return [
            digest
            for digest, needs in self._needs.items()
            if digest not in self.results
            and digest not in busy
            and digest not in self.failures
            and self._held_until.get(digest, 0.0) <= now
            and all(need in self.results for need in needs)
        ]

    def _claim(self, digest: str) -> None:
        claim = self.ledger.claim(self.run, digest)
        if claim.state == "done":
            self._recover(digest)
        elif claim.state == "held":
            self._held_until[digest] = time.monotonic() + POLL_S
        else:
            task = self._tasks[digest]
            try:
                inputs = self._excerpts.inputs(task, self.results)
            except StoreError as error:
                self.ledger.fail(claim.attempt, str(error))
                if not self._reopen_inputs(digest):
                    raise
                return
            avoid = {self.workers[task.replicated(0).digest]} if task.replica else set()
            self.running[claim.attempt] = digest
            self._checkpoints[digest] = claim.checkpoint
            if isinstance(self.backend, Checkpointing):
                self.backend.submit_resumable(claim.attempt, task, inputs, frozenset(avoid), claim.checkpoint)
            else:
                self.backend.submit(claim.attempt, task, inputs, frozenset(avoid))

    def _take(self, event: Event) -> None:
        """Record what an event says."""
        if event.kind == "checkpoint":
            self._keep(event)
        if event.kind not in ("finished", "failed", "lost"):
            return
        digest = self.running.pop(event.attempt)
        if event.kind == "finished":
            if self.ledger.finish(event.attempt, event.result, event.nbytes, event.seconds, event.worker, self._origin):
                self.results[digest], self.workers[digest] = event.result, event.worker
                self.computed.add(digest)
                self._spent_cost += self._tasks[digest].cost
                self._spent_seconds += event.seconds
                self._discard(self._checkpoints.pop(digest))
            self._excerpts.discard(digest)
        elif event.kind == "failed":
            current = self.ledger.fail(event.attempt, event.reason)
            if current and not event.node_fault:  # its own fault, which may lie in what it went on from
                self.ledger.forget_checkpoint(digest, self._checkpoints[digest])
                self._discard(self._checkpoints.pop(digest))
            if not self._reopen_inputs(digest):
                self.failures[digest] = event.reason
        else:
            self.ledger.lose(event.attempt, event.reason)
            self.lost[digest] = self.lost.get(digest, 0) + 1
            if self.lost[digest] >= ATTEMPTS:
                self.failures[digest] = f"its worker was lost {ATTEMPTS} times: {event.reason}"

    def _keep(self, event: Event) -> None:
        """Record a checkpoint; the one before it, or this one if its attempt is no longer current, is not needed."""
        fraction = event.progress.fraction if event.progress else 0.0
        unneeded = event.result
        if self.ledger.keep_checkpoint(event.attempt, event.result, event.nbytes, fraction, event.worker):
            unneeded, self._checkpoints[event.task] = self._checkpoints[event.task], event.result
        self._discard(unneeded)

    def _discard(self, checkpoint: str) -> None:
        if checkpoint and not self.ledger.is_needed(checkpoint):
            self.objects.remove(checkpoint)

    def _reopen_inputs(self, digest: str) -> bool:
        """Whether a task failed because an input is no longer in the store; those inputs are computed again."""
        needs = self._tasks[digest].inputs.values()
        gone = [need for need in needs if need not in self.results or not self.objects.has(self.results[need])]
        for need in gone:
            self.ledger.withdraw(need, "set aside as corrupt while a task read it")
            self.results.pop(need, None)
            self.computed.discard(need)
        return bool(gone) or self._excerpts.are_gone(digest)


def _needs(task: Task) -> set[str]:
    """The tasks that must be done first: inputs, and for a replica its original, whose worker it must avoid."""
    return set(task.inputs.values()) | ({task.replicated(0).digest} if task.replica else set())
