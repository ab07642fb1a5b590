"""The agent in each Dask worker: takes orders, and has them carried out by processes of their own.

A Dask worker runs tasks in threads: one that holds the interpreter silences it, one that is killed takes it along, and
none can be stopped. So here the thread only waits, while the stage runs in a process of the embedded backend. An agent
therefore answers its scheduler within moments at any time, and silence means that its machine is gone or frozen.

All that the engine pickles is the name of a function of this module, texts, and the bytes of results.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from distributed import Worker, WorkerPlugin, get_worker
from pydantic import ConfigDict

from manybody.core.protocols import Event
from manybody.core.spec import Frozen
from manybody.core.task import Task
from manybody.network.federation.blobs import keep
from manybody.network.federation.capacity import measure, report
from manybody.network.federation.protocol import Report
from manybody.network.local import CHECKPOINT_S, Embedded
from manybody.network.messages import BackendError
from manybody.store.objects import ObjectStore

PLUGIN = "manybody"  # under which the agent is known to its Dask worker
TOPIC = "manybody"  # of the events that tell of running attempts
LOOK_S = 0.2  # how often a waiting thread looks whether its attempt is still wanted
HUSH_S = 0.05  # for so long a start is not told: where the task has ended by then, its result says all
IDLE_S = 120.0  # an idle process is ended after so long: its coordinator may be gone
CACHE_BYTES = 4 << 30  # results kept on a node's disk for the tasks to come
CHECKPOINT_BYTES = 1 << 30  # a larger one is not sent: it would hold up everything else on the line
FINAL = ("finished", "failed", "lost")


class Order(Frozen):
    """To an agent: have a task computed. `avoid` names processes of this node that must not do it.

    `checkpoint` is the digest of the one to go on from, empty where there is none yet, None where none are wanted; they
    are left about every `checkpoint_s` seconds.
    """

    coordinator: str
    attempt: str
    task: Task
    inputs: dict[str, str]
    avoid: tuple[str, ...]
    threads: int
    checkpoint: str | None = None
    checkpoint_s: float = CHECKPOINT_S

    @property
    def needed(self) -> tuple[str, ...]:
        """The objects that the node must have: inputs, and the checkpoint."""
        return (*self.inputs.values(), *filter(None, (self.checkpoint,)))


class News(Frozen):
    """From an agent: an event; or which inputs it lacks; or why its node can run nothing. Empty: the attempt was dropped."""

    model_config = ConfigDict(ser_json_inf_nan="constants", allow_inf_nan=True)  # a diverging task may well report NaN

    event: Event | None = None
    missing: tuple[str, ...] = ()
    unfit: str = ""


class Cache:
    """Results on a node's disk, named by digest; the ones used least lately go when there are more than `limit` bytes."""

    def __init__(self, root: Path, limit: int) -> None:
        self.objects, self._limit, self._size = ObjectStore(root, scratch=True), limit, 0
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, digests: Iterable[str]) -> Iterator[tuple[str, ...]]:
        """Keep results from being removed meanwhile; gives those that are missing."""
        wanted = tuple(dict.fromkeys(digests))
        with self._lock:
            self._held.update(wanted)
        try:
            for digest in wanted:
                if self.objects.has(digest):
                    self.objects.path(digest).touch()
            yield tuple(digest for digest in wanted if not self.objects.has(digest))
        finally:
            with self._lock:
                self._held.subtract(wanted)

    def add(self, digest: str, data: bytes) -> None:
        """Keep bytes that came under a digest, verified."""
        size = keep(self.objects, digest, data)
        with self._lock:
            self._size += size

    def read(self, digest: str) -> bytes:
        """The bytes of a result."""
        return self.objects.path(digest).read_bytes()

    def remove(self, digest: str) -> None:
        """Remove what no task needs any more."""
        with self._lock:
            self.objects.remove(digest)

    def trim(self, more: int) -> None:
        """Remove what is too much, now that there are `more` bytes, the least lately used first; what tasks are reading stays."""
        with self._lock:
            self._size += more
            if self._size <= self._limit:
                return
            found = [(path.stat(), path) for path in self.objects.root.glob("??/*") if path.suffix == ".safetensors"]
            self._size = sum(status.st_size for status, _ in found)  # counted anew: some were put in twice
            for status, path in sorted(found, key=lambda each: each[0].st_mtime):
                if self._size <= self._limit:
                    return
                if not self._held[path.parent.name + path.stem]:
                    path.unlink()
                    self._size -= status.st_size


