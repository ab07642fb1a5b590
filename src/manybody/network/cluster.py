"""The cluster backend: machines of one organisation that trust each other, reached through a Dask scheduler.

Dask carries orders, inputs and results (through TLS), knows which workers there are, and comes with batch systems.
Who computes what is decided here, so that an attempt runs on one node, is told of once, and is never redone in silence.
The extra `manybody[cluster]` brings what this needs. Its scheduler unpickles what it gets: for trusted machines only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self

from distributed import Security

from manybody.core.errors import CorruptResultError, ManybodyError, StoreError
from manybody.core.protocols import Event, NodeInfo
from manybody.core.task import Task
from manybody.network.cluster_agent import Order
from manybody.network.cluster_line import Answered, Broken, Cut, Gone, Joined, Line, Message, Parcel, Told
from manybody.network.cluster_placement import Demand, Node, demand, mismatches, place
from manybody.network.federation.blobs import RefusedBlobError
from manybody.network.federation.capacity import report
from manybody.network.local import CHECKPOINT_S
from manybody.network.messages import BackendError
from manybody.store.encoding import encode
from manybody.store.objects import ObjectStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How long to wait for others, seconds, until they are taken for lost.

    `patience_s`: for a scheduler to answer, and for a first worker. `silence_s`: for a sign of life of a worker that
    an attempt runs on; agents answer even while tasks compute. An attempt that has neither ended nor told progress for
    `deadline_factor` times its expected cost, and at least `deadline_s`, is lost.
    """

    patience_s: float = 20.0
    silence_s: float = 10.0
    deadline_s: float = 120.0
    deadline_factor: float = 20.0


@dataclass
class Attempt:
    """An attempt that is queued, or sent to `node`, when it was last heard of, and whether a node has gone from under it."""

    name: str
    task: Task
    inputs: dict[str, str]
    avoid: frozenset[str]
    demand: Demand
    checkpoint: str | None = None
    node: Node | None = None
    worker: str = ""
    heard: float = 0.0
    moved: bool = False


