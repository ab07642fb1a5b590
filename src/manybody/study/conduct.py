"""Conduct: claim what is ready, submit it, record what comes back, until every task of a plan has a result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from manybody.core.errors import ManybodyError, StoreError, TaskError
from manybody.core.protocols import Backend, Checkpointing, Event, NodeInfo
from manybody.core.study import Plan
from manybody.core.task import Task
from manybody.store.ledger import Ledger
from manybody.store.objects import ObjectStore
from manybody.store.provenance import provenance
from manybody.study.audit import Auditor, is_audit
from manybody.study.checkpoints import Checkpoints
from manybody.study.excerpts import Excerpts
from manybody.study.intake import Intake
from manybody.study.standing import OUTDATED, Standing
from manybody.study.workload import Workload

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
class Lent:
    """What an attempt was given: the backend it runs on, and the results that it reads, by name; then its worker."""

    backend: Backend
    read: dict[str, str]
    worker: str = ""


@dataclass
class Conductor:
    """One run's way through a plan.

    The ledger decides who computes what, so several conductors may share a plan: each claims a task only when a
    worker is free for it, and takes from the ledger what another has finished. Work downstream of a result goes on while
    an `auditor` still has it recomputed; `own_machine` opens a backend here, for what no node is left to recompute.
    """

    plan: Plan
    run: int
    ledger: Ledger
    objects: ObjectStore
    backend: Backend
    auditor: Auditor | None = None
    own_machine: Callable[[], Backend] | None = None
    running: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Index the plan, and the longest chain of work that hangs on each task."""
        self._load = Workload(self.plan.tasks)
        self._known = dict(self._load.tasks)
        self.standing = Standing(self.run, self._load, self.ledger, self.objects, self.auditor)
        self._origin = provenance()
        self._nodes: list[NodeInfo] = []
        self._slots = self._count_slots()
        self._begin = self._beat = time.monotonic()
        self._held_until: dict[str, float] = {}
        self._checkpoints = Checkpoints(self.ledger, self.objects)
        self._intake = Intake(self.standing, self._checkpoints)
        self._lent: dict[str, Lent] = {}
        self._audits: set[str] = set()
        self._news: list[Event] = []
        self._own: Backend | None = None
        self._excerpts = Excerpts(self._load.tasks.values(), self.objects)

    @property
    def results(self) -> dict[str, str]:
        """The digest of the result of each task that has one."""
        return self.standing.results

    @property
    def expected_s(self) -> float:
        """Expected wall time of what is left: shared by all workers, but no shorter than the longest chain."""
        left = [digest for digest in self._load.tasks if digest not in self.standing.results]
        chain = max((self._load.chain[digest] for digest in left), default=0.0)
        pace = self._intake.pace
        return pace * max(chain, sum(self._load.tasks[digest].cost for digest in left) / max(1, self._slots))

    @property
    def tally(self) -> Tally:
        """Tasks by state now."""
        total, cached = len(self._load), len(self.standing.results) - len(self.standing.computed)
        waiting = total - len(self.standing.results) - len(self.running) - len(self._intake.failures)
        return Tally(total, len(self.standing.computed), cached, len(self._intake.failures), len(self.running), waiting)

    def recover(self) -> int:
        """Take over what the ledger has, every result verified; returns how many. A bad one will be computed again."""
        if self.auditor:
            self._add(self.auditor.earlier)
        for digest in list(self._load.tasks):
            self.standing.recover(digest)
        self._review()
        return len(self.standing.results)

    # --- the way through ---------------------------------------------------------------------------------------

    def conduct(self, watch: Watch) -> Tally:
        """Go on until every task has a result, and every audit is settled. `watch` is called with every event.

        Raises `TaskError` naming the root cause when tasks fail, after finishing those that do not need them.
        """
        try:
            while not self._is_done() and not self._stuck():
                self._keep_time()
                self._submit()
                if not self.running and not self._is_complete():
                    self._wait_for_others()
                for event in self._events():
                    for told in self._take(event):
                        watch(told, self._known[told.task], self.tally, self.expected_s)
                    self._keep_time()
                    self._submit()
        finally:
            for attempt in list(self.running):
                self._cancel(attempt, "the run stopped")
            if self._own is not None:
                self._own.close()
            self._excerpts.discard_all()
        if self._intake.failures:
            causes = "\n".join(f"{self._known[digest].label}: {reason}" for digest, reason in self._intake.failures.items())
            raise TaskError(f"{len(self._intake.failures)} of {len(self._load)} tasks failed.\n{causes}")
        return self.tally

    def _is_complete(self) -> bool:
        return len(self.standing.results) >= len(self._load)

    def _is_done(self) -> bool:
        """Everything has a result, and nobody has withdrawn any of them."""
        if self.auditor and self._is_complete():
            self.auditor.refresh()
            self._review()
        return self._is_complete() and self.standing.confirm()

    def _events(self) -> Iterator[Event]:
        """What the backend tells, and this machine where it computes, too."""
        yield from self.backend.events(timeout=POLL_S)
        if self._own is not None:
            yield from self._own.events(timeout=POLL_S)

    def _stuck(self) -> bool:
        """Nothing runs, and everything that has no result waits for a task that failed."""
        if self.running or not self._intake.failures:
            return False
        doomed = set(self._intake.failures)
        for digest, needs in self._load.needs.items():
            if doomed & needs:
                doomed.add(digest)
        return all(digest in doomed for digest in self._load.tasks if digest not in self.standing.results)

    def _keep_time(self) -> None:
        now = time.monotonic()
        if now - self._beat > HEARTBEAT_S:
            self._beat = now
            self.ledger.heartbeat(self.run)
            self._slots = self._count_slots()  # nodes join and leave
            self._call_back()
        budget = self.plan.study.budget.wall_time_s
        if now - self._begin > budget:
            done = f"{len(self.standing.results)} of {len(self._load)} tasks are done and kept"
            raise BudgetError(f"The budget of {budget:g} s is spent; {done}. Run again to go on, or raise `budget.wall_time`.")

    # --- handing out -------------------------------------------------------------------------------------------

    def _submit(self) -> None:
        """Claim and submit what is ready, longest chain first, while workers are free."""
        if len(self.running) >= self._slots and self.running:
            return
        ready = sorted(self._ready(), key=lambda digest: -self._load.chain[digest])
        for digest in ready:
            if len(self.running) >= self._slots:
                return
            if self._is_unhindered(digest) and self._is_servable(self._load.tasks[digest]):
                self._claim(digest, self.backend)
        if ready and not self.running:
            self._slots = self._count_slots()  # somebody may have joined just now
            for digest in ready:
                if self._is_unhindered(digest) and not self._is_servable(self._load.tasks[digest]):
                    self._arbitrate(digest)

    def _is_unhindered(self, digest: str) -> bool:
        """Whether a task is still wanted and all that it reads there: a claim may have shown that an input is gone."""
        return digest in self._load.tasks and all(need in self.standing.results for need in self._load.needs[digest])

    def _is_servable(self, task: Task) -> bool:
        """Whether some node may compute a task."""
        shunned = self._avoided(task)
        return any(node.name not in shunned for node in self._nodes)

    def _arbitrate(self, digest: str) -> None:
        """No node is left that may recompute a result: this machine does, where it may, or the question stays open."""
        task = self._load.tasks[digest]
        if not self.auditor or not is_audit(task):
            return
        if self.own_machine is None:
            self.auditor.give_up(task)
            self._drop(digest)
            return
        self._own = self._own or self.own_machine()
        self._claim(digest, self._own)

    def _count_slots(self) -> int:
        """Workers of the nodes that may get work; raises `TaskError` where every node has been caught."""
        nodes = self.backend.nodes()
        caught = self.auditor.caught_names if self.auditor else frozenset()
        before = {node.name for node in self._nodes}
        self._nodes = [node for node in nodes if node.name not in caught]
        if self.auditor and {node.name for node in self._nodes} - before:
            self.auditor.ask_again()
        if nodes and not self._nodes:
            raise TaskError(f"Every node there is was caught: {', '.join(sorted(caught))}. Let another join, and run again.")
        return sum(node.workers for node in self._nodes)

    def _wait_for_others(self) -> None:
        """Nothing runs: there is no node yet, or another run computes everything left. Give them a moment."""
        if not self._slots:
            time.sleep(POLL_S)
            self._slots = self._count_slots()
            return
        now = time.monotonic()
        ready = any(self._is_servable(self._load.tasks[digest]) for digest in self._ready())
        free = min((until for until in self._held_until.values() if until > now), default=now if ready else now + POLL_S)
        time.sleep(max(0.0, free - now))

    def _ready(self) -> list[str]:
        busy = set(self.running.values())
        now = time.monotonic()
        return [
            digest
            for digest, needs in self._load.needs.items()
            if digest not in self.standing.results
            and digest not in busy
            and digest not in self._intake.failures
            and digest not in self._intake.doubted
            and self._held_until.get(digest, 0.0) <= now
            and all(need in self.standing.results for need in needs)
        ]

    def _avoided(self, task: Task) -> set[str]:
        """Workers, and whole nodes by their names, that must not compute a task."""
        avoid = self._intake.avoided(task.digest)
        original = self.standing.workers.get(task.replicated(0).digest)  # none while that is withdrawn
        if task.replica and not is_audit(task) and original:
            avoid.add(original)
        if self.auditor:
            avoid |= self.auditor.avoid(task)
            if is_audit(task):
                avoid |= self.auditor.strangers(task, (node.name for node in self._nodes))
        return avoid

    def _claim(self, digest: str, backend: Backend) -> None:
        claim = self.ledger.claim(self.run, digest)
        if claim.state == "done":
            self._news += self.standing.recover(digest)
            self._review()
        elif claim.state == "held":
            self._held_until[digest] = time.monotonic() + POLL_S
        else:
            task = self._load.tasks[digest]
            try:
                inputs = self._excerpts.inputs(task, self.standing.results)
            except StoreError as error:
                self.ledger.fail(claim.attempt, str(error))
                if not self._reopen_inputs(digest):
                    raise
                return
            avoid = frozenset(self._avoided(task))
            self.running[claim.attempt] = digest
            self._lent[claim.attempt] = Lent(backend, self._load.inputs(digest, self.standing.results))
            self._checkpoints.begin(digest, claim.checkpoint)
            if isinstance(backend, Checkpointing) and not is_audit(task):  # who checks goes on from nobody's work
                backend.submit_resumable(claim.attempt, task, inputs, avoid, claim.checkpoint)
            else:
                backend.submit(claim.attempt, task, inputs, avoid)

    # --- taking in ---------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> list[Event]:
        """Record what an event says; returns what there is to tell, this event first."""
        if event.kind == "checkpoint":
            self._checkpoints.keep(event)
        if event.kind == "started":
            self._lent[event.attempt].worker = event.worker
        if event.kind in ("finished", "failed", "lost"):
            del self.running[event.attempt]
            read = self._lent.pop(event.attempt).read
            if event.kind == "finished":
                event, gone = self._intake.finish(event, read)
                self._news += gone
                self._excerpts.discard(event.task)
            elif event.kind == "failed":
                event = self._intake.fail(event, read, self._reopen_inputs, self._is_servable)
            else:
                self._intake.lose(event)
            self._review()
        told, self._news = [event, *self._news], []
        return told

    def _reopen_inputs(self, digest: str) -> bool:
        return self.standing.reopen(digest) or self._excerpts.are_gone(digest)

    # --- audits ------------------------------------------------------------------------------------------------

    def _review(self) -> None:
        """Do what the auditor says: withdraw, have recomputed what is to be, and let go of what nobody needs."""
        if self.auditor is None:
            return
        known = len(self.auditor.caught)
        while found := self.auditor.review():
            for each in found:
                self._news += self.standing.withdraw([each.task], each.reason)
        if len(self.auditor.caught) > known:
            self._slots = self._count_slots()
        for attempt, digest in list(self.running.items()):
            lent = self._lent[attempt]
            if lent.worker and self.auditor.is_caught(lent.worker):
                self._cancel(attempt, "its node was caught")
            elif self.standing.is_outdated(digest, lent.read):
                self._cancel(attempt, OUTDATED)
        self._arrange_audits(self.auditor)
        self._intake.end_doubts()

    def _arrange_audits(self, auditor: Auditor) -> None:
        """Have exactly those audits under way that are wanted."""
        wanted = {task.digest: task for task in auditor.wanted()}
        for digest in list(self._audits):
            if digest not in wanted and digest not in self.standing.results:
                for attempt in [attempt for attempt, running in self.running.items() if running == digest]:
                    self._cancel(attempt, "nobody needs it any more")
                self._intake.failures.pop(digest, None)
                self._drop(digest)
        self._add([task for digest, task in wanted.items() if digest not in self._load.tasks])

    def _call_back(self) -> None:
        """Take back audits that wait for nodes that are gone."""
        for attempt, digest in list(self.running.items()):
            waits = not self._lent[attempt].worker and self._lent[attempt].backend is self.backend
            if waits and is_audit(self._load.tasks[digest]) and not self._is_servable(self._load.tasks[digest]):
                self._cancel(attempt, "no node is left that may recompute it")

    def _add(self, audits: Sequence[Task]) -> None:
        """Take in tasks that are no part of the plan."""
        if audits:
            self.ledger.add_tasks(self.run, audits, first=len(self._known))
        for task in audits:
            self._load.add(task)
            self._known[task.digest] = task
            self._audits.add(task.digest)

    def _drop(self, digest: str) -> None:
        """Take out an audit that nobody needs."""
        self._load.remove(digest)
        self._audits.discard(digest)

    def _cancel(self, attempt: str, reason: str) -> None:
        del self.running[attempt]
        self._lent.pop(attempt).backend.cancel(attempt)
        self.ledger.lose(attempt, reason)
