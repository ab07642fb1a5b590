"""Intake: what attempts came to, judged on the face of it before the ledger counts it, and why tasks have none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from manybody.core.errors import CorruptResultError
from manybody.core.protocols import Event
from manybody.core.task import Output, Task
from manybody.store.provenance import provenance
from manybody.study.checkpoints import Checkpoints
from manybody.study.standing import OUTDATED, REFUSED, Standing
from manybody.study.structure import fault_of

ATTEMPTS = 3  # a task whose worker is lost this often is not tried again


@dataclass
class Intake:
    """Takes results, failures and losses of attempts into the ledger and to what stands.

    `failures` are the tasks that came to nothing, with the reason; `doubted` those that failed and wait until what they
    read has been recomputed, with the reason and what that was.
    """

    standing: Standing
    checkpoints: Checkpoints
    failures: dict[str, str] = field(default_factory=dict)
    doubted: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    _refused: dict[str, set[str]] = field(default_factory=dict)
    _failed: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    _lost: dict[str, int] = field(default_factory=dict)
    _spent_cost: float = 0.0
    _spent_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Note where and with what this run computes."""
        self.ledger, self.objects, self.auditor = self.standing.ledger, self.standing.objects, self.standing.auditor
        self._origin = provenance()

    @property
    def pace(self) -> float:
        """Seconds that a second of predicted cost has taken so far; 1 before anything has."""
        return self._spent_seconds / self._spent_cost if self._spent_cost else 1.0

    def finish(self, event: Event, read: dict[str, str]) -> tuple[Event, list[Event]]:
        """Count a result, unless it is none on the face of it, or came from or rests on what counts no more.

        Returns what the event came to, and what to tell of others that go because of it.
        """
        caught = self.auditor is not None and self.auditor.is_caught(event.worker)
        if caught or self.standing.is_outdated(event.task, read):
            return self._set_aside(event, "its node was caught" if caught else OUTDATED), []
        output = Output()
        try:
            output = self.objects.get(event.result)
            fault = fault_of(output)
        except CorruptResultError as error:
            if not self.objects.has(event.result):  # the bytes were right when they came: it is our disk
                return self._set_aside(event, str(error)), []
            fault = str(error)
        if fault:
            return self._refuse(event, read, fault), []
        task = self._task(event)
        audit = self.auditor.decide(task, event.attempt, event.worker) if self.auditor else None
        about = (event.attempt, event.result, event.nbytes, event.seconds, event.worker, self._origin)
        if not self.ledger.finish(*about, inputs=read, audit=audit):
            return event, []
        self._spent_cost += task.cost
        self._spent_seconds += event.seconds
        self.checkpoints.finish(event.task)
        return event, self.standing.accept(event, read, output)

    def fail(
        self, event: Event, read: dict[str, str], reopen: Callable[[str], bool], is_servable: Callable[[Task], bool]
    ) -> Event:
        """A task that gave no result: by an input that is gone, by its node, by a false input, or by itself."""
        digest = event.task
        current = self.ledger.fail(event.attempt, event.reason)
        if current and not event.node_fault:
            self.checkpoints.distrust(digest)
        if reopen(digest):
            return event
        if self.auditor and self.auditor.may_err(event.worker) and digest not in self.auditor.alone:
            self._failed.setdefault(digest, {})[_node(event.worker)] = read
            if len(self._failed_on(digest)) <= self.auditor.policy.margin and is_servable(self._task(event)):
                return replace(event, kind="lost")  # a few nodes' word is not enough
            doubted = [need for need in self._task(event).inputs.values() if self.auditor.doubt(need)]
            if doubted:
                self.doubted[digest] = (event.reason, read)
                return replace(event, kind="lost")
        self.failures[digest] = event.reason
        return event

    def lose(self, event: Event) -> None:
        """A worker was lost."""
        self.ledger.lose(event.attempt, event.reason)
        self._count_loss(event, f"its worker was lost {ATTEMPTS} times: {event.reason}")

    def end_doubts(self) -> None:
        """Decide on tasks that failed, once what they read was recomputed: another input, another try."""
        for digest, (reason, read) in list(self.doubted.items()):
            needs = self.standing.load.tasks[digest].inputs.values()
            if self.auditor and any(need not in self.standing.results or self.auditor.doubt(need) for need in needs):
                continue
            del self.doubted[digest]
            if not self.standing.is_outdated(digest, read):
                self.failures[digest] = reason

    def avoided(self, digest: str) -> set[str]:
        """Workers whose result of a task was refused, and nodes that failed on it with what it reads now."""
        return self._refused.get(digest, set()) | self._failed_on(digest)

    def _failed_on(self, digest: str) -> set[str]:
        told = self._failed.get(digest, {})
        return {node for node, read in told.items() if not self.standing.is_outdated(digest, read)}

    def _task(self, event: Event) -> Task:
        return self.standing.load.tasks[event.task]

    def _set_aside(self, event: Event, reason: str) -> Event:
        """Let an attempt that has finished count for nothing, without blame."""
        self.ledger.lose(event.attempt, reason, event.worker)
        return replace(event, kind="lost", reason=reason)

    def _refuse(self, event: Event, read: dict[str, str], fault: str) -> Event:
        """A result that is none is its node's fault, unless another node finds the same: then it is the task's."""
        same = [
            row
            for row in self.ledger.history(event.task)
            if row.result == event.result and row.reason.startswith(REFUSED) and _node(row.worker) != _node(event.worker)
        ]
        audit = None
        if self.auditor and not same:
            audit = self.auditor.condemn(self._task(event), event.attempt, event.worker, fault)
        about = (event.attempt, event.result, event.nbytes, event.seconds, event.worker, self._origin)
        self.ledger.finish(*about, inputs=read, audit=audit, refused=f"{REFUSED}{fault}")
        if same:
            self.failures[event.task] = f"{fault}; {_node(same[0].worker)} and {_node(event.worker)} found the same"
            if self.auditor:
                self.auditor.pardon([row.attempt for row in same])
            return replace(event, kind="failed", reason=self.failures[event.task])
        self._refused.setdefault(event.task, set()).add(event.worker)
        if audit is None:  # else its node is caught, and there are others
            self._count_loss(event, f"no node gave a result that is one, in {ATTEMPTS} tries: {fault}")
        return replace(event, kind="lost", reason=f"{REFUSED}{fault}")

    def _count_loss(self, event: Event, reason: str) -> None:
        self._lost[event.task] = self._lost.get(event.task, 0) + 1
        if self._lost[event.task] >= ATTEMPTS:
            self.failures[event.task] = reason


def _node(worker: str) -> str:
    """The node of a worker; a process of this machine stands for itself."""
    return worker.partition("/")[0]