@dataclass
class Hand:
    """A process that computes for one coordinator, and since when it has been idle."""

    number: int
    backend: Embedded
    coordinator: str
    threads: int
    since: float = 0.0


class Agent(WorkerPlugin):
    """What makes a Dask worker a node. Orders come in its threads, everything else on its event loop."""

    name = PLUGIN

    def setup(self, worker: Worker) -> None:
        """Begin, in the folder that the Dask worker has for itself."""
        self._worker = worker
        self._cache = Cache(Path(worker.local_directory) / "results", CACHE_BYTES)
        self._lock = threading.Lock()
        self._idle: list[Hand] = []
        self._busy: Counter[str] = Counter()
        self._dismissed: set[str] = set()
        self._closing, self._made = False, 0
        self._computing: dict[str, tuple[str, float]] = {}
        self._speed: dict[str, float] = {}
        self._measuring = asyncio.Lock()
        self._sweeper = asyncio.get_running_loop().call_later(IDLE_S, self._sweep)

    def teardown(self, worker: Worker) -> None:
        """End all idle processes; those at work end with the threads that wait for them, or with this process."""
        self._closing = True
        self._sweeper.cancel()
        with self._lock:
            self._end(list(self._idle))

    def read(self, digest: str) -> bytes:
        """A checkpoint of this node; empty where it has been replaced by a later one, or is too large to be sent."""
        path = self._cache.objects.path(digest)
        try:
            return path.read_bytes() if path.stat().st_size <= CHECKPOINT_BYTES else b""
        except FileNotFoundError:
            return b""

    def running(self) -> list[tuple[str, float]]:
        """What is computed here now: the label of each task, and when it began, by the steady clock."""
        return sorted(self._computing.values(), key=lambda each: each[1])

    async def speed(self, measured: bool) -> dict[str, float]:
        """How fast the engines run here, predicted cost done a second, by method; empty until `measured` was asked for."""
        async with self._measuring:
            if measured and not self._speed:
                self._speed = await asyncio.to_thread(measure, self._cache.objects.root)
        return self._speed

    @property
    def node(self) -> str:
        """The name of this node."""
        return str(self._worker.name)

    def carry_out(self, order: Order, data: Mapping[str, bytes], key: str) -> tuple[str, bytes]:
        """Have an order carried out, in the calling thread: what came of it, and the bytes of the result."""
        for digest, content in data.items():
            self._cache.add(digest, content)
        with self._cache.holding(order.needed) as missing:
            if missing:
                return News(missing=missing).model_dump_json(), b""
            try:
                self._computing[key] = (order.task.label, time.monotonic())
                with self._hand(order) as hand:
                    event = self._compute(hand, order, key)
            except BackendError as error:  # no process will live here
                return News(unfit=str(error)).model_dump_json(), b""
            finally:
                self._computing.pop(key, None)
        result = self._cache.read(event.result) if event and event.kind == "finished" else b""
        if result:
            self._cache.trim(len(result))
        return News(event=event).model_dump_json(), result

    async def dismiss(self, coordinator: str) -> None:
        """End all processes of a coordinator, those at work too."""
        self._dismissed.add(coordinator)
        while self._busy[coordinator]:
            await asyncio.sleep(LOOK_S / 4)
        with self._lock:
            self._end([hand for hand in self._idle if hand.coordinator == coordinator])
        self._dismissed.discard(coordinator)

    @contextmanager
    def _hand(self, order: Order) -> Iterator[Hand]:
        """Lend a process for an order; afterwards it waits for the next order of the same coordinator."""
        with self._lock:
            self._busy[order.coordinator] += 1
            fits = (hand for hand in self._idle if (hand.coordinator, hand.threads) == (order.coordinator, order.threads))
            hand = next(fits, None)
            if hand is not None:
                self._idle.remove(hand)
            else:
                self._made += 1
                backend = Embedded(self._cache.objects.root, 1, order.threads, order.checkpoint_s)
                hand = Hand(self._made, backend, order.coordinator, order.threads)
        try:
            yield hand
        except BaseException:
            hand.backend.close()
            raise
        else:
            hand.since = time.monotonic()
            with self._lock:
                self._idle.append(hand)
        finally:
            with self._lock:
                self._busy[order.coordinator] -= 1

    def _compute(self, hand: Hand, order: Order, key: str) -> Event | None:
        """How an attempt ended; None when it is no longer wanted."""
        prefix = f"{self.node}/{hand.number}:"
        avoid = frozenset(name.removeprefix(prefix) for name in order.avoid)
        if order.checkpoint is None:
            hand.backend.submit(order.attempt, order.task, order.inputs, avoid)
        else:
            hand.backend.submit_resumable(order.attempt, order.task, order.inputs, avoid, order.checkpoint)
        left = ""
        wait_s, untold = HUSH_S, list[Event]()
        while True:
            for event in hand.backend.events(wait_s):
                told = replace(event, worker=prefix + event.worker)
                if event.kind == "lost":
                    told = replace(told, reason=f"{told.worker}: {event.reason}")
                if event.kind in ("checkpoint", "finished"):  # what was left before is needed no more
                    self._drop(left)
                    left = event.result if event.kind == "checkpoint" else ""
                if event.kind in FINAL:
                    return told
                untold.append(told)
                if event.kind != "started":
                    self._tell(order.coordinator, untold)
                if not self._is_wanted(order, key):
                    break
            self._tell(order.coordinator, untold)
            if not self._is_wanted(order, key):
                hand.backend.cancel(order.attempt)
                return None
            wait_s = LOOK_S

    def _tell(self, coordinator: str, untold: list[Event]) -> None:
        for event in untold:
            self._worker.log_event(TOPIC, {"coordinator": coordinator, "news": News(event=event).model_dump_json()})
        untold.clear()

    def _drop(self, checkpoint: str) -> None:
        if checkpoint:
            self._cache.remove(checkpoint)

    def _is_wanted(self, order: Order, key: str) -> bool:
        """Whether the scheduler still wants this attempt: it lets go of those whose coordinator cancelled or is gone."""
        if self._closing or order.coordinator in self._dismissed:
            return False
        state = self._worker.state.tasks.get(key)
        return state is not None and state.state == "executing"

    def _sweep(self) -> None:
        """End processes that have been idle for long."""
        with self._lock:
            self._end([hand for hand in self._idle if time.monotonic() - hand.since > IDLE_S])
        self._sweeper = asyncio.get_running_loop().call_later(IDLE_S, self._sweep)

    def _end(self, hands: list[Hand]) -> None:
        for hand in hands:
            self._idle.remove(hand)
            hand.backend.close()


