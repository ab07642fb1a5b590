"""The line to a Dask scheduler: an event loop in a thread of its own, which turns all that happens into messages.

The engine notices a killed worker at once, a frozen one only after minutes, and its client waits long for a scheduler
that is gone. So workers and scheduler are watched here: whoever is silent for too long is taken for lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from distributed import Client, Future, Security
from distributed.client import FutureCancelledError

from manybody.core.errors import ManybodyError
from manybody.core.protocols import Event
from manybody.network.cluster_agent import TOPIC, News, Order, carry_out, dismiss, enlist, read_checkpoint
from manybody.network.cluster_placement import Node
from manybody.network.federation.blobs import keep
from manybody.network.federation.protocol import Report
from manybody.network.messages import BackendError
from manybody.store.objects import ObjectStore

WATCH_S = 1.0  # between looks at the scheduler's list of workers; news of it come sooner
REACH_S = 3.0  # for a direct connection to a worker
GOODBYE_S = 5.0  # how long closing may wait for the other side
SEND_S = 0.002  # between messages to the scheduler, as between its own; a client's 10 ms outlast a short task


@dataclass(frozen=True)
class Parcel:
    """An order on its way to a node, with the bytes of the inputs that the node lacks."""

    order: Order
    address: str
    data: dict[str, bytes]
    resources: dict[str, float]
    priority: float


@dataclass(frozen=True)
class Told:
    """News of a running attempt."""

    news: News


@dataclass(frozen=True)
class Answered:
    """What came of an attempt; its result is in the store by then, unless `fault` says why not."""

    attempt: str
    news: News
    fault: ManybodyError | None = None


@dataclass(frozen=True)
class Broken:
    """An attempt of which nothing will be heard any more."""

    attempt: str
    reason: str


@dataclass(frozen=True)
class Joined:
    """A worker that has come, as a node; or why it cannot be one."""

    node: Node | None
    address: str
    reason: str = ""


@dataclass(frozen=True)
class Gone:
    """A worker that has left, died, or fallen silent."""

    address: str
    reason: str


@dataclass(frozen=True)
class Cut:
    """The scheduler is gone, and with it all that was asked of it."""

    reason: str


Message = Told | Answered | Broken | Joined | Gone | Cut


@dataclass
class Line:
    """A connection to a scheduler. Made by `open`; what is heard is in `heard`; it is of no use after a `Cut`."""

    address: str
    security: Security | None
    objects: ObjectStore
    coordinator: str
    patience_s: float
    silence_s: float
    expected: int = 1
    heard: queue.SimpleQueue[Message] = field(default_factory=queue.SimpleQueue)

    def open(self) -> list[Joined]:
        """Connect, wait for as many workers as are expected (one at least), and make every worker a node.

        Raises `BackendError` where that fails.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="manybody cluster line", daemon=True)
        self._thread.start()
        self._known: dict[str, tuple[float, float]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._sent_to: dict[str, str] = {}
        self._pulling: set[str] = set()
        self._stirred = asyncio.Event()
        try:
            found: list[Joined] = self._wait(self._open())
        except BaseException:
            self.close()
            raise
        return found

    def send(self, parcel: Parcel) -> None:
        """Send an order; the answer is heard later."""
        self._soon(lambda: self._start(parcel))

    def drop(self, attempt: str) -> None:
        """Want an attempt no more; its node notices."""
        self._soon(lambda: self._stop(attempt))

    def close(self) -> None:
        """End what the nodes compute for this coordinator, then the connection."""
        if not self._loop.is_closed():
            self._wait(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    # --- within the loop -----------------------------------------------------------------------------------------

    async def _open(self) -> list[Joined]:
        # What the client logs of a lost scheduler, a traceback, is told by `Cut` in words.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        self._jobs: set[asyncio.Task[None]] = set()
        start = time.monotonic()
        try:
            self._client = await Client(  # type: ignore[no-untyped-call]  # the package's types end here
                self.address, security=self.security, asynchronous=True, timeout=self.patience_s, set_as_default=False,
                name="manybody",
            )  # fmt: skip
            self._client.scheduler_comm.interval = SEND_S
            self._client.subscribe_topic(TOPIC, self._hear)
            self._client.subscribe_topic("all", self._stir)
            workers = await self._workers()
            while len(workers) < self.expected and time.monotonic() - start < self.patience_s:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stirred.wait(), WATCH_S)
                self._stirred.clear()
                workers = await self._workers()
        except (OSError, ValueError) as error:  # no connection; no TLS, or with other certificates
            raise BackendError(f"No connection to the scheduler at {self.address}: {error}. {_REMEDY}") from error
        if not workers:
            remedy = "Start workers with `dask worker`, or have the batch system start them."
            raise BackendError(f"The scheduler at {self.address} has had no worker for {self.patience_s:g} s. {remedy}")
        self._client.direct_to_workers = await self._reaches(next(iter(workers)))
        joined = await asyncio.gather(*(self._enlist(address, told) for address, told in workers.items()))
        self._background(self._watch())
        return joined

    async def _reaches(self, address: str) -> bool:
        """Whether workers can be reached from here; else inputs and results take the way through the scheduler."""
        try:
            await asyncio.wait_for(self._client.rpc(address).identity(), REACH_S)
        except (OSError, TimeoutError):
            return False
        return True

    async def _close(self) -> None:
        for attempt in list(self._tasks):
            self._stop(attempt)
        for job in list(self._jobs):
            job.cancel()
        client = getattr(self, "_client", None)
        if client is not None:
            with contextlib.suppress(OSError, TimeoutError):
                if client.status == "running" and self._known:
                    goodbye = client.run(dismiss, self.coordinator, workers=list(self._known), on_error="ignore")
                    await asyncio.wait_for(goodbye, GOODBYE_S)
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(client.close(GOODBYE_S), 2 * GOODBYE_S)

    async def _workers(self) -> dict[str, dict[str, Any]]:
        """The scheduler's list of workers by address."""
        told = await asyncio.wait_for(self._client.scheduler.identity(n_workers=-1), self.silence_s)
        return {address: worker for address, worker in told["workers"].items() if worker["status"] in ("running", "paused")}

    async def _watch(self) -> None:
        """Notice who comes, who goes, and who has fallen silent, until the scheduler itself is gone."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), WATCH_S)
            self._stirred.clear()
            try:
                workers = await self._workers()
            except (OSError, TimeoutError) as error:
                self.heard.put(Cut(f"the scheduler at {self.address} is gone or frozen ({type(error).__name__}: {error})"))
                return
            for address in [address for address in self._known if address not in workers]:
                del self._known[address]
                self.heard.put(Gone(address, "its machine or its Dask worker has ended"))
            for address, told in workers.items():
                if address not in self._known:
                    self.heard.put(await self._enlist(address, told))
                elif self._is_silent(address, told["last_seen"]):
                    await self._retire(address, f"nothing was heard of it for {self.silence_s:g} s: it is frozen or cut off")

    def _is_silent(self, address: str, seen: float) -> bool:
        """Whether a worker's heartbeat has stood still for too long, by our own clock alone."""
        before, since = self._known[address]
        if seen != before:
            self._known[address] = (seen, time.monotonic())
            return False
        return time.monotonic() - since > self.silence_s

    async def _retire(self, address: str, reason: str) -> None:
        """Have the scheduler forget a worker without asking it, for it does not answer."""
        self._known.pop(address, None)
        self.heard.put(Gone(address, reason))
        with contextlib.suppress(OSError, TimeoutError):
            forget = self._client.scheduler.unregister(address=address, stimulus_id=f"manybody-{time.time()}")
            await asyncio.wait_for(forget, self.silence_s)

    async def _enlist(self, address: str, told: dict[str, Any]) -> Joined:
        """Make a worker a node."""
        self._known[address] = (told["last_seen"], time.monotonic())
        try:
            asked = self._client.run(enlist, workers=[address], on_error="return")
            answer = (await asyncio.wait_for(asked, self.patience_s)).get(address)
        except (OSError, TimeoutError) as error:
            answer = error
        name = str(told["name"])
        if isinstance(answer, ImportError | AttributeError):
            remedy = "Install the same release of manybody in the environment of the Dask workers."
            return Joined(None, address, f"{name} cannot load manybody's agent ({answer}). {remedy}")
        if not isinstance(answer, str):
            return Joined(None, address, f"{name} did not become a node: {answer!r}")
        report = Report.model_validate_json(answer)
        node = Node(
            name=name, address=address, host=str(told["host"]), cores=told["nthreads"], memory=told["memory_limit"] or 0,
            declared=told["resources"], report=report,
        )  # fmt: skip
        return Joined(node, address)

    async def _carry(self, parcel: Parcel) -> None:
        """Send the inputs, then the order; wait for the answer."""
        attempt = parcel.order.attempt
        try:
            data = {digest: await self._scatter(content, parcel.address) for digest, content in parcel.data.items()}
            future = self._client.submit(
                carry_out, parcel.order.model_dump_json(), data, key=f"manybody-{attempt}-{time.monotonic_ns()}", pure=False,
                workers=[parcel.address], allow_other_workers=False, retries=0, priority=parcel.priority,
                resources=parcel.resources or None,
            )  # fmt: skip
            text, result = await future
        except FutureCancelledError as error:
            if error.reason == "scheduler-connection-lost":
                self.heard.put(Cut(f"the scheduler at {self.address} has ended"))
            self.heard.put(Broken(attempt, f"the scheduler let go of it ({error.reason})"))
        except Exception as error:  # noqa: BLE001 - whatever the engine raises for a task of its own is no result
            self.heard.put(Broken(attempt, f"{type(error).__name__}: {error}"))
        else:
            news = News.model_validate_json(text)
            self.heard.put(Answered(attempt, news, await asyncio.to_thread(self._keep, news, result)))
        self._tasks.pop(attempt, None)

    def _keep(self, news: News, data: bytes) -> ManybodyError | None:
        """Put a result into the store, verified, in a thread: disks are slow, and several write side by side."""
        if news.event is not None and news.event.result:
            try:
                keep(self.objects, news.event.result, data)
            except ManybodyError as error:
                return error
        return None

    async def _scatter(self, content: bytes, address: str) -> Future[bytes]:
        """Bytes in the memory of one worker, until the future is let go."""
        [future] = await self._client.scatter([content], workers=[address], hash=False)
        assert isinstance(future, Future)
        return future

    async def _pull(self, event: Event, address: str) -> None:
        """Have a checkpoint in the store, then tell of it. One that does not come is not missed: there will be others."""
        asked = self._client.run(read_checkpoint, event.result, workers=[address], on_error="return")
        try:
            data = (await asyncio.wait_for(asked, self.patience_s)).get(address)
        except (OSError, TimeoutError):  # its node is gone or slow
            return
        finally:
            self._pulling.discard(event.attempt)
        news = News(event=event)
        if isinstance(data, bytes) and data and await asyncio.to_thread(self._keep, news, data) is None:
            self.heard.put(Told(news))

    def _start(self, parcel: Parcel) -> None:
        self._sent_to[parcel.order.attempt] = parcel.address
        self._tasks[parcel.order.attempt] = self._loop.create_task(self._carry(parcel))

    def _stop(self, attempt: str) -> None:
        self._sent_to.pop(attempt, None)
        task = self._tasks.pop(attempt, None)
        if task is not None:
            task.cancel()  # which drops the future, so that the scheduler lets go of the task

    def _hear(self, event: tuple[float, dict[str, str]]) -> None:
        """What agents tell."""
        _, message = event
        if message["coordinator"] != self.coordinator:
            return
        news = News.model_validate_json(message["news"])
        if news.event is None or news.event.kind != "checkpoint":
            self.heard.put(Told(news))
        elif news.event.attempt in self._sent_to and news.event.attempt not in self._pulling:
            self._pulling.add(news.event.attempt)
            self._background(self._pull(news.event, self._sent_to[news.event.attempt]))

    def _stir(self, event: tuple[float, dict[str, Any]]) -> None:
        """The scheduler has news of its workers: look at once."""
        if event[1].get("action") in ("add-worker", "remove-worker"):
            self._stirred.set()

    def _background(self, job: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._end)

    def _end(self, job: asyncio.Task[None]) -> None:
        """A job that fails for a reason nobody thought of must not leave the line looking alive."""
        self._jobs.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None:
            self.heard.put(Cut(f"watching the scheduler at {self.address} failed: {type(error).__name__}: {error}"))

    # --- into the loop -------------------------------------------------------------------------------------------

    def _soon(self, action: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(action)

    def _wait(self, job: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(job, self._loop).result()


_REMEDY = "Check the address, that the scheduler runs, and that the certificates are those that it was started with."
