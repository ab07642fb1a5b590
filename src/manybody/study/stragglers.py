"""Stragglers: an attempt that holds up a study is tried a second time on a faster free node; the first to finish counts.

How long an attempt still needs is told by its progress, as in LATE (M. Zaharia et al., OSDI 2008), or by learned cost
where it tells none. Before the ledger both tries are one attempt, so of two results one counts; the other try is
cancelled, and its node's late answer refused by the backend.
"""

from __future__ import annotations

import math
import platform
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from manybody.core.protocols import Backend, Checkpointing, Event, NodeInfo
from manybody.core.study import Plan
from manybody.core.task import Task
from manybody.store.ledger import Ledger
from manybody.store.queue import TWIN
from manybody.study.costs import Costs, Timing, kind_of, known_timings, learn, node_of, priced, repriced

GAIN = 2.0  # a second try is worth it where it takes less than 1/GAIN of what the first still needs
SETUP_S = 2.0  # and what it takes to get going
LOOK_S = 1.0  # between looks for stragglers: each asks the backend for its nodes
REMEMBERED = 4000  # timings, the newest: enough for medians, and little work once a second
FINAL = ("finished", "failed", "lost")


@dataclass
class Try:
    """One try of an attempt on a node: when it began, and its first and last progress, as (fraction, time)."""

    node: str
    worker: str
    begun: float
    first: tuple[float, float] | None = None
    last: tuple[float, float] | None = None

    def note(self, fraction: float, now: float) -> None:
        """Take note of progress."""
        self.first = self.first or (fraction, now)
        self.last = (fraction, now)

    @property
    def rate(self) -> float:
        """Fraction done a second; 0 while it has told too little."""
        if self.first is None or self.last is None or self.last[1] <= self.begun:
            return 0.0
        return (self.last[0] - self.first[0]) / (self.last[1] - self.begun)

    def left_s(self, expected_s: float, now: float) -> float:
        """Seconds that it still needs: by its rate so far, else as expected; once overdue, as long as it is overdue."""
        if self.rate and self.last:
            left = (1 - self.last[0]) / self.rate - (now - self.last[1])
        else:
            left = expected_s - (now - self.begun)
        return abs(left)


@dataclass
class Attempt:
    """An attempt as the conductor knows it, with its tries by their names: those not yet begun are None."""

    task: Task
    inputs: Mapping[str, str]
    avoid: frozenset[str]
    checkpoint: str | None
    tries: dict[str, Try | None] = field(default_factory=dict)
    told: float = -1.0
    kept: float = 0.0


