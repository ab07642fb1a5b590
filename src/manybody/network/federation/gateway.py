"""The gateway: what it answers to each request. Nodes pull from it; it never calls them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter
from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.responses import Response

from manybody.core.errors import StoreError
from manybody.network.federation.authority import Authority, fingerprint, parse_request, pem
from manybody.network.federation.checkpoints import Checkpoints
from manybody.network.federation.exchange import answer, parsed
from manybody.network.federation.guard import MEMBER, VERSION, Goodbye, Guard, Limits, RefusedError
from manybody.network.federation.protocol import (
    ATTEMPT_HEADER,
    JOINING,
    VERSIONS,
    Accepted,
    AskAuthority,
    AskMembership,
    AskWork,
    Fail,
    Finished,
    Heartbeat,
    Held,
    Hello,
    Judged,
    Leave,
    Membership,
    Order,
    Report,
    Welcome,
    Work,
    common_version,
)
from manybody.network.federation.protocol import Authority as AuthorityMessage
from manybody.network.federation.results import Results, progress_text, receive
from manybody.network.federation.room import Room, machine_of
from manybody.network.federation.writer import Writer
from manybody.store import members, queue
from manybody.store.database import Database
from manybody.store.members import Member
from manybody.store.objects import ObjectStore

T = TypeVar("T")
EARLY = 0.5  # a checkpoint sooner than so many intervals after the last one is refused: clocks and networks are not exact
GREET_S = 1.0  # a member that was heard so lately need not be noted again, where there is nothing else to write
IDENTITY_S = 0.25  # how long a member is taken to be what it was when last looked up; a lease always looks again


@dataclass(frozen=True)
class Settings:
    """How a gateway works: seconds a lease lasts without a heartbeat, and between checkpoints of a task; what callers may ask."""

    lease_s: float = 15.0
    checkpoint_s: float = 60.0
    limits: Limits = field(default_factory=Limits)

    @property
    def alive_s(self) -> float:
        """How long after it was last heard a node counts as there."""
        return 2 * self.lease_s


@dataclass
class Gateway:
    """The answers of one gateway over one ledger. `waiters` are long polls to be woken when there is work."""

    database: Database
    objects: ObjectStore
    authority: Authority
    settings: Settings
    writer: Writer
    waiters: set[asyncio.Event] = field(default_factory=set)
    _known: dict[str, tuple[float, Member | None]] = field(default_factory=dict)

    def app(self) -> Guard:
        """The application, guarded."""
        limits, every_s = self.settings.limits, self.settings.checkpoint_s
        results = Results(self.objects, limits.object_bytes, self.holds, every_s * EARLY)
        checkpoints = Checkpoints(self.objects, limits.checkpoint_bytes, every_s * EARLY, self.writer)
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        for path, handler in (
            ("/v1/join", self.join), ("/v1/hello", self.hello), ("/v1/node", self.describe), ("/v1/lease", self.lease),
            ("/v1/heartbeat", self.heartbeat), ("/v1/finish", self.finish), ("/v1/fail", self.fail), ("/v1/leave", self.leave),
            ("/v1/checkpoint", checkpoints.keep),
        ):  # fmt: skip
            app.add_api_route(path, handler, methods=["POST"], response_model=None)
        app.add_api_route("/v1/objects/{digest}", results.fetch, methods=["GET"], response_model=None)
        app.add_api_route("/v1/objects/{digest}", results.look, methods=["HEAD"], response_model=None)
        app.add_api_route("/v1/objects/{digest}", results.store, methods=["PUT"], response_model=None)
        app.add_exception_handler(HTTPException, _not_here)
        app.add_exception_handler(RequestValidationError, _not_here)
        app.add_exception_handler(StoreError, _no_room)
        app.add_exception_handler(RefusedError, _refused)
        return Guard(app, self.find, limits)

    async def find(self, peer: str, fresh: bool = False) -> Member | None:
        """The member with this certificate, as it was at most `IDENTITY_S` ago."""
        now = time.monotonic()
        looked, member = self._known.get(peer, (-1.0, None))
        if fresh or now - looked > IDENTITY_S:
            member = await self.read(lambda connection: members.find(connection, peer))
            if len(self._known) > self.settings.limits.callers:
                self._known.clear()
            self._known[peer] = (now, member)
        return member

    # --- joining -----------------------------------------------------------------------------------------------

    async def join(self, request: Request) -> Response:
        """Show the authority, or sign the key of somebody invited."""
        asked = await parsed(request, JOINING)
        if isinstance(asked, AskAuthority):
            return answer(AuthorityMessage(certificate=pem(self.authority.certificate).decode()))
        signing = parse_request(asked.request)
        if signing is None:
            raise RefusedError(422, "Expected a signing request for a P-256 key, in PEM; got something else.")

        def admit(connection: Connection, asked: AskMembership = asked) -> Membership:
            role = members.redeem(connection, asked.token)
            if role is None:
                raise RefusedError(403, "Expected an invitation that is neither used nor expired. Ask for a new one.")
            name = members.free_name(connection, asked.name)
            certificate = self.authority.sign_member(signing, name)
            text = pem(certificate).decode()
            members.admit(connection, name, role, fingerprint(certificate), text)
            return Membership(name=name, role=role, certificate=text)

        return answer(await self.writer.do(admit))

    async def hello(self, request: Request) -> Response:
        """Agree on a version."""
        asked = await parsed(request, TypeAdapter(Hello))
        version = common_version(asked.versions)
        if version is None:
            ours = ", ".join(map(str, VERSIONS))
            raise RefusedError(426, f"Expected a protocol version of {ours}; got {asked.versions}. Upgrade the older side.")
        member: Member = request.scope[MEMBER]
        limits = self.settings.limits
        welcome = Welcome(
            version=version, name=member.name, role=member.role, lease_s=self.settings.lease_s,
            object_limit=limits.object_bytes, checkpoint_s=self.settings.checkpoint_s, checkpoint_limit=limits.checkpoint_bytes,
        )  # fmt: skip
        return answer(welcome, version)

    async def describe(self, request: Request) -> Response:
        """Take what a node says of itself as it starts; what it held before, in another life, is taken back."""
        report = await parsed(request, TypeAdapter(Report))
        member: Member = request.scope[MEMBER]

        def keep(connection: Connection) -> None:
            queue.give_back(connection, member.id, f"node {member.name} has started anew")
            members.describe(connection, member.id, report.model_dump_json())

        await self.writer.do(keep)
        self._known.pop(member.fingerprint, None)
        return answer(Accepted())

    async def leave(self, request: Request) -> Response:
        """Let a member go: its certificate counts no more."""
        await parsed(request, TypeAdapter(Leave))
        member: Member = request.scope[MEMBER]
        await self.writer.do(lambda connection: members.shut_out(connection, member.id, "it has left"))
        self._known.pop(member.fingerprint, None)
        return answer(Accepted())

    # --- attempts ----------------------------------------------------------------------------------------------

    async def lease(self, request: Request) -> Response:
        """Give out work, waiting for it if need be."""
        asked = await parsed(request, TypeAdapter(AskWork))
        member: Member = request.scope[MEMBER]
        until = time.monotonic() + asked.wait_s
        news = asyncio.Event()
        self.waiters.add(news)  # before the first look: what is queued after it wakes us
        try:
            while True:
                news.clear()
                orders = await self._take(member.fingerprint, asked)
                left = until - time.monotonic()
                if orders or left <= 0 or not await _is_awaited(news, left) or await request.is_disconnected():
                    return answer(Work(orders=tuple(orders)), request.scope[VERSION])
        finally:
            self.waiters.discard(news)

    async def _take(self, peer: str, asked: AskWork) -> list[Order]:
        """Lease what there is to a member, looked up again: it may have been revoked while it waited."""
        member = await self.find(peer, fresh=True)
        if member is None or member.revoked is not None:
            raise RefusedError(403, "The certificate has been revoked.")
        report = _report(member.report)
        if report is None:
            raise RefusedError(409, "Expected a report of what this node has. Send it to /v1/node first.")
        if abs(time.time() - (member.seen or 0.0)) < GREET_S and not await self.read(queue.is_anything_waiting):
            return []  # what is queued from now on wakes the waiting
        methods = [(name, method.version) for name, method in report.methods.items()]
        lease_s = self.settings.lease_s

        def take(connection: Connection) -> list[queue.Queued]:
            members.greet(connection, member.id, time.time(), asked.load)
            room = Room(machine_of(report), lambda: queue.held(connection, member.id))
            return queue.lease(
                connection, member.id, member.name, methods, asked.free, lease_s, self.settings.alive_s, room.admits
            )

        return [
            Order(
                attempt=each.attempt, task=each.task, inputs=dict(each.inputs), avoid=tuple(sorted(each.avoid)),
                lease_s=lease_s, deadline_s=each.deadline_s, checkpoint=self._usable(each.resumes),
            )
            for each in await self.writer.do(take)
        ]  # fmt: skip

    def _usable(self, checkpoint: str | None) -> str | None:
        """A checkpoint, where it is still there; without one an attempt begins anew."""
        return "" if checkpoint and not self.objects.has(checkpoint) else checkpoint

    async def heartbeat(self, request: Request) -> Response:
        """Prolong leases and note progress."""
        beat = await parsed(request, TypeAdapter(Heartbeat))
        member: Member = request.scope[MEMBER]
        told = {each.attempt: (each.worker, progress_text(each.progress)) for each in beat.attempts}

        def prolong(connection: Connection) -> set[str]:
            members.greet(connection, member.id, time.time(), beat.load)
            return queue.prolong(connection, member.id, told, self.settings.lease_s)

        return answer(Held(attempts=tuple(sorted(await self.writer.do(prolong)))))

    async def finish(self, request: Request) -> Response:
        """Take results: each signed, in the store, by the holder of its lease. One that is refused spoils no other."""
        said = await parsed(request, TypeAdapter(Finished))
        member: Member = request.scope[MEMBER]
        version: int = request.scope[VERSION]
        refused: dict[str, tuple[int, str]] = {}
        ready = await asyncio.to_thread(receive, self.objects, said, member, version, refused)

        def end(connection: Connection) -> None:
            members.greet(connection, member.id, time.time())
            for how, task in ready:
                if not queue.end(connection, member.id, how, task):
                    refused[how.attempt] = (409, f"Attempt {how.attempt} is not leased to {member.name} any more. Drop it.")

        await self.writer.do(end)
        return answer(Judged(refused=refused))

    async def fail(self, request: Request) -> Response:
        """Take word that an attempt gave no result."""
        said = await parsed(request, TypeAdapter(Fail))
        member: Member = request.scope[MEMBER]
        how = queue.Ended(
            said.attempt, "lost" if said.lost else "failed", said.worker, said.seconds,
            reason=said.reason, progress=progress_text(said.progress),
        )  # fmt: skip
        await self._end(member, how)
        return answer(Accepted())

    async def _end(self, member: Member, how: queue.Ended) -> None:
        def end(connection: Connection) -> bool:
            members.greet(connection, member.id, time.time())
            return queue.end(connection, member.id, how)

        if not await self.writer.do(end):
            raise RefusedError(409, f"Attempt {how.attempt} is not leased to {member.name} any more. Drop it.")

    async def holds(self, request: Request) -> queue.Queued:
        """The attempt that a request names, which its member must hold."""
        member: Member = request.scope[MEMBER]
        attempt = request.headers.get(ATTEMPT_HEADER, "")
        held = await self.read(lambda connection: queue.holds(connection, member.id, attempt))
        if held is None:
            raise RefusedError(409, f"Expected, as `{ATTEMPT_HEADER}`, an attempt leased to {member.name}; got `{attempt[:80]}`.")
        return held

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Ask the ledger something, off the event loop."""

        def read() -> T:
            with self.database.reading() as connection:
                return query(connection)

        return await asyncio.to_thread(read)


async def _is_awaited(news: asyncio.Event, seconds: float) -> bool:
    """Whether news came within some seconds."""
    try:
        await asyncio.wait_for(news.wait(), seconds)
    except TimeoutError:
        return False
    return True


@lru_cache(maxsize=1024)
def _report(text: str) -> Report | None:
    return Report.model_validate_json(text) if text else None


async def _refused(request: Request, error: Exception) -> Response:
    """Say why not; where the body may not have been read, close."""
    assert isinstance(error, RefusedError)
    if request.method == "PUT" or error.status in (408, 413):
        return Goodbye(error)
    return Response(json.dumps({"problem": error.problem}), error.status, error.headers, media_type="application/json")


async def _not_here(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 422
    return Response(json.dumps({"problem": "There is nothing of this name and method."}), status, media_type="application/json")


async def _no_room(request: Request, error: Exception) -> Response:
    return Response(json.dumps({"problem": str(error)}), 507, media_type="application/json")
