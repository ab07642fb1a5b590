"""The embedded backend: worker processes on this machine, as many as it has cores, no server."""

from __future__ import annotations

import os
import platform
import selectors
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from manybody.core.protocols import Event, NodeInfo
from manybody.core.task import Task
from manybody.network.gang import cores, slots
from manybody.network.machine import Machine
from manybody.network.messages import BackendError, Checkpointed, Failed, Finished, Progressed, Ready, Run
from manybody.network.process import Worker
from manybody.store.provenance import usable_cores

CHECKPOINT_S = 30.0  # about what a killed worker costs
CRASHES_ALLOWED = 3  # workers in a row that end before their first task, until that is taken for the rule


@dataclass(frozen=True)
class Queued:
    """An attempt that waits for a worker."""

    order: Run
    avoid: frozenset[str]


class Embedded:
    """Runs tasks in worker processes on this machine (`core.protocols.Backend`). To be used from one thread.

    Workers start when there is work, one task at a time each, and are called ``local-<this process>-<n>``; a
    replacement counts as another worker. By default as many as `threads_per_worker` fit into the usable cores.

    An attempt whose worker is killed is `lost`. An input that is missing or corrupt fails the attempt; the store has
    set it aside by then, so whoever finds that it is no longer there withdraws it and has it computed again.

    Its workers share the caller's store, so its attempts can go on from checkpoints (`core.protocols.Checkpointing`),
    which they store about every `checkpoint_s` seconds; 0 stores each that a task offers.

    A task of a gang takes as many workers' room as its members need, one that needs several cores likewise, and waits until
    there is: nothing overtakes it. One that needs more than this machine has is refused: its attempt fails at once.
    """

    def __init__(
        self,
        objects_root: Path,
        workers: int | None = None,
        threads_per_worker: int = 1,
        checkpoint_s: float = CHECKPOINT_S,
    ) -> None:
        self.limit = workers if workers is not None else max(1, usable_cores() // threads_per_worker)
        if self.limit < 1 or threads_per_worker < 1:
            raise BackendError(f"Expected at least one worker of one thread; got {self.limit} of {threads_per_worker}.")
        self.threads = threads_per_worker
        self.checkpoint_s = checkpoint_s
        self.objects_root = objects_root.absolute()
        self._selector = selectors.DefaultSelector()
        self._workers: list[Worker] = []
        self._queue: dict[str, Queued] = {}
        self._refused: list[Event] = []
        self._machine = Machine.here(self.limit * threads_per_worker)
        self._started = 0
        self._crashes = 0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def submit(self, attempt: str, task: Task, inputs: Mapping[str, str], avoid: frozenset[str] = frozenset()) -> None:
        """Queue an attempt; `inputs` maps input names to result digests; workers in `avoid` will not run it."""
        self._enqueue(Run(attempt=attempt, task=task, inputs=dict(inputs)), avoid)

    def submit_resumable(
        self, attempt: str, task: Task, inputs: Mapping[str, str], avoid: frozenset[str], checkpoint: str
    ) -> None:
        """Like `submit`, and tell of checkpoints; `checkpoint` is the digest of the one to go on from, or empty."""
        self._enqueue(Run(attempt=attempt, task=task, inputs=dict(inputs), checkpoint=checkpoint), avoid)

    def _enqueue(self, order: Run, avoid: frozenset[str]) -> None:
        if self._closed:
            raise BackendError("This backend is closed. Make a new one.")
        if lacking := self._machine.lacks(order.task.needs):
            reason = f"{order.task.label}: expected a machine that has what it needs; this one lacks {lacking}."
            self._refused.append(Event("failed", order.attempt, order.task.digest, reason=reason))
            return
        if (wanted := cores(order.task, self.threads)) > self.most_members():
            remedy = "Use more workers, or a gang with fewer members."
            raise BackendError(f"{order.task.label}: expected at most {self.most_members()} members; got {wanted}. {remedy}")
        self._queue[order.attempt] = Queued(order, avoid)
        if len(self._workers) < self.limit and sum(worker.order is None for worker in self._workers) < len(self._queue):
            self._start()  # now, so that it starts up while the caller goes on

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Events as they come; ends after `timeout` seconds without one, or when nothing is queued or running."""
        last = time.monotonic()
        while self._refused:
            yield self._refused.pop(0)
        while self._queue or any(worker.order for worker in self._workers):
            for worker in self._assign():
                if worker.order:  # not cancelled since
                    yield Event("started", worker.order.attempt, worker.order.task.digest, worker.name)
                    last = time.monotonic()
            wait = None if timeout is None else max(0.0, last + timeout - time.monotonic())
            ready = self._selector.select(wait)
            if not ready and wait is not None:
                return
            for worker in {key.data.name: key.data for key, _ in ready}.values():
                for event in self._hear(worker) if worker in self._workers else ():  # not dismissed since
                    yield event
                    last = time.monotonic()

    def poll(self) -> Iterator[Event]:
        """The events that are there now, without waiting; hears idle workers too, which `events` leaves for later."""
        ready = True
        while self._refused:
            yield self._refused.pop(0)
        while ready:
            for worker in self._assign():
                if worker.order:
                    yield Event("started", worker.order.attempt, worker.order.task.digest, worker.name)
            heard = {key.data.name: key.data for key, _ in self._selector.select(0)}
            ready = bool(heard)
            for worker in heard.values():
                yield from self._hear(worker) if worker in self._workers else ()

    def fileno(self) -> int:
        """A descriptor that becomes readable when `poll` may tell something, for a loop of the caller's own."""
        return self._selector.fileno()

    def cancel(self, attempt: str) -> None:
        """Stop an attempt; no event of it follows. A worker that computes it is killed."""
        self._queue.pop(attempt, None)
        self._refused = [event for event in self._refused if event.attempt != attempt]
        for worker in [worker for worker in self._workers if worker.order and worker.order.attempt == attempt]:
            self._dismiss(worker)

    def most_members(self) -> int:
        """How many members a gang can have (`core.split.RunsGangs`)."""
        return self.limit * self.threads

    def nodes(self) -> list[NodeInfo]:
        """This machine; `threads` are those of each worker."""
        memory = psutil.virtual_memory().total
        return [NodeInfo(name=platform.node(), workers=self.limit, threads=self.threads, memory_bytes=memory, address="local")]

    def close(self) -> None:
        """Kill all workers and free what is held; what they were computing is lost, what they had stored is not."""
        self._closed = True
        self._queue.clear()
        for worker in list(self._workers):
            self._dismiss(worker)
        self._selector.close()

    def _start(self) -> Worker:
        self._started += 1
        try:
            worker = Worker.start(f"local-{os.getpid()}-{self._started}", self.objects_root, self.threads, self.checkpoint_s)
        except OSError as error:
            remedy = "Ask for fewer workers, or raise the limits on processes and open files (ulimit -u, ulimit -n)."
            raise BackendError(f"Worker {len(self._workers) + 1} of {self.limit} cannot be started: {error}. {remedy}") from error
        worker.watch(self._selector)
        self._workers.append(worker)
        return worker

    def _dismiss(self, worker: Worker) -> None:
        worker.order = None
        worker.end(self._selector)
        self._workers.remove(worker)

    def _assign(self) -> list[Worker]:
        """Hand queued attempts, in order, to workers that are ready; start those that are missing. Who got one."""
        free = sorted((worker for worker in self._workers if worker.order is None), key=lambda worker: not worker.ready)
        room = self.limit - sum(slots(worker.order.task, self.threads) for worker in self._workers if worker.order)
        spare = self._machine.beside(worker.order.task.needs for worker in self._workers if worker.order)
        assigned = []
        for queued in list(self._queue.values()):
            room -= slots(queued.order.task, self.threads)
            full, spare = spare.lacks(queued.order.task.needs), spare.beside([queued.order.task.needs])
            if full or room < 0 or (not free and len(self._workers) >= self.limit):
                break
            worker = next((worker for worker in free if worker.name not in queued.avoid), None)
            if worker is None:
                self._recruit(queued.avoid, free)
                continue
            free.remove(worker)
            if worker.ready:
                worker.give(queued.order)
                del self._queue[queued.order.attempt]
                assigned.append(worker)
        return assigned

    def _recruit(self, avoid: frozenset[str], free: list[Worker]) -> None:
        """Start a worker if there is room; if all there are must be avoided, replace a free one by a fresh process."""
        if len(self._workers) >= self.limit and free and all(worker.name in avoid for worker in self._workers):
            self._dismiss(free.pop())
        if len(self._workers) < self.limit:
            self._start()

    def _hear(self, worker: Worker) -> Iterator[Event]:
        """What a worker tells, its death included."""
        dead = worker.is_dead()  # asked first: then all that it said has arrived
        for report in worker.reports():
            if isinstance(report, Ready):
                worker.ready, self._crashes = True, 0
            elif worker.order and worker.order.attempt == report.attempt:  # else it was cancelled meanwhile
                yield self._event(worker, report, worker.order.task.digest)
        if (dead or worker.hung_up) and worker in self._workers:
            yield from self._bury(worker)

    def _event(self, worker: Worker, report: Progressed | Checkpointed | Finished | Failed, task: str) -> Event:
        if isinstance(report, Progressed):
            return Event("progress", report.attempt, task, worker.name, progress=report.progress)
        if isinstance(report, Checkpointed):
            return Event(
                "checkpoint", report.attempt, task, worker.name, report.progress, result=report.digest, nbytes=report.nbytes
            )
        worker.order = None
        if isinstance(report, Failed):
            said = worker.tail()
            reason = report.reason + (f"\nIt had printed:\n{said}" if said else "")
            return Event(
                "failed", report.attempt, task, worker.name,
                seconds=report.seconds, reason=reason, node_fault=report.node_fault,
            )  # fmt: skip
        return Event(
            "finished", report.attempt, task, worker.name, result=report.result, nbytes=report.nbytes, seconds=report.seconds
        )

    def _bury(self, worker: Worker) -> Iterator[Event]:
        """Take leave of a worker that has died: its attempt is lost. Raises `BackendError` when no worker will live."""
        order, story = worker.order, worker.post_mortem()
        self._crashes = 0 if worker.served else self._crashes + 1
        self._dismiss(worker)
        if self._crashes >= CRASHES_ALLOWED:
            remedy = "Run `manybody doctor` to see whether this installation is complete."
            raise BackendError(f"{self._crashes} workers in a row ended before their first task; {story}\n{remedy}")
        if order:
            yield Event("lost", order.attempt, order.task.digest, worker.name, reason=story)