class Cluster:
    """Runs tasks on the workers of a Dask scheduler (`core.protocols.Backend`). To be used from one thread.

    At the start it waits for as many Dask workers as `workers` says, for a while; those that come later are taken in too.
    Workers are called ``<Dask worker>/<process>``. Every Dask worker must have the versions that this installation has.
    They can go on from checkpoints (`core.protocols.Checkpointing`), left about every `checkpoint_s` seconds.
    Attempts are sent in the order in which they were submitted, to Dask with a priority of `rank` (by default the
    expected cost), so that of several runs the longest tasks start first. Raises `BackendError` where there is no
    scheduler or no worker, or where versions differ.
    """

    def __init__(
        self,
        address: str,
        objects_root: Path,
        security: Security | None = None,
        workers: int = 1,
        threads_per_worker: int = 1,
        limits: Limits = Limits(),
        rank: Callable[[Task], float] = lambda task: task.cost,
        checkpoint_s: float = CHECKPOINT_S,
    ) -> None:
        self.address, self.security, self.threads, self.limits = address, security, threads_per_worker, limits
        self._expected, self._checkpoint_s = workers, checkpoint_s
        self._objects, self._rank = ObjectStore(objects_root), rank
        self._ours = report(1, threads_per_worker)
        self._nodes: dict[str, Node] = {}
        self._queue: dict[str, Attempt] = {}
        self._sent: dict[str, Attempt] = {}
        self._closed = False
        self._line: Line | None = self._connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def submit(self, attempt: str, task: Task, inputs: Mapping[str, str], avoid: frozenset[str] = frozenset()) -> None:
        """Queue an attempt; `inputs` maps input names to result digests; workers in `avoid` will not run it."""
        self._enqueue(Attempt(attempt, task, dict(inputs), avoid, demand(task, self.threads)))

    def submit_resumable(
        self, attempt: str, task: Task, inputs: Mapping[str, str], avoid: frozenset[str], checkpoint: str
    ) -> None:
        """Like `submit`, and tell of checkpoints; `checkpoint` is the digest of the one to go on from, or empty."""
        self._enqueue(Attempt(attempt, task, dict(inputs), avoid, demand(task, self.threads), checkpoint))

    def _enqueue(self, attempt: Attempt) -> None:
        if self._closed:
            raise BackendError("This backend is closed. Make a new one.")
        self._queue[attempt.name] = attempt

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Events as they come; ends after `timeout` seconds without one, or when nothing is queued or running.

        Raises `BackendError` when there is no scheduler or no worker any more.
        """
        last = time.monotonic()
        while self._queue or self._sent:
            quiet = True
            for event in chain(self._assign(), self._overdue()):
                yield event
                last, quiet = time.monotonic(), False
            if not quiet or not (self._queue or self._sent):
                continue
            now = time.monotonic()
            left = float("inf") if timeout is None else last + timeout - now
            message = self._next(min(self._moment(now), left))
            if message is None and time.monotonic() >= now + left:
                return
            for event in self._take(message) if message else ():
                yield event
                last = time.monotonic()

    def cancel(self, attempt: str) -> None:
        """Stop an attempt; no event of it follows. Its node kills the process that computes it."""
        self._queue.pop(attempt, None)
        self._forget(attempt)

    def nodes(self) -> list[NodeInfo]:
        """The Dask workers there are now."""
        self._listen()
        return [node.info(self.threads) for node in self._nodes.values()]

    def most_members(self) -> int:
        """How many members a gang can have, all on one node (`core.split.RunsGangs`)."""
        return max((int(node.capacity["cores"]) for node in self._nodes.values()), default=0)

    def close(self) -> None:
        """Stop what this backend computes. The scheduler and its workers stay: they are not this run's."""
        self._closed = True
        self._queue.clear()
        self._sent.clear()
        self._cut()

    # --- sending -------------------------------------------------------------------------------------------------

    def _assign(self) -> Iterator[Event]:
        """Send what there is room for; refuse what can run nowhere."""
        if self._queue and self._line is None:
            self._reconnect()
        full: set[str] = set()  # demands that have just found no place, so that a long queue is not tried in vain
        for attempt in list(self._queue.values()):
            nodes = self._nodes.values()
            if attempt.name not in self._queue or attempt.demand.text in full:  # cancelled since, or in vain
                continue
            if not any(node.could_run(attempt.demand) for node in nodes) and self._nodes:
                yield self._refuse(attempt)
                continue
            node = place(attempt.demand, attempt.inputs.values(), attempt.avoid, nodes)
            if node is None:
                full |= set() if attempt.avoid else {attempt.demand.text}
                continue
            del self._queue[attempt.name]
            try:
                self._send(attempt, node)
            except (CorruptResultError, StoreError) as error:
                yield Event("failed", attempt.name, attempt.task.digest, reason=str(error))

    def _refuse(self, attempt: Attempt) -> Event:
        del self._queue[attempt.name]
        have = "; ".join(f"{node.name} has {Demand(node.capacity).text}" for node in self._nodes.values())
        remedy = "Start a Dask worker with such `--resources`."
        reason = f"{attempt.task.label}: expected a node with {attempt.demand.text}; {have}. {remedy}"
        return Event("failed", attempt.name, attempt.task.digest, reason=reason)

    def _send(self, attempt: Attempt, node: Node) -> None:
        """Send an attempt to a node, with those of its inputs that the node lacks."""
        assert self._line is not None
        checkpoint = self._usable(attempt.checkpoint)
        lacking = {digest for digest in (*attempt.inputs.values(), checkpoint) if digest and digest not in node.holds}
        data = {digest: encode(self._objects.get(digest)) for digest in sorted(lacking)}
        avoid = tuple(sorted(name for name in attempt.avoid if name.rpartition("/")[0] == node.name))
        order = Order(
            coordinator=self._line.coordinator, attempt=attempt.name, task=attempt.task, inputs=attempt.inputs, avoid=avoid,
            threads=int(attempt.demand.amounts["cores"]), checkpoint=checkpoint, checkpoint_s=self._checkpoint_s,
        )  # fmt: skip
        self._line.send(Parcel(order, node.address, data, node.resources(attempt.demand), self._rank(attempt.task)))
        attempt.node, attempt.heard = node, time.monotonic()
        node.taken[attempt.name] = attempt.demand
        node.holds |= lacking
        self._sent[attempt.name] = attempt

    def _usable(self, checkpoint: str | None) -> str | None:
        """A checkpoint that is there and intact; else empty: the attempt begins anew."""
        if checkpoint:
            try:
                self._objects.get(checkpoint)
            except StoreError as error:
                log.warning("An attempt begins anew: %s", error)
                return ""
        return checkpoint

    def _forget(self, name: str) -> Attempt | None:
        """Let go of an attempt that was sent."""
        attempt = self._sent.pop(name, None)
        if attempt is not None and attempt.node is not None:
            attempt.node.taken.pop(name, None)
            if self._line is not None:
                self._line.drop(name)
        return attempt

    # --- hearing -------------------------------------------------------------------------------------------------

    def _next(self, wait_s: float) -> Message | None:
        """The next message; None where there is none within `wait_s`. Raises `BackendError` when all workers are gone."""
        if self._line is None:
            return None
        with contextlib.suppress(queue.Empty):
            return self._line.heard.get(timeout=max(0.0, wait_s))
        if not self._nodes and time.monotonic() - self._lonely > self.limits.patience_s:
            waiting = f"{len(self._queue)} attempts wait; everything that has finished is kept"
            remedy = "Start workers with `dask worker`, then run again."
            raise BackendError(f"The scheduler at {self.address} has lost all its workers. {waiting}. {remedy}")
        return None

    def _listen(self) -> None:
        """Take note of nodes that have come, while nothing runs."""
        while self._line is not None and not self._sent and not self._line.heard.empty():
            for _ in self._take(self._line.heard.get()):
                pass

    def _take(self, message: Message) -> Iterator[Event]:
        """What a message means."""
        match message:
            case Told(news):
                if news.event and (attempt := self._sent.get(news.event.attempt)) and self._is_new(attempt, news.event):
                    yield news.event
                elif news.event and news.event.kind == "checkpoint":  # its attempt has ended meanwhile
                    self._objects.remove(news.event.result)
            case Answered(name):
                if name in self._sent:
                    yield from self._answer(message)
            case Broken(name, reason):
                if name in self._sent:
                    yield self._lose(name, f"{self._whereabouts(name)} did not come back: {reason}")
            case Joined():
                self._welcome(message)
            case Gone(address, reason):
                yield from self._bury(address, reason)
            case Cut(reason):
                self._cut()
                yield from self._lose_all(list(self._sent), f"out of reach: {reason}")

    def _is_new(self, attempt: Attempt, event: Event) -> bool:
        """Whether an event of a running attempt is to be passed on; one that starts twice has lost its first worker."""
        attempt.heard = time.monotonic()
        if event.kind == "started":
            attempt.worker = attempt.worker or event.worker
        return event.worker == attempt.worker

    def _answer(self, answered: Answered) -> Iterator[Event]:
        """How an attempt ended, once its result is in the store."""
        news, attempt = answered.news, self._sent[answered.attempt]
        node = attempt.node
        assert node is not None, "it was sent"
        if news.missing:  # the node has made room meanwhile
            node.holds.difference_update(news.missing)
            self._forget(attempt.name)
            self._queue = {attempt.name: attempt} | self._queue
        elif news.unfit:
            self._nodes.pop(node.address, None)
            yield self._lose(attempt.name, f"{node.name} can run no task: {news.unfit}")
            if not self._nodes:
                raise BackendError(f"No node is left: {node.name} can run no task: {news.unfit}")
        elif news.event is None:
            yield self._lose(attempt.name, f"{self._whereabouts(attempt.name)} dropped it")
        else:
            self._forget(attempt.name)
            node.note(news.event.seconds)
            if not attempt.worker:  # it was so short that its start was not worth a message
                yield Event("started", attempt.name, attempt.task.digest, news.event.worker)
            yield self._finish(news.event, answered.fault, node) if news.event.kind == "finished" else news.event

    def _finish(self, event: Event, fault: ManybodyError | None, node: Node) -> Event:
        """A result is in the store, or was damaged on its way; a store that cannot take it raises its `StoreError`."""
        if fault is None:
            node.holds.add(event.result)
            return event
        if not isinstance(fault, RefusedBlobError):
            raise fault
        reason = f"{event.worker} sent a damaged result: {fault}"
        return Event("lost", event.attempt, event.task, event.worker, seconds=event.seconds, reason=reason)

    def _overdue(self) -> Iterator[Event]:
        """Attempts that have told nothing for too long are lost; their processes are killed."""
        now = time.monotonic()
        for attempt in [attempt for attempt in self._sent.values() if attempt.worker]:
            if attempt.name in self._sent and now > attempt.heard + self._limit(attempt):
                silent = f"{attempt.worker} told nothing for {self._limit(attempt):g} s"
                yield self._lose(attempt.name, f"{silent}: it is taken for frozen")

    def _limit(self, attempt: Attempt) -> float:
        return max(self.limits.deadline_s, self.limits.deadline_factor * attempt.task.cost / self.threads)

    def _moment(self, now: float) -> float:
        """How long to wait at most: until the next deadline, or until there should be a worker again."""
        deadlines = [attempt.heard + self._limit(attempt) - now for attempt in self._sent.values() if attempt.worker]
        return max(0.0, min(deadlines, default=self.limits.patience_s))

    def _lose(self, name: str, reason: str) -> Event:
        attempt = self._sent[name]
        self._forget(name)
        return Event("lost", name, attempt.task.digest, attempt.worker, reason=reason)

    def _lose_all(self, names: list[str], reason: str) -> Iterator[Event]:
        for name in names:
            if name in self._sent:  # not cancelled since
                yield self._lose(name, f"{self._whereabouts(name)} is {reason}")

    def _whereabouts(self, name: str) -> str:
        attempt = self._sent[name]
        return attempt.worker or (attempt.node.name if attempt.node else "its node")

    # --- nodes ---------------------------------------------------------------------------------------------------

    def _connect(self) -> Line:
        """Connect and vet all workers; versions that differ are refused before any work is sent."""
        coordinator, limits = f"{os.getpid()}-{uuid.uuid4().hex[:8]}", self.limits
        line = Line(self.address, self.security, self._objects, coordinator, limits.patience_s, limits.silence_s, self._expected)
        joined = line.open()
        faults = [fault for told in joined for fault in self._faults(told)]
        if faults:
            line.close()
            remedy = "Install the same releases everywhere (`pip install -c constraints.txt`), and start the workers again."
            raise BackendError("Not every Dask worker has what this installation has:\n" + "\n".join([*faults, remedy]))
        self._nodes = {told.address: told.node for told in joined if told.node}
        self._lonely = time.monotonic()
        if not any(node.info(self.threads).workers for node in self._nodes.values()):
            line.close()
            raise BackendError(f"No Dask worker has {self.threads} threads. Start one with `--nthreads {self.threads}`.")
        return line

    def _reconnect(self) -> None:
        """Find a scheduler again after the last one was lost."""
        try:
            self._line = self._connect()
        except BackendError as error:
            raise BackendError(f"{error} Everything that has finished is kept; run again to go on.") from error

    def _faults(self, told: Joined) -> list[str]:
        return [told.reason] if told.node is None else mismatches(told.node.name, told.node.report, self._ours)

    def _welcome(self, told: Joined) -> None:
        """Take in a worker that has come later; one with other versions is left out, and that is said."""
        faults = self._faults(told)
        if told.node and not faults:
            self._nodes[told.address] = told.node
        else:
            log.warning("Dask worker at %s is not used: %s", told.address, "; ".join(faults))

    def _bury(self, address: str, reason: str) -> Iterator[Event]:
        """A worker is gone, and with it what was sent there."""
        self._nodes.pop(address, None)
        self._lonely = time.monotonic()
        for attempt in [attempt for attempt in self._sent.values() if attempt.node and attempt.node.address == address]:
            if not attempt.worker and not attempt.moved:  # it waited there: nothing is lost, unless it is why nodes go
                self._forget(attempt.name)
                attempt.moved, self._queue[attempt.name] = True, attempt
        there = [name for name, attempt in self._sent.items() if attempt.node and attempt.node.address == address]
        yield from self._lose_all(there, f"gone: {reason}")

    def _cut(self) -> None:
        """Give up the line."""
        line, self._line, self._nodes = self._line, None, {}
        if line is not None:
            line.close()
