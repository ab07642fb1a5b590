"""Results at the gateway: those that come with a message, those that are streamed, and the inputs that nodes fetch."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from manybody.core.errors import CorruptResultError, StoreError
from manybody.core.task import Progress
from manybody.network.federation.authority import verify
from manybody.network.federation.blobs import Partial, RefusedBlobError, keep
from manybody.network.federation.guard import RefusedError
from manybody.network.federation.protocol import LENGTH_HEADER, OFFSET_HEADER, Accepted, Finish, Finished, claim
from manybody.store import queue
from manybody.store.members import Member
from manybody.store.objects import ObjectStore

SPARE = 8  # objects that an attempt may store beyond one an interval: its result, and what broke on the way
ATTEMPTS = 10_000  # whose objects are counted; the one that was silent longest is forgotten first
PIECE = 1 << 20  # bytes that go to the disk, or come from it, at once
REMEMBERED = 10_000  # inputs that were sent, of which it is known that they are asked for again


@dataclass
class Results:
    """Answers about results of at most `limit` bytes; `holds` finds the attempt for which a request is made.

    An attempt has one result and a checkpoint every `every_s` seconds; what it stores beyond some spare ones is refused.
    """

    objects: ObjectStore
    limit: int
    holds: Callable[[Request], Awaitable[queue.Queued]]
    every_s: float = 0.0
    _uploading: set[str] = field(default_factory=set)
    _stored: OrderedDict[str, tuple[float, set[str]]] = field(default_factory=OrderedDict)
    _intact: dict[str, tuple[int, int]] = field(default_factory=dict)
    _sent: set[tuple[str, str]] = field(default_factory=set)

    async def fetch(self, request: Request, digest: str) -> Response:
        """Send an input of an attempt that the node holds; in part where a range is asked for."""
        held = await self.holds(request)
        if digest not in (*held.inputs.values(), held.resumes):
            raise RefusedError(403, f"Expected an input of attempt {held.attempt}; got {digest[:80]}.")
        if (held.attempt, digest) in self._sent and "range" not in request.headers:
            self._intact.pop(digest, None)  # the node could not use what it got: the disk may have changed it since we looked
        if len(self._sent) >= REMEMBERED:
            self._sent.clear()
        self._sent.add((held.attempt, digest))
        file = await asyncio.to_thread(self._opened, digest)  # open: who sets the result aside now does not cut it short
        size = os.fstat(file.fileno()).st_size
        first = _first_byte(request)
        if first >= size > 0:
            file.close()
            return Response(status_code=416, headers={"content-range": f"bytes */{size}"})
        headers = {"content-length": str(size - first)}
        if first:
            headers["content-range"] = f"bytes {first}-{size - 1}/{size}"
        media_type = "application/octet-stream"
        return StreamingResponse(_pieces(file, first), 206 if first else 200, headers=headers, media_type=media_type)

    async def look(self, request: Request, digest: str) -> Response:
        """Tell how much of a result has come."""
        held = await self.holds(request)
        size = self.objects.size(_checked(digest))
        if size is not None:
            return Response(status_code=200, headers={OFFSET_HEADER: str(size)})
        return Response(status_code=404, headers={OFFSET_HEADER: str(Partial(self.objects, digest, held.attempt).size)})

    async def store(self, request: Request, digest: str) -> Response:
        """Take a result, or the rest of one."""
        held = await self.holds(request)
        partial = Partial(self.objects, _checked(digest), held.attempt)
        offset, length = _number(request, OFFSET_HEADER), _number(request, LENGTH_HEADER)
        if length > self.limit:
            raise RefusedError(413, f"Expected a result of at most {self.limit} bytes; got {length}.")
        self._count(held.attempt, digest)
        if partial.path.name in self._uploading:
            raise RefusedError(409, f"The result {digest} is being sent on another connection.")
        if offset > partial.size:
            raise RefusedError(409, f"Expected an offset of at most {partial.size}; got {offset}. Ask how much has come.")
        self._uploading.add(partial.path.name)
        try:
            came, rest = await self._gather(request, partial, offset, length)
            if came + len(rest) < length:
                raise RefusedError(400, f"Expected {length} bytes; got {came + len(rest)}. Go on from there.")
            if came == 0:
                await asyncio.to_thread(keep, self.objects, digest, rest)
                partial.drop()
            else:
                await asyncio.to_thread(partial.append, came, rest)
                await asyncio.to_thread(partial.accept)
        except RefusedBlobError as error:
            raise RefusedError(422, str(error)) from error
        finally:
            self._uploading.discard(partial.path.name)
        return Response(Accepted().model_dump_json(), media_type="application/json")

    async def _gather(self, request: Request, partial: Partial, offset: int, length: int) -> tuple[int, bytes]:
        """Write what comes to the partial file, all but the last piece; how far that reaches, and the last piece.

        Where less comes than should, all of it is written, to go on from.
        """
        gathered, whole = bytearray(), False
        pieces: AsyncIterator[bytes] = request.stream()
        try:
            async for piece in pieces:
                if offset + len(gathered) + len(piece) > length:
                    raise RefusedError(413, f"Expected {length} bytes, as announced; got more.")
                if len(gathered) >= PIECE:
                    await asyncio.to_thread(partial.append, offset, bytes(gathered))
                    offset += len(gathered)
                    gathered.clear()
                gathered += piece
            whole = offset + len(gathered) == length
        except ClientDisconnect:
            raise RefusedError(400, "The connection ended before the result did.") from None
        finally:
            if gathered and not whole:
                await asyncio.to_thread(partial.append, offset, bytes(gathered))
        return offset, bytes(gathered)

    def _count(self, attempt: str, digest: str) -> None:
        """Refuse an attempt that fills the disk with objects that nobody has asked for."""
        now = time.monotonic()
        first, stored = self._stored.setdefault(attempt, (now, set()))
        self._stored.move_to_end(attempt)
        while len(self._stored) > ATTEMPTS:
            self._stored.popitem(last=False)
        stored.add(digest)
        if self.every_s and len(stored) > SPARE + (now - first) / self.every_s:
            raise RefusedError(429, f"Expected an object of an attempt every {self.every_s:g} s at most; got {len(stored)}.")

    def _opened(self, digest: str) -> BinaryIO:
        """The open file of a result that is what its digest says; looked at once for each state of the file."""
        try:
            file = self.objects.path(digest).open("rb")
        except FileNotFoundError:
            raise RefusedError(
                404, f"No result {digest} in the store of the gateway. Run the study again to compute it."
            ) from None
        stat = os.fstat(file.fileno())
        if self._intact.get(digest) != (stat.st_mtime_ns, stat.st_size):
            intact = hashlib.file_digest(file, "sha256").hexdigest() == digest
            file.seek(0)
            if not intact:
                file.close()
                try:
                    self.objects.get(digest)  # sets it aside
                except (CorruptResultError, StoreError) as error:
                    raise RefusedError(404, str(error)) from error
                return self._opened(digest)  # it was replaced by an intact one meanwhile
            self._intact[digest] = (stat.st_mtime_ns, stat.st_size)
        return file


def receive(
    objects: ObjectStore, said: Finished, member: Member, version: int, refused: dict[str, tuple[int, str]]
) -> list[tuple[queue.Ended, str]]:
    """Verify results and store those that came along; those that are wrong go into `refused`."""
    ready = []
    for each in said.results:
        try:
            size = _store_one(objects, each, member, version)
        except RefusedBlobError as error:
            refused[each.attempt] = (422, str(error))
        except RefusedError as error:
            refused[each.attempt] = (error.status, error.problem)
        else:
            how = queue.Ended(
                each.attempt, "finished", each.worker, each.seconds, each.result, size,
                signature=each.signature, protocol=version, progress=progress_text(each.progress),
            )  # fmt: skip
            ready.append((how, each.task))
    return ready


def _store_one(objects: ObjectStore, said: Finish, member: Member, version: int) -> int:
    """Size of a result that is rightly signed and in the store."""
    if not verify(member.certificate, claim(said.attempt, said.task, said.result, member.name, version), said.signature):
        raise RefusedError(422, f"Expected the signature of {member.name} over this result; it does not verify.")
    if said.content:
        try:
            data = base64.b64decode(said.content, validate=True)
        except ValueError as error:
            raise RefusedError(422, f"Expected the result in base64; got {error}.") from error
        return keep(objects, said.result, data)
    size = objects.size(said.result)
    if size is None:
        raise RefusedError(404, f"Expected the result {said.result} to be stored first. Send it to /v1/objects.")
    return size


def progress_text(progress: Progress | None) -> str:
    """Progress as the queue keeps it."""
    return json.dumps(vars(progress)) if progress is not None else ""


def _first_byte(request: Request) -> int:
    """Where a node wants to go on: `Range: bytes=N-`. Any other range is answered with the whole, as HTTP permits."""
    found = re.fullmatch(r"bytes=(\d{1,18})-", request.headers.get("range", ""))
    return int(found[1]) if found else 0


async def _pieces(file: BinaryIO, first: int) -> AsyncIterator[bytes]:
    """What is in a file from a byte on; closes it."""
    with file:
        file.seek(first)
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece


def _checked(digest: str) -> str:
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise RefusedError(422, "Expected a digest of 64 hexadecimal digits.")
    return digest


def _number(request: Request, header: str) -> int:
    text = request.headers.get(header, "")
    if not text.isdecimal() or len(text) > 18:
        raise RefusedError(422, f"Expected a number of bytes as `{header}`; got `{text[:24]}`.")
    return int(text)
