"""Inputs that the gateway sends: whole, or from a byte on, whatever becomes of the file meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from manybody.core.task import Output
from manybody.network.federation.guard import RefusedError
from manybody.network.federation.results import Results
from manybody.store.objects import ObjectStore


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "objects")


@pytest.fixture
def digest(objects: ObjectStore) -> str:
    return objects.put(Output({"x": np.arange(300_000.0)})).digest  # more than two pieces


def fetch(objects: ObjectStore, digest: str, asked: str = "") -> Response:
    """What an attempt with this input gets."""

    async def holds(request: Request) -> SimpleNamespace:
        return SimpleNamespace(attempt="a", inputs={"state": digest}, resumes="")

    headers = [(b"range", asked.encode())] if asked else []
    request = Request({"type": "http", "method": "GET", "path": "/", "headers": headers})
    return asyncio.run(Results(objects, 1 << 30, holds).fetch(request, digest))


def body(response: Response) -> bytes:
    """All that is sent."""

    async def gather() -> bytes:
        assert isinstance(response, StreamingResponse)
        return b"".join([bytes(piece) async for piece in response.body_iterator])

    return asyncio.run(gather())


def test_an_input_that_is_set_aside_while_it_is_sent_arrives_whole(objects: ObjectStore, digest: str) -> None:
    data = objects.path(digest).read_bytes()
    response = fetch(objects, digest)
    objects.path(digest).unlink()
    assert body(response) == data


def test_an_input_is_sent_from_where_the_last_try_ended(objects: ObjectStore, digest: str) -> None:
    data = objects.path(digest).read_bytes()
    response = fetch(objects, digest, "bytes=1000-")
    assert response.status_code == 206
    assert response.headers["content-range"] == f"bytes 1000-{len(data) - 1}/{len(data)}"
    assert body(response) == data[1000:]
    assert fetch(objects, digest, f"bytes={len(data)}-").status_code == 416


def test_an_input_that_rots_or_goes_is_refused(objects: ObjectStore, digest: str) -> None:
    path = objects.path(digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(RefusedError, match="is corrupt"):
        fetch(objects, digest)
    assert objects.was_set_aside(digest)
    with pytest.raises(RefusedError, match="Run the study again"):
        fetch(objects, digest)