class Stragglers:
    """A backend over another (`core.protocols.Backend`), which tries stragglers twice. To be used from one thread.

    `timings` are of earlier tasks, their costs by the same measure as those of the tasks to come; this run's are added.
    """

    def __init__(self, backend: Backend, timings: Iterable[Timing] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self.backend, self._timings, self._clock = backend, deque(timings, REMEMBERED), clock
        self._attempts: dict[str, Attempt] = {}
        self._looked = clock()
        self._costs: Costs | None = None

    @property
    def costs(self) -> Costs:
        """Costs as learned by now; another look at the nodes' measured speeds comes with every new timing."""
        if self._costs is None:
            self._costs = learn(self._timings, {node.name: node.speed for node in self.backend.nodes()})
        return self._costs

    def submit(self, attempt: str, task: Task, inputs: Mapping[str, str], avoid: frozenset[str] = frozenset()) -> None:
        """Queue an attempt; `inputs` maps input names to result digests; workers in `avoid` must not run it."""
        self._attempts[attempt] = Attempt(task, inputs, avoid, None)
        self._send(attempt, attempt, avoid)

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """The backend's events, as if each attempt were tried once."""
        self._look()
        for event in self.backend.events(timeout):
            yield from self._pass_on(event)
            self._look()

    def cancel(self, attempt: str) -> None:
        """Stop an attempt; no event of it follows."""
        known = self._attempts.pop(attempt, None)
        for name in list(known.tries) if known else [attempt]:
            self.backend.cancel(name)

    def nodes(self) -> list[NodeInfo]:
        """The machines there are."""
        return self.backend.nodes()

    def close(self) -> None:
        """Close the backend."""
        self.backend.close()

    # --- events --------------------------------------------------------------------------------------------------

    def _pass_on(self, event: Event) -> Iterator[Event]:
        name = event.attempt.removesuffix(TWIN)
        attempt = self._attempts.get(name)
        if attempt is None or event.attempt not in attempt.tries:
            return
        if event.kind == "started":
            attempt.tries[event.attempt] = Try(self._node_of(event.worker), event.worker, self._clock())
            if event.attempt != name:
                return
        elif event.kind == "progress" and event.progress is not None:
            if (running := attempt.tries[event.attempt]) is not None:
                running.note(event.progress.fraction, self._clock())
            if event.progress.fraction < attempt.told:  # the other try is further
                return
            attempt.told = event.progress.fraction
        elif event.kind == "checkpoint" and event.progress is not None:
            attempt.checkpoint, attempt.kept = event.result, event.progress.fraction
        elif event.kind in FINAL and not self._ends(name, attempt, event):
            return
        yield replace(event, attempt=name)

    def _ends(self, name: str, attempt: Attempt, event: Event) -> bool:
        """Whether the end of a try is that of its attempt: else the other try goes on."""
        del attempt.tries[event.attempt]
        if attempt.tries and (event.kind == "lost" or event.node_fault):
            return False
        for other in attempt.tries:
            self.backend.cancel(other)
        del self._attempts[name]
        if event.kind == "finished":
            self._timings.append(Timing(kind_of(attempt.task), attempt.task.cost, event.seconds, self._node_of(event.worker)))
            self._costs = None
        return True

    def _node_of(self, worker: str) -> str:
        return node_of(worker, platform.node())

    # --- second tries --------------------------------------------------------------------------------------------

    def _send(self, attempt: str, name: str, avoid: frozenset[str]) -> None:
        known = self._attempts[attempt]
        known.tries[name] = None
        if known.checkpoint is None:
            self.backend.submit(name, known.task, known.inputs, avoid)
        else:
            assert isinstance(self.backend, Checkpointing), "else there is no `submit_resumable` here"
            self.backend.submit_resumable(name, known.task, known.inputs, avoid, known.checkpoint)

    def _look(self) -> None:
        """Try stragglers a second time, where nothing waits for the room that this takes."""
        now = self._clock()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        single = [name for name, attempt in self._attempts.items() if list(attempt.tries) == [name]]
        if not single or any(running is None for attempt in self._attempts.values() for running in attempt.tries.values()):
            return
        nodes = self.backend.nodes()
        if len(nodes) < 2:
            return
        free = {node.name: node.workers for node in nodes}
        for running in (running for attempt in self._attempts.values() for running in attempt.tries.values() if running):
            free[running.node] = free.get(running.node, 0) - 1
        for name in sorted(single, key=lambda name: -self._left_s(name, now)):
            self._try_again(name, nodes, free, now)

    def _try_again(self, name: str, nodes: list[NodeInfo], free: dict[str, int], now: float) -> None:
        """Try an attempt again on the fastest free node, if it ends much sooner there."""
        attempt, running = self._attempts[name], self._running(name)
        worth = (self._left_s(name, now) - SETUP_S) / GAIN
        shunned = {node_of(worker, worker) for worker in attempt.avoid} | {running.node}
        there = {node.name: self._elsewhere_s(attempt, running, node.name) for node in nodes if node.name not in shunned}
        able = [node for node, seconds in there.items() if seconds < worth]
        best = min((node for node in able if free[node] > 0), key=there.__getitem__, default=None)
        if best is None:
            return
        free[best] -= 1
        # A worker's name that no process has stands for its whole node.
        others = frozenset(f"{node.name}/-" for node in nodes if node.name not in able)
        self._send(name, name + TWIN, attempt.avoid | others | {running.worker})

    def _running(self, name: str) -> Try:
        running = self._attempts[name].tries[name]
        assert running is not None, "looked at only once all have begun"
        return running

    def _left_s(self, name: str, now: float) -> float:
        running = self._running(name)
        return running.left_s(self.costs.seconds(self._attempts[name].task, running.node), now)

    def _elsewhere_s(self, attempt: Attempt, running: Try, node: str) -> float:
        """Seconds that a second try takes on a node: as learned, else as the first one shows; endless where nothing is known."""
        task, rate = attempt.task, running.rate
        if self.costs.knows(task):
            whole = self.costs.seconds(task, node)
        elif rate:
            whole = self.costs.slower(node, running.node) / rate
        else:
            whole = math.inf
        return whole * (1 - attempt.kept)


class ResumableStragglers(Stragglers):
    """The same over a backend whose attempts go on from checkpoints (`core.protocols.Checkpointing`); second tries do, too."""

    def submit_resumable(
        self, attempt: str, task: Task, inputs: Mapping[str, str], avoid: frozenset[str], checkpoint: str
    ) -> None:
        """Like `submit`, and tell of checkpoints; `checkpoint` is the digest of the one to go on from, or empty."""
        self._attempts[attempt] = Attempt(task, inputs, avoid, checkpoint)
        self._send(attempt, attempt, avoid)


def prepared(plan: Plan, ledger: Ledger, backend: Backend) -> tuple[Plan, Backend]:
    """A plan at the cost that has been learned for the nodes there are, and the backend with its stragglers tried twice."""
    known, nodes = known_timings(ledger, plan.tasks), backend.nodes()
    costs = learn(known, {node.name: node.speed for node in nodes}).on(nodes)
    return priced(plan, costs), watched(backend, repriced(known, costs))


def watched(backend: Backend, timings: Iterable[Timing] = ()) -> Backend:
    """A backend with its stragglers tried twice, which keeps checkpoints if it did."""
    return (ResumableStragglers if isinstance(backend, Checkpointing) else Stragglers)(backend, timings)
