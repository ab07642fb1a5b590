"""A node: pulls attempts from its gateway, runs them in worker processes, signs and sends the results.

One event loop. The workers are those of the embedded backend, whose descriptors the loop watches; everything else is
requests to the gateway. When the gateway is away, work goes on and its results wait until it is back.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from manybody.core.errors import ManybodyError, StoreError
from manybody.core.protocols import Event
from manybody.core.task import Progress
from manybody.network.federation.authority import sign
from manybody.network.federation.blobs import Partial, RefusedBlobError
from manybody.network.federation.client import AwayError, RefusedByGatewayError
from manybody.network.federation.leaving import Leaving
from manybody.network.federation.membership import Joined
from manybody.network.federation.protocol import (
    FINISH_LIMIT,
    INLINE_LIMIT,
    ORDERS_LIMIT,
    REASON_LIMIT,
    VERSIONS,
    Accepted,
    Advance,
    AskWork,
    Fail,
    Finish,
    Finished,
    Heartbeat,
    Held,
    Hello,
    Judged,
    Order,
    Report,
    Welcome,
    Work,
    claim,
)
from manybody.network.local import Embedded
from manybody.store.home import Home

T = TypeVar("T")
WAIT_S = 10.0  # how long a request for work may be kept open; below the idle limits of NATs, and soon noticed when cut
BEATS = 4  # heartbeats a lease: three may be lost
PROGRESS_S = 0.5  # at most two reports of progress a second
PAUSE_S, PAUSE_LIMIT_S = 0.2, 5.0  # between tries while the gateway is away, doubling
SHORT_S = 0.1  # tasks below this are held ready in advance, or the way to the gateway would outlast them
AHEAD_S = 0.3  # so many seconds of work in advance
FETCH_TRIES = 3
REST_S, REST_LIMIT_S = 2.0, 300.0  # without work after a fault of this machine (a full disk), doubling


@dataclass
class Job:
    """An attempt that this node has leased, on its way through."""

    order: Order
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    worker: str = ""
    progress: Progress | None = None
    task: asyncio.Task[None] | None = None
    leaving: Leaving | None = None


class Node:
    """Works under a membership until it is stopped, revoked, or cannot run anything."""

    def __init__(self, home: Home, joined: Joined, report: Report, say: Callable[[str], None] = print) -> None:
        self.home, self.joined, self.report, self.say = home, joined, report, say
        self._key = joined.key
        self._backend = Embedded(home.objects.root, report.workers, report.threads)
        self._jobs: dict[str, Job] = {}
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._outbox: asyncio.Queue[tuple[Finish, asyncio.Future[tuple[int, str] | None]]] = asyncio.Queue()
        self._room = asyncio.Event()
        self._stop = asyncio.Event()
        self._news = asyncio.Event()
        self._mean_s = 1.0
        self._lease_s = 15.0
        self._checkpoint_limit = 0
        self._rest_s = self._rest_until = 0.0
        self._fatal: BaseException | None = None

    def run(self) -> None:
        """Work until asked to stop. Raises `ManybodyError` where it cannot go on."""
        with self.joined.lock():
            asyncio.run(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        async with self.joined.client() as client:
            self._client = client
            loop.add_reader(self._backend.fileno(), self._guarded, self._hear)
            loops = [
                asyncio.create_task(self._keep(step))
                for step in (self._greet_then_pull, self._beat, self._send_results, self._watch_workers)
            ]
            await self._stop.wait()
            for task in loops + [job.task for job in self._jobs.values() if job.task]:
                task.cancel()
            loop.remove_reader(self._backend.fileno())
            self._backend.close()
            await self._hand_back()
        if self._fatal is not None:
            raise self._fatal

    async def _keep(self, step: Callable[[], Awaitable[None]]) -> None:
        """Run one of the loops; what ends it ends the node."""
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - re-raised by `_run` once all is put away
            self._fail(error)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except ManybodyError as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._fatal = self._fatal or error
        self._stop.set()

    # --- with the gateway --------------------------------------------------------------------------------------

    async def _greet_then_pull(self) -> None:
        """Agree on a version, say what this node has, then take work as there is room."""
        welcome = await self._persist(partial(self._client.ask, "/v1/hello", Hello(versions=VERSIONS), Welcome))
        self._client.version, self._lease_s = welcome.version, welcome.lease_s
        self._backend.checkpoint_s, self._checkpoint_limit = welcome.checkpoint_s, welcome.checkpoint_limit
        await self._persist(partial(self._client.ask, "/v1/node", self.report, Accepted))
        self.say(f"{self.joined.name} is ready: {self.report.workers} workers, gateway {self.joined.address}")
        while True:
            await asyncio.sleep(max(0.0, self._rest_until - time.monotonic()))
            free = self._depth() - len(self._jobs)
            if free <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            asked = AskWork(free=min(free, ORDERS_LIMIT), wait_s=WAIT_S, load=os.getloadavg()[0])
            work = await self._persist(partial(self._client.ask, "/v1/lease", asked, Work, WAIT_S + 5.0))
            for order in work.orders:
                job = self._jobs[order.attempt] = Job(order)
                job.task = asyncio.create_task(self._carry(job))

    def _depth(self) -> int:
        """How many attempts to hold: one a worker, and some in advance where they are short."""
        ahead = int(AHEAD_S / max(self._mean_s, 0.01)) if self._mean_s < SHORT_S else 0
        return self.report.workers * (1 + ahead)

    async def _beat(self) -> None:
        """Tell, several times a lease, what is being worked on, and drop what the gateway has given to others."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), self._lease_s / BEATS)
            self._news.clear()
            if not self._jobs:
                continue
            told = tuple(
                Advance(attempt=job.order.attempt, worker=job.worker, progress=job.progress) for job in self._jobs.values()
            )
            try:
                beat = Heartbeat(attempts=told[:ORDERS_LIMIT], load=os.getloadavg()[0])
                held = await self._client.ask("/v1/heartbeat", beat, Held)
            except AwayError:
                continue
            for each in told[:ORDERS_LIMIT]:
                job = self._jobs.get(each.attempt)
                if job is not None and each.attempt not in held.attempts:
                    self._drop(job)
            await asyncio.sleep(PROGRESS_S)

    def _drop(self, job: Job) -> None:
        """Stop work that is not ours any more."""
        self._backend.cancel(job.order.attempt)
        if job.task is not None:
            job.task.cancel()
        self._close(job)

    async def _persist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until the gateway answers; a refusal goes through."""
        pause = PAUSE_S
        while True:
            try:
                return await ask()
            except AwayError as error:
                if pause == PAUSE_S:
                    self.say(f"{self.joined.name}: {error} Trying again.")
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, PAUSE_LIMIT_S)

    async def _hand_back(self) -> None:
        """Give up what is held, so that others need not wait for its lease to end."""
        for job in self._jobs.values():
            worker = job.worker or self.joined.name
            gone = Fail(
                attempt=job.order.attempt, worker=worker, seconds=0.0, reason=f"node {self.joined.name} was stopped", lost=True
            )
            with contextlib.suppress(AwayError, RefusedByGatewayError):
                await self._client.ask("/v1/fail", gone, Accepted, patience_s=2.0)

    # --- with the workers --------------------------------------------------------------------------------------

    def _hear(self) -> None:
        """Pass the workers' events on to their jobs."""
        for event in self._backend.poll():
            job = self._jobs.get(event.attempt)
            if job is not None:
                job.events.put_nowait(event)

    async def _watch_workers(self) -> None:
        """Where the system has no descriptor for a process's death, look for it."""
        while True:
            await asyncio.sleep(1.0)
            self._hear()

    async def _carry(self, job: Job) -> None:
        """An attempt from lease to result."""
        try:
            await self._work(job)
        except RefusedByGatewayError as error:
            self.say(f"{self.joined.name}: {job.order.task.label}: {error}")
            self._backend.cancel(job.order.attempt)
            if error.status in (401, 403):
                self._fail(error)
        except ManybodyError as error:
            self._fail(error)
        self._close(job)

    async def _work(self, job: Job) -> None:
        order, prefix = job.order, f"{self.joined.name}/"
        try:
            for digest in sorted(set(order.inputs.values())):
                await self._fetch(order.attempt, digest)
        except (StoreError, RefusedBlobError) as error:
            self._rest(str(error))
            await self._give_up(job, str(error), lost=True)
            return
        except RefusedByGatewayError as error:
            if error.status != 404:
                raise
            await self._give_up(job, str(error), lost=False)
            return
        avoid = frozenset(name.removeprefix(prefix) for name in order.avoid if name.startswith(prefix))
        if order.checkpoint is None:
            self._backend.submit(order.attempt, order.task, order.inputs, avoid)
        else:
            job.leaving = Leaving(self._client, self.home.objects, self.joined, order, self._checkpoint_limit)
            checkpoint = await self._fetch_checkpoint(order.attempt, order.checkpoint)
            self._backend.submit_resumable(order.attempt, order.task, order.inputs, avoid, checkpoint)
        self._hear()
        deadline = time.monotonic() + order.deadline_s
        while True:
            event = await asyncio.wait_for(job.events.get(), max(0.0, deadline - time.monotonic()))
            job.worker = prefix + event.worker
            if event.kind in ("finished", "failed", "lost"):
                break
            job.progress = event.progress or job.progress
            if event.kind == "checkpoint" and job.leaving is not None:
                job.leaving.offer(replace(event, worker=job.worker))
            self._news.set()
        if job.leaving is not None and event.kind == "lost":
            await job.leaving.flush()  # before the attempt is given up: the next one goes on from there
        self._mean_s += 0.2 * (event.seconds - self._mean_s)
        if event.kind == "finished":
            self._rest_s = 0.0
            await self._deliver(job, event)
        else:
            if event.node_fault:
                self._rest(event.reason)
            lost = event.kind == "lost" or event.node_fault
            await self._give_up(job, event.reason, lost=lost, seconds=event.seconds)

    def _rest(self, reason: str) -> None:
        """Take no work for a while: what is wrong with this machine would spoil whatever comes next, too."""
        self._rest_s = min(max(REST_S, 2 * self._rest_s), REST_LIMIT_S)
        self._rest_until = time.monotonic() + self._rest_s
        self.say(f"{self.joined.name}: {reason} Resting for {self._rest_s:g} s.")

    async def _fetch(self, attempt: str, digest: str) -> None:
        """Have an input in the store, fetched once however many attempts need it."""
        if self.home.objects.has(digest):
            return
        fetching = self._fetching.get(digest)
        if fetching is None:
            fetching = self._fetching[digest] = asyncio.create_task(self._fetch_now(attempt, digest))
            fetching.add_done_callback(partial(self._fetched, digest))
        await asyncio.shield(fetching)

    def _fetched(self, digest: str, fetching: asyncio.Task[None]) -> None:
        """Forget a transfer that has ended; how it failed is no news where nobody waits for it any more."""
        self._fetching.pop(digest, None)
        if not fetching.cancelled():
            fetching.exception()

    async def _fetch_checkpoint(self, attempt: str, digest: str) -> str:
        """Have the checkpoint to go on from; one that is gone or spoilt means that the attempt begins anew: empty."""
        if digest:
            try:
                await self._fetch(attempt, digest)
            except (StoreError, RefusedBlobError, RefusedByGatewayError) as error:
                self.say(f"{self.joined.name}: {error} Attempt {attempt} begins anew.")
                return ""
        return digest

    async def _fetch_now(self, attempt: str, digest: str) -> None:
        part = Partial(self.home.objects, digest, self.joined.name)
        for tried in range(1, FETCH_TRIES + 1):
            try:
                await self._persist(partial(self._client.fetch, attempt, part))
                return
            except RefusedBlobError:  # damaged on the way, or an older piece: begin anew
                if tried == FETCH_TRIES:
                    raise

    async def _deliver(self, job: Job, event: Event) -> None:
        """Sign a result and have it sent: small ones along with the message, others ahead of it."""
        path = self.home.objects.path(event.result)
        content = ""
        if event.nbytes <= INLINE_LIMIT:
            content = base64.b64encode(path.read_bytes()).decode()
        else:
            await self._persist(partial(self._client.send, event.attempt, event.result, path))
        said = claim(event.attempt, event.task, event.result, self.joined.name, self._client.version)
        finish = Finish(
            attempt=event.attempt, task=event.task, result=event.result, worker=job.worker,
            seconds=event.seconds, signature=sign(self._key, said), progress=job.progress, content=content,
        )  # fmt: skip
        judged: asyncio.Future[tuple[int, str] | None] = asyncio.get_running_loop().create_future()
        self._outbox.put_nowait((finish, judged))
        refused = await judged
        if refused is not None:
            raise RefusedByGatewayError(*refused)

    async def _send_results(self) -> None:
        """Tell of what is finished; what finishes while a message is under way shares the next one."""
        while True:
            group = [await self._outbox.get()]
            while len(group) < FINISH_LIMIT and not self._outbox.empty():
                group.append(self._outbox.get_nowait())
            message = Finished(results=tuple(finish for finish, _ in group))
            answer = await self._persist(partial(self._client.ask, "/v1/finish", message, Judged))
            for finish, judged in group:
                if not judged.done():  # else its job was dropped meanwhile
                    judged.set_result(answer.refused.get(finish.attempt))

    async def _give_up(self, job: Job, reason: str, lost: bool, seconds: float = 0.0) -> None:
        """Say that an attempt gave no result."""
        worker = job.worker or self.joined.name
        reason = f"{worker}: {reason}" if lost else reason
        fail = Fail(
            attempt=job.order.attempt,
            worker=worker,
            seconds=seconds,
            reason=reason[:REASON_LIMIT],
            lost=lost,
            progress=job.progress,
        )
        await self._persist(partial(self._client.ask, "/v1/fail", fail, Accepted))

    def _close(self, job: Job) -> None:
        if job.leaving is not None:
            job.leaving.stop()
            if job.order.checkpoint:
                self.home.objects.remove(job.order.checkpoint)
        self._jobs.pop(job.order.attempt, None)
        self._room.set()