# --- what is called by name from elsewhere ------------------------------------------------------------------------


def carry_out(order: str, data: dict[str, bytes]) -> tuple[str, bytes]:
    """Carry out an `Order`, given as JSON with the bytes of inputs that this node lacked; in a thread of a Dask worker."""
    worker = get_worker()
    agent = worker.plugins[PLUGIN]
    assert isinstance(agent, Agent), "the coordinator installs it before it sends orders"
    return agent.carry_out(Order.model_validate_json(order), data, str(worker.get_current_task()))


async def enlist(dask_worker: Worker) -> str:
    """Make a Dask worker a node, if it is none yet; returns what it has, a `Report` as JSON."""
    if PLUGIN not in dask_worker.plugins:
        await dask_worker.plugin_add(Agent(), name=PLUGIN, catch_errors=False)
    agent = dask_worker.plugins[PLUGIN]
    speed = await agent.speed(False) if isinstance(agent, Agent) else {}
    found: Report = await asyncio.to_thread(report, dask_worker.state.nthreads, speed=speed)
    return found.model_dump_json()


async def read_checkpoint(digest: str, dask_worker: Worker) -> bytes:
    """The bytes of a checkpoint that the node has told of; empty where there are none to be had."""
    agent = dask_worker.plugins.get(PLUGIN)
    return await asyncio.to_thread(agent.read, digest) if isinstance(agent, Agent) else b""


async def dismiss(coordinator: str, dask_worker: Worker) -> None:
    """End all processes that work for a coordinator."""
    agent = dask_worker.plugins.get(PLUGIN)
    if isinstance(agent, Agent):
        await agent.dismiss(coordinator)
