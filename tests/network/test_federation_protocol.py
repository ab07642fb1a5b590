"""Nodes of older releases are understood: a conversation recorded in version 1, held again with today's gateway."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from manybody.core.digest import digest_bytes
from manybody.core.task import Output, Task
from manybody.network.federation.authority import sign
from manybody.network.federation.membership import Joined, join
from manybody.network.federation.protocol import VERSIONS, common_version
from manybody.network.federation.serve import Office
from manybody.store import queue
from manybody.store.encoding import encode
from manybody.store.home import Home
from manybody.testing.federation import Town

RECORDED = Path(__file__).with_name("federation-protocol-1.json")


def filled(document: Any, values: dict[str, str]) -> Any:
    """A document with its placeholders replaced."""
    if isinstance(document, dict):
        return {name: filled(member, values) for name, member in document.items()}
    if isinstance(document, list):
        return [filled(member, values) for member in document]
    return values.get(document, document) if isinstance(document, str) else document


def like(expected: Any, came: Any) -> bool:
    """Whether an answer is the recorded one: the same names everywhere, because old nodes refuse new ones."""
    if expected == "$ANY":
        return True
    if isinstance(expected, dict) and isinstance(came, dict):
        return expected.keys() == came.keys() and all(like(expected[name], came[name]) for name in expected)
    if isinstance(expected, list) and isinstance(came, list):
        return len(expected) == len(came) and all(map(like, expected, came))
    return bool(expected == came)


async def ask(session: aiohttp.ClientSession, said: dict[str, Any]) -> tuple[int, Any]:
    """Say something, once more where it fell into the moment in which the connections of one who has left are ended."""
    try:
        async with session.post(said["path"], data=json.dumps(said["body"])) as answer:
            return answer.status, await answer.json()
    except aiohttp.ServerDisconnectedError:
        assert said["status"] == 403
        return await ask(session, said)


async def hold(joined: Joined, conversation: list[dict[str, Any]]) -> None:
    """Say what was said then, and compare the answers."""
    connector = aiohttp.TCPConnector(ssl=joined.tls())
    async with aiohttp.ClientSession(joined.address, connector=connector, headers={"Manybody-Protocol": "1"}) as session:
        for said in conversation:
            status, came = await ask(session, said)
            assert status == said["status"], (said, came)
            assert like(said["answer"], came), (said, came)
    await asyncio.sleep(0.01)  # a TLS connection is gone some turns of the loop after it was closed


@pytest.mark.parametrize("resumes", [None, "", "ab" * 32], ids=["plain", "leaves checkpoints", "goes on from one"])
def test_a_node_of_version_1_is_served_as_ever(tmp_path: Path, resumes: str | None) -> None:
    """It knows of no checkpoints: a task that would leave some is told and computed from its start."""
    with Town(tmp_path) as town:
        joined = join(Home(tmp_path / "old"), Office(town.home).invite(), "old")
        task = Task(method="toy", stage="add", version="1", system={}, parameters={"number": 1})
        with closing(town.home.ledger()) as ledger, ledger.database.writing() as connection:
            queue.submit(connection, queue.Queued("attempt-1", task, {}, frozenset(), 600.0, resumes))
        content = encode(Output(document={"value": 1}))
        result = digest_bytes(content)
        # Written out, not made by `claim`: what is signed is part of the protocol.
        signed = f'{{"attempt":"attempt-1","node":"old","protocol":1,"result":"{result}","task":"{task.digest}"}}'
        values = {
            "$NAME": "old", "$ATTEMPT": "attempt-1", "$TASK": task.digest, "$RESULT": result,
            "$SIGNATURE": sign(joined.key, signed.encode()), "$CONTENT": base64.b64encode(content).decode(),
        }  # fmt: skip
        asyncio.run(hold(joined, filled(json.loads(RECORDED.read_text(encoding="utf-8")), values)))


@pytest.mark.parametrize(("theirs", "common"), [((1,), 1), ((1, 99), 1), ((99,), None), ((0, -1), None)])
def test_the_best_common_version_is_spoken(theirs: tuple[int, ...], common: int | None) -> None:
    assert 1 in VERSIONS
    assert common_version(theirs) == common
