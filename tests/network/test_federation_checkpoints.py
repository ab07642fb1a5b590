"""Checkpoints at the gateway: only what the holder of a lease has signed, no oftener than agreed, and only the newest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from pydantic import ValidationError

from manybody.core.study import Study
from manybody.core.task import Output, Progress, Task
from manybody.network.federation.authority import sign, verify
from manybody.network.federation.blobs import Partial
from manybody.network.federation.client import AwayError, Client, RefusedByGatewayError
from manybody.network.federation.membership import Joined, join
from manybody.network.federation.protocol import (
    Accepted,
    AskWork,
    Checkpoint,
    Heartbeat,
    Installed,
    Order,
    Report,
    Welcome,
    Work,
    checkpoint_claim,
    write,
)
from manybody.network.federation.results import SPARE
from manybody.network.federation.serve import Office
from manybody.store import queue
from manybody.store.home import Home
from manybody.store.objects import ObjectStore
from manybody.testing.federation import Town

T = TypeVar("T")
STUDY = Study.model_validate(
    {
        "name": "checkpoints",
        "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
        "method": "molecular-dynamics",
        "measures": ["potential-energy"],
        "checks": ["conservation"],
    }
)
REPORT = Report(workers=1, threads=1, memory_bytes=2**30, methods={"toy": Installed(version="1", stages=("add",))})
_counter = iter(range(10**6))


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with Town(tmp_path_factory.mktemp("town"), checkpoint_s=0.0) as town:
        yield town


@dataclass
class Hand:
    """A node driven by hand, with a store of its own."""

    joined: Joined
    objects: ObjectStore

    def talk(self, speak: Callable[[Client], Awaitable[T]]) -> T:
        async def once() -> T:
            try:
                async with self.joined.client() as client:
                    return await speak(client)
            finally:
                await asyncio.sleep(0.05)  # a TLS connection that was refused is gone some turns of the loop later

        return asyncio.run(once())

    def lease(self) -> Order:
        return self.talk(lambda client: client.ask("/v1/lease", AskWork(free=1, wait_s=5.0), Work)).orders[0]

    def stored(self, order: Order, number: int = 1, **of: str) -> str:
        """Store a checkpoint of an attempt here; its digest."""
        whose = {"checkpoint_of": order.task.digest, "attempt": order.attempt} | of
        return self.objects.put(Output({"x": np.full(10, number)}, whose)).digest

    def leave(self, order: Order, digest: str, key: Any = None, fraction: float = 0.5, send: bool = True) -> None:
        """Send a checkpoint and the word of it."""
        claim = checkpoint_claim(order.attempt, order.task.digest, digest, self.joined.name, 2)
        said = Checkpoint(
            attempt=order.attempt, task=order.task.digest, checkpoint=digest, worker=f"{self.joined.name}/w",
            signature=sign(key or self.joined.key, claim), progress=Progress(fraction),
        )  # fmt: skip

        async def both(client: Client) -> None:
            if send:
                await client.send(order.attempt, digest, self.objects.path(digest))
            await client.ask("/v1/checkpoint", said, Accepted)

        self.talk(both)


def admit(town: Town, folder: Path, name: str = "hand") -> Hand:
    hand = Hand(join(Home(folder / name), Office(town.home).invite(), name), ObjectStore(folder / name / "objects"))
    hand.talk(lambda client: client.ask("/v1/node", REPORT, Accepted))
    return hand


@pytest.fixture
def node(town: Town, tmp_path: Path) -> Hand:
    return admit(town, tmp_path)


def submit(town: Town, resumes: str | None = "") -> str:
    number = next(_counter)
    task = Task(method="toy", stage="add", version="1", system={}, parameters={"number": number})
    attempt = f"attempt-{number}"
    with closing(town.home.ledger()) as ledger, ledger.database.writing() as connection:
        queue.submit(connection, queue.Queued(attempt, task, {}, frozenset(), 600.0, resumes))
    return attempt


def standing(town: Town, attempt: str) -> queue.Standing:
    with closing(town.home.ledger()) as ledger, ledger.database.reading() as connection:
        [found] = queue.standings(connection, [attempt])
    return found


def test_only_the_newest_is_kept_and_another_node_may_have_it(town: Town, node: Hand, tmp_path: Path) -> None:
    attempt = submit(town)
    order = node.lease()
    assert order.checkpoint == "", "none there is yet, but they are wanted"
    first, second = (node.stored(order, number) for number in (1, 2))
    node.leave(order, first, fraction=0.25)
    node.leave(order, second, fraction=0.5)
    assert (standing(town, attempt).checkpoint, standing(town, attempt).checkpoint_fraction) == (second, 0.5)
    assert not town.home.objects.has(first)
    other = admit(town, tmp_path, "other")
    submit(town, second)
    following = other.lease()
    assert following.checkpoint == second
    other.talk(lambda client: client.fetch(following.attempt, Partial(other.objects, second, "other")))
    assert other.objects.get(second).arrays["x"][0] == 2


def test_what_the_ledger_has_taken_over_is_left_to_whoever_did(town: Town, node: Hand) -> None:
    attempt = submit(town)
    order = node.lease()
    first, second = (node.stored(order, number) for number in (1, 2))
    node.leave(order, first)
    with closing(town.home.ledger()) as ledger:
        ledger.record_study(STUDY)
        run = ledger.begin_run(STUDY.digest, Path("out"), "test", {})
        ledger.add_tasks(run, [order.task])
        assert ledger.keep_checkpoint(ledger.claim(run, order.task.digest).attempt, first, 1, 0.5, "w")
    node.leave(order, second)
    assert standing(town, attempt).checkpoint == second
    assert town.home.objects.has(first)


def test_the_signature_shows_who_left_it(town: Town, node: Hand, tmp_path: Path) -> None:
    submit(town)
    order = node.lease()
    digest = node.stored(order)
    other = admit(town, tmp_path, "forger")
    with pytest.raises(RefusedByGatewayError, match="does not verify"):
        node.leave(order, digest, key=other.joined.key)
    node.leave(order, digest)
    with closing(town.home.ledger()) as ledger, ledger.database.reading() as connection:
        row = connection.exec_driver_sql(f"SELECT checkpoint_signature FROM queue WHERE attempt = '{order.attempt}'").scalar_one()
    claim = checkpoint_claim(order.attempt, order.task.digest, digest, node.joined.name, 2)
    assert verify((node.joined.folder / "certificate.pem").read_text(encoding="ascii"), claim, row)


def test_no_node_leaves_checkpoints_of_what_another_holds(town: Town, node: Hand, tmp_path: Path) -> None:
    attempt = submit(town)
    order = node.lease()
    thief = admit(town, tmp_path, "thief")
    digest = thief.stored(order)
    Partial(town.home.objects, digest, "test").append(0, thief.objects.path(digest).read_bytes())
    Partial(town.home.objects, digest, "test").accept()
    with pytest.raises(RefusedByGatewayError, match="not leased to thief"):
        thief.leave(order, digest, send=False)
    assert standing(town, attempt).checkpoint == ""
    assert not town.home.objects.has(digest)
    mine = node.stored(order, 3)
    node.leave(order, mine)
    with pytest.raises(RefusedByGatewayError, match="not leased to thief"):
        thief.leave(order, mine, send=False)
    assert town.home.objects.has(mine), "by naming another's checkpoint it is not lost"


def test_an_attempt_that_leaves_none_is_refused_them(town: Town, node: Hand) -> None:
    submit(town, None)
    order = node.lease()
    assert order.checkpoint is None
    with pytest.raises(RefusedByGatewayError, match="leaves no checkpoints"):
        node.leave(order, node.stored(order))


@pytest.mark.parametrize("of", [{"attempt": "another"}, {"checkpoint_of": "0" * 64}])
def test_what_is_no_checkpoint_of_the_attempt_is_refused_and_kept(town: Town, node: Hand, of: dict[str, str]) -> None:
    """It may be somebody's result: nobody can have it removed by calling it a checkpoint."""
    submit(town)
    order = node.lease()
    digest = node.stored(order, **of)
    with pytest.raises(RefusedByGatewayError, match="is something else"):
        node.leave(order, digest)
    assert town.home.objects.has(digest)
    with pytest.raises(RefusedByGatewayError, match="stored first"):
        node.leave(order, node.stored(order, 7), send=False)


