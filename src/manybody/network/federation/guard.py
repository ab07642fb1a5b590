"""What every request passes before anything of its body is read: identity, role, version, rate, size."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from manybody.core.errors import ManybodyError
from manybody.network.federation.connection import PEER
from manybody.network.federation.protocol import MESSAGE_LIMIT, VERSION_HEADER, VERSIONS
from manybody.store.members import Member

MEMBER = "manybody.member"  # key of the scope: the member that asks
VERSION = "manybody.version"  # key of the scope: the protocol version of the request
JOIN = "/v1/join"
WITHOUT_VERSION = (JOIN, "/v1/hello")  # where versions are only being agreed on
FOR_NODES = ("/v1/node", "/v1/lease", "/v1/heartbeat", "/v1/finish", "/v1/fail", "/v1/checkpoint", "/v1/objects/")
OBJECTS = "/v1/objects/"
LINGER_S = 1.0  # how long the rest of a refused body is thrown away
STALL_S = 30.0  # a body that has not come on for this long will not come


class RefusedError(ManybodyError):
    """A request is refused: `status` for the program, `problem` for the person."""

    def __init__(self, status: int, problem: str, **headers: str) -> None:
        self.status, self.problem, self.headers = status, problem, headers
        super().__init__(problem)


@dataclass
class Bucket:
    """A token bucket: `rate` requests a second on average, `burst` at once."""

    rate: float
    burst: float
    tokens: float = field(init=False)
    filled: float = field(init=False)

    def __post_init__(self) -> None:
        self.tokens, self.filled = self.burst, time.monotonic()

    def wait_s(self) -> float:
        """Take a token: 0 where there was one, else how long until there is."""
        now = time.monotonic()
        self.tokens = min(self.burst, self.tokens + (now - self.filled) * self.rate)
        self.filled = now
        if self.tokens >= 1.0:
            self.tokens -= 1.0
            return 0.0
        return (1.0 - self.tokens) / self.rate


@dataclass(frozen=True)
class Limits:
    """What a caller may ask of a gateway: requests a second and at once, bytes of a result and of a checkpoint."""

    rate: float = 500.0
    burst: float = 1000.0
    join_rate: float = 10.0
    join_burst: float = 200.0
    object_bytes: int = 1 << 36
    checkpoint_bytes: int = 1 << 32
    callers: int = 10_000  # whose buckets are remembered; the one that was silent longest is forgotten first


class Guard:
    """Refuses what must not reach the gateway. `find` looks a member up by the fingerprint of its certificate."""

    def __init__(self, app: ASGIApp, find: Callable[[str], Awaitable[Member | None]], limits: Limits) -> None:
        self.app, self.find, self.limits = app, find, limits
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with a refusal."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(receive, self._limit(scope))
        try:
            await self._admit(scope)
            await self.app(scope, body.receive, send)
        except RefusedError as refused:
            await Goodbye(refused)(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        await self._identify(scope)
        if scope["path"] not in WITHOUT_VERSION:
            asked = headers.get(VERSION_HEADER, "")
            if asked not in {str(version) for version in VERSIONS}:
                spoken = ", ".join(map(str, VERSIONS))
                raise RefusedError(426, f"Expected a `{VERSION_HEADER}` header of {spoken}; got `{asked[:20]}`. Say hello first.")
            scope[VERSION] = int(asked)
        length = headers.get("content-length", "0")
        limit = self._limit(scope)
        if not length.isdecimal() or len(length) > 20 or int(length) > limit:
            raise RefusedError(413, f"Expected a body of at most {limit} bytes; got {length[:24]}.")

    async def _identify(self, scope: Scope) -> None:
        path, peer = scope["path"], scope[PEER]
        if path == JOIN:
            host = scope["client"][0] if scope["client"] else ""
            self._slow_down(f"join {host}", self.limits.join_rate, self.limits.join_burst)
            return
        member = await self.find(peer) if peer else None
        if member is None:
            raise RefusedError(
                401, "Expected the certificate of a member; got " + ("an unknown one." if peer else "none. Join first.")
            )
        if member.revoked is not None:
            raise RefusedError(
                403, f"The certificate of {member.name} has been revoked: {member.reason}. Ask for a new invitation."
            )
        if member.role != "node" and path.startswith(FOR_NODES):
            raise RefusedError(403, f"Expected a node; {member.name} joined as {member.role}. Ask for an invitation as a node.")
        self._slow_down(peer, self.limits.rate, self.limits.burst)
        scope[MEMBER] = member

    def _slow_down(self, caller: str, rate: float, burst: float) -> None:
        bucket = self._buckets.setdefault(caller, Bucket(rate, burst))
        self._buckets.move_to_end(caller)
        while len(self._buckets) > self.limits.callers:
            self._buckets.popitem(last=False)
        wait = bucket.wait_s()
        if wait:
            told = f"Expected at most {rate:g} requests a second; more came. Ask again in {wait:.2f} s."
            raise RefusedError(429, told, **{"retry-after": str(max(1, round(wait)))})

    def _limit(self, scope: Scope) -> int:
        is_result = scope["path"].startswith(OBJECTS) and scope["method"] == "PUT"
        return self.limits.object_bytes if is_result else MESSAGE_LIMIT


class _Body:
    """A request's body, counted and timed as it is read."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit = receive, limit
        self._read, self._whole = 0, False

    async def receive(self) -> Message:
        """The next piece. Raises `RefusedError` where there is too much, or nothing comes any more."""
        if self._whole:
            return await self._receive()  # only the end of the connection can follow
        try:
            message = await asyncio.wait_for(self._receive(), STALL_S)
        except TimeoutError:
            raise RefusedError(408, f"Expected the rest of the body within {STALL_S:g} s; got {self._read} bytes.") from None
        self._read += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._read > self._limit:
            raise RefusedError(413, f"Expected a body of at most {self._limit} bytes; got more.")
        return message


class Goodbye(Response):
    """A refusal of a request whose body has not been read: answered at once, then the connection closes.

    What is still coming is thrown away for a moment, because closing on it would make TCP discard the answer too.
    """

    def __init__(self, refused: RefusedError) -> None:
        content = json.dumps({"problem": refused.problem})
        super().__init__(content, refused.status, refused.headers | {"connection": "close"}, "application/json")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, linger, close."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(TimeoutError, RefusedError):
            async with asyncio.timeout(LINGER_S):
                while (await receive()).get("more_body", False):
                    pass
        await send({"type": "http.response.body", "body": b""})
