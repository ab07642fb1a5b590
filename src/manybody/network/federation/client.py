"""How a member speaks to its gateway: one message, one answer; results in pieces, resumed after a break."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from manybody.network.federation.blobs import Partial
from manybody.network.federation.protocol import (
    ATTEMPT_HEADER,
    LENGTH_HEADER,
    OFFSET_HEADER,
    VERSION_HEADER,
    VERSIONS,
    Refusal,
    write,
)
from manybody.network.messages import BackendError

Answer = TypeVar("Answer", bound=BaseModel)
PIECE = 1 << 20  # bytes of a result that are read or written at a time
ANSWER_S = 10.0  # a gateway that does not answer a plain message for this long is taken to be away
REFUSED = range(400, 500)


class AwayError(BackendError):
    """The gateway does not answer, or cannot work now: worth another try."""


class RefusedByGatewayError(BackendError):
    """The gateway refuses what was asked. `status` is its HTTP status."""

    def __init__(self, status: int, problem: str) -> None:
        self.status = status
        super().__init__(problem)


class Client:
    """Requests to one gateway over kept-alive TLS connections. Use it as an async context manager."""

    def __init__(self, address: str, tls: ssl.SSLContext, version: int = VERSIONS[-1]) -> None:
        self.address, self.version = address, version
        self._tls = tls

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0, keepalive_timeout=60)
        self._session = aiohttp.ClientSession(self.address, connector=connector, auto_decompress=False)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()
        await asyncio.sleep(0)  # a TLS connection is only gone a turn of the loop after it was closed

    async def ask(self, path: str, message: BaseModel, answer: type[Answer], patience_s: float = ANSWER_S) -> Answer:
        """Send a message and parse the answer.

        Raises `AwayError` when there is none in time, `RefusedByGatewayError` when it is a refusal.
        """
        headers = self._headers() | {"content-type": "application/json"}
        limit = aiohttp.ClientTimeout(total=patience_s, connect=ANSWER_S)
        try:
            async with self._session.post(path, data=write(message, self.version), headers=headers, timeout=limit) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._away(error) from error
        self._check(response, body)
        try:
            return answer.model_validate_json(body)
        except ValidationError as error:
            raise AwayError(f"{self.address} answered {path} with {body[:80]!r}, which is no {answer.__name__}.") from error

    async def fetch(self, attempt: str, partial: Partial) -> None:
        """Get a result into a partial file, from where it stands, and accept it."""
        have = partial.size
        headers = self._headers(attempt) | ({"range": f"bytes={have}-"} if have else {})
        patience = aiohttp.ClientTimeout(total=None, connect=ANSWER_S, sock_read=ANSWER_S)
        try:
            async with self._session.get(f"/v1/objects/{partial.digest}", headers=headers, timeout=patience) as response:
                if response.status == 416:  # nothing is missing
                    await response.read()
                else:
                    if response.status not in (200, 206):
                        self._check(response, await response.read())
                    offset = have if response.status == 206 else 0
                    async for piece in response.content.iter_chunked(PIECE):
                        await asyncio.to_thread(partial.append, offset, piece)
                        offset += len(piece)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._away(error) from error
        await asyncio.to_thread(partial.accept)

    async def send(self, attempt: str, digest: str, path: Path) -> None:
        """Send a result, from where an earlier try ended."""
        size = path.stat().st_size
        patience = aiohttp.ClientTimeout(total=None, connect=ANSWER_S, sock_read=30 * ANSWER_S)
        try:
            offset = 0
            if size > PIECE:  # below that, asking costs more than sending
                async with self._session.head(f"/v1/objects/{digest}", headers=self._headers(attempt), timeout=patience) as there:
                    offset = int(there.headers.get(OFFSET_HEADER, "0"))
                    if there.status == 200:
                        return
            headers = self._headers(attempt) | {OFFSET_HEADER: str(offset), LENGTH_HEADER: str(size)}
            with path.open("rb") as file:
                file.seek(offset)
                body = file.read() if size - offset <= PIECE else file
                async with self._session.put(f"/v1/objects/{digest}", data=body, headers=headers, timeout=patience) as response:
                    answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._away(error) from error
        self._check(response, answer)

    def _headers(self, attempt: str = "") -> dict[str, str]:
        return {VERSION_HEADER: str(self.version)} | ({ATTEMPT_HEADER: attempt} if attempt else {})

    def _away(self, error: BaseException) -> AwayError:
        return AwayError(f"The gateway {self.address} does not answer: {type(error).__name__} {error}.".rstrip())

    def _check(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        if response.status == 200:
            return
        try:
            problem = Refusal.model_validate_json(body).problem
        except ValidationError:
            problem = body[:200].decode(errors="replace")
        if response.status in REFUSED and response.status not in (408, 429):
            raise RefusedByGatewayError(response.status, problem)
        raise AwayError(f"The gateway {self.address} cannot now (status {response.status}): {problem}")