def test_checkpoints_that_come_too_soon_are_refused(tmp_path: Path) -> None:
    with Town(tmp_path, checkpoint_s=3600.0) as town:
        node = admit(town, tmp_path)
        attempt = submit(town)
        order = node.lease()
        first, second = (node.stored(order, number) for number in (1, 2))
        node.leave(order, first)
        with pytest.raises(AwayError, match="every 1800 s"):
            node.leave(order, second)
        assert standing(town, attempt).checkpoint == first
        assert town.home.objects.has(first)
        assert not town.home.objects.has(second)


def test_an_attempt_that_fills_the_disk_is_refused(tmp_path: Path) -> None:
    with Town(tmp_path, checkpoint_s=3600.0) as town:
        node = admit(town, tmp_path)
        submit(town)
        order = node.lease()
        stored = [node.stored(order, number) for number in range(SPARE + 1)]
        for digest in stored[:-1]:
            node.talk(partial(Client.send, attempt=order.attempt, digest=digest, path=node.objects.path(digest)))
        with pytest.raises(AwayError, match="every 1800 s"):
            node.talk(partial(Client.send, attempt=order.attempt, digest=stored[-1], path=node.objects.path(stored[-1])))
        assert [town.home.objects.has(digest) for digest in stored] == [True] * SPARE + [False]


def test_a_checkpoint_that_is_gone_is_not_offered(town: Town, node: Hand) -> None:
    submit(town, "ab" * 32)
    assert node.lease().checkpoint == ""


def test_an_older_side_is_told_nothing_that_it_would_refuse() -> None:
    """Fields that came with version 2 are left out for version 1, and only those."""
    task = Task(method="toy", stage="add", version="1", system={}, parameters={})
    order = Order(attempt="a", task=task, inputs={}, avoid=(), lease_s=1.0, deadline_s=1.0, checkpoint="")
    welcome = Welcome(version=1, name="n", role="node", lease_s=1.0, object_limit=1, checkpoint_s=1.0, checkpoint_limit=1)
    beat, asked = Heartbeat(attempts=(), load=0.5), AskWork(free=1, wait_s=0.0, load=0.5)
    assert "checkpoint" not in json.loads(write(Work(orders=(order,)), 1))["orders"][0]
    assert set(json.loads(write(welcome, 1))) == {"version", "name", "role", "lease_s", "object_limit"}
    assert set(json.loads(write(beat, 1))) == {"attempts"}
    assert set(json.loads(write(asked, 1))) == {"free", "wait_s"}
    assert Work.model_validate_json(write(Work(orders=(order,)), 2)).orders == (order,)
    with pytest.raises(ValidationError):
        Order.model_validate_json(write(order, 2).replace('"checkpoint":""', '"checkpoint":"no digest"'))
