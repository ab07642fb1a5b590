"""What a gateway lets through and what it refuses, asked by members that a test drives by hand."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pickle
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import numpy as np
import psutil
import pytest

from manybody.core.digest import digest_bytes
from manybody.core.errors import InputError
from manybody.core.task import Output, Task
from manybody.network.federation.authority import Authority, new_key, parse_request, pem, sign, signing_request, verify, write_key
from manybody.network.federation.blobs import Partial
from manybody.network.federation.client import AwayError, Client, RefusedByGatewayError
from manybody.network.federation.membership import Invitation, Joined, join, leave_gateway
from manybody.network.federation.protocol import (
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
    Installed,
    Judged,
    Order,
    Report,
    Welcome,
    Work,
    claim,
)
from manybody.network.federation.serve import Office
from manybody.store import members, queue
from manybody.store.home import Home
from manybody.store.objects import ObjectStore
from manybody.testing.federation import Town

T = TypeVar("T")
PATHS = tuple(f"/v1/{name}" for name in ("join", "hello", "node", "lease", "heartbeat", "finish", "fail", "leave", "checkpoint"))
OBJECT = f"/v1/objects/{'ab' * 32}"
VERSION = {"manybody-protocol": "1"}
REPORT = Report(workers=1, threads=1, memory_bytes=2**30, methods={"toy": Installed(version="1", stages=("add",))})


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with Town(tmp_path_factory.mktemp("town"), lease_s=2.0) as town:
        yield town


@dataclass
class Hand:
    """A member driven by hand."""

    joined: Joined

    def talk(self, speak: Callable[[Client], Awaitable[T]]) -> T:
        async def once() -> T:
            try:
                async with self.joined.client() as client:
                    return await speak(client)
            finally:
                await hung_up(self.joined.address)

        return asyncio.run(once())

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, str]:
        return self.request("POST", path, body, **headers)

    def request(self, method: str, path: str, body: Any = b"", **headers: str) -> tuple[int, str]:
        return asyncio.run(request(self.joined.address, self.joined.tls(), method, path, body, headers))

    def report(self) -> None:
        self.talk(lambda client: client.ask("/v1/node", REPORT, Accepted))

    def lease(self, wait_s: float = 5.0) -> Order:
        work = self.talk(lambda client: client.ask("/v1/lease", AskWork(free=1, wait_s=wait_s), Work))
        assert len(work.orders) == 1
        return work.orders[0]

    def finish(self, order: Order, result: str, key: Any = None) -> None:
        judged = self.talk(lambda client: client.ask("/v1/finish", self.finished(order, result, key), Judged))
        for status, problem in judged.refused.values():
            raise RefusedByGatewayError(status, problem)

    def finished(self, order: Order, result: str, key: Any = None) -> Finished:
        """What a node says of a result."""
        said = claim(order.attempt, order.task.digest, result, self.joined.name, VERSIONS[-1])
        message = Finish(
            attempt=order.attempt, task=order.task.digest, result=result, worker=f"{self.joined.name}/w", seconds=0.1,
            signature=sign(key or self.joined.key, said),
        )  # fmt: skip
        return Finished(results=(message,))


async def request(
    address: str, tls: ssl.SSLContext, method: str, path: str, body: Any, headers: dict[str, str]
) -> tuple[int, str]:
    async with aiohttp.ClientSession(address, connector=aiohttp.TCPConnector(ssl=tls)) as session:
        sent = {"manybody-protocol": "1"} | {name.replace("_", "-"): value for name, value in headers.items()}
        async with session.request(method, path, data=body, headers=sent) as response:
            told = response.status, await response.text()
    await hung_up(address)
    return told


async def hung_up(address: str) -> None:
    """Wait until no connection to a gateway is left: TLS takes a while to close one, and the loop must not end before."""
    port = int(address.rpartition(":")[2])
    while any(each.raddr and each.raddr.port == port for each in psutil.Process().net_connections("tcp")):
        await asyncio.sleep(0.005)


def admit(town: Town, folder: Path, name: str = "hand", role: members.Role = "node") -> Hand:
    hand = Hand(join(Home(folder / name), Office(town.home).invite(role), name))
    if role == "node":
        hand.report()
    return hand


@pytest.fixture
def node(town: Town, tmp_path: Path) -> Hand:
    return admit(town, tmp_path)


_counter = iter(range(10**6))


def submit(town: Town, inputs: dict[str, str] | None = None) -> str:
    number = next(_counter)
    task = Task(
        method="toy",
        stage="add",
        version="1",
        system={},
        parameters={"number": number},
        inputs=dict.fromkeys(inputs or {}, "0" * 64),
    )
    attempt = f"attempt-{number}"
    with closing(town.home.ledger()) as ledger, ledger.database.writing() as connection:
        queue.submit(connection, queue.Queued(attempt, task, inputs or {}, frozenset(), 600.0))
    return attempt


def standing(town: Town, attempt: str) -> queue.Standing:
    with closing(town.home.ledger()) as ledger, ledger.database.reading() as connection:
        return queue.standings(connection, [attempt])[0]


def result(folder: Path, value: float = 1.0, size: int = 1) -> tuple[str, Path]:
    store = ObjectStore(folder / "objects")
    stored = store.put(Output({"total": np.full(size, value)}, {"value": value}))
    return stored.digest, store.path(stored.digest)


def statuses(hand: Hand, body: bytes) -> dict[str, int]:
    return {path: hand.post(path, body)[0] for path in PATHS}


# --- who may come in -------------------------------------------------------------------------------------------


def test_nobody_without_a_certificate_gets_further_than_joining(town: Town, node: Hand) -> None:
    tls = ssl.create_default_context(cafile=str(node.joined.folder / "authority.pem"))
    for path in PATHS:
        status, _ = asyncio.run(request(town.address, tls, "POST", path, b"{}", {}))
        assert status == (422 if path == "/v1/join" else 401), path
    for method in ("GET", "PUT"):
        assert asyncio.run(request(town.address, tls, method, OBJECT, b"", {}))[0] == 401


@pytest.mark.fault(
    "a client where a node is expected",
    on="federation",
    happens="403 for whatever only nodes may ask",
    kept="work and results",
)
def test_a_client_is_refused_where_a_node_is_expected(town: Town, tmp_path: Path) -> None:
    client = admit(town, tmp_path, role="client")
    for path in ("/v1/node", "/v1/lease", "/v1/heartbeat", "/v1/finish", "/v1/fail", "/v1/checkpoint"):
        assert client.post(path, b"{}")[0] == 403, path
    assert client.request("GET", OBJECT)[0] == 403
    assert client.talk(lambda talking: talking.ask("/v1/hello", Hello(versions=(1,)), Welcome)).role == "client"


def with_certificate(node: Hand, folder: Path, authority: Authority, days: int) -> ssl.SSLContext:
    """TLS with a fresh key that `authority` has signed for `days`."""
    key = new_key()
    asked = parse_request(signing_request(key, "someone"))
    assert asked is not None
    write_key(folder / "key.pem", key)
    (folder / "certificate.pem").write_bytes(pem(authority.sign_member(asked, "someone", days)))
    tls = ssl.create_default_context(cafile=str(node.joined.folder / "authority.pem"))
    tls.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return tls


@pytest.mark.fault(
    "an expired certificate",
    on="federation",
    happens="refused in the TLS handshake",
    kept="nothing is read from it",
)
def test_certificates_that_are_expired_or_of_another_authority_do_not_get_through_tls(
    town: Town, node: Hand, tmp_path: Path
) -> None:
    ours = Office(town.home).authority()
    for authority, days in ((ours, 0), (Authority.create(), 10)):
        tls = with_certificate(node, tmp_path, authority, days)
        with pytest.raises(aiohttp.ClientError):
            asyncio.run(request(town.address, tls, "POST", "/v1/hello", b"{}", {}))


@pytest.mark.fault(
    "an unknown certificate",
    on="federation",
    happens="one of another authority is refused in the TLS handshake, one of ours that no member has with 401",
    kept="nothing of a body is read",
)
def test_a_valid_certificate_that_no_member_has_is_refused(town: Town, node: Hand, tmp_path: Path) -> None:
    tls = with_certificate(node, tmp_path, Office(town.home).authority(), 10)
    status, text = asyncio.run(request(town.address, tls, "POST", "/v1/hello", b"{}", {}))
    assert (status, "unknown" in text) == (401, True)


@pytest.mark.fault(
    "a revoked certificate",
    on="federation",
    happens="live connections end within seconds and every request is refused with 403",
    kept="its work is handed to others",
)
def test_a_revoked_node_is_cut_off_and_its_work_returned(town: Town, node: Hand) -> None:
    attempt = submit(town)
    node.lease()
    waited: list[float] = []

    async def wait_and_be_revoked(client: Client) -> None:
        polling = asyncio.create_task(client.ask("/v1/lease", AskWork(free=1, wait_s=30.0), Work))
        await asyncio.sleep(0.5)
        begin = time.monotonic()
        await asyncio.to_thread(town.manybody, "revoke", node.joined.name)
        with pytest.raises((AwayError, RefusedByGatewayError)):
            await polling
        waited.append(time.monotonic() - begin)

    node.talk(wait_and_be_revoked)
    assert waited[0] < 20.0  # well before the poll's own end
    assert standing(town, attempt).state == "lost"
    status, text = node.post("/v1/lease", b"{}")
    assert (status, "revoked by the operator" in text) == (403, True)


def test_who_leaves_is_known_no_more(town: Town, node: Hand) -> None:
    asyncio.run(leave_gateway(node.joined))
    assert node.post("/v1/hello", b"{}")[0] == 403


# --- invitations -----------------------------------------------------------------------------------------------


def test_an_invitation_is_good_for_one(town: Town, tmp_path: Path) -> None:
    line = Office(town.home).invite()
    first = join(Home(tmp_path / "one"), line, "twin")
    with pytest.raises(RefusedByGatewayError, match="neither used nor expired"):
        join(Home(tmp_path / "two"), line, "twin")
    other = join(Home(tmp_path / "three"), Office(town.home).invite(), "twin")
    assert first.name != other.name
    with pytest.raises(InputError, match="has not joined"):
        join(Home(tmp_path / "one"), Office(town.home).invite(), "twin")


def test_expired_and_invented_invitations_are_refused(town: Town, tmp_path: Path) -> None:
    office = Office(town.home)
    real = office.invite()
    number = real.rpartition("/")[2].partition(".")[0]
    for line in (office.invite(valid_s=-1.0), real.rpartition("/")[0] + f"/{number}.{'x' * 32}"):
        with pytest.raises(RefusedByGatewayError, match="neither used nor expired"):
            join(Home(tmp_path / "new"), line)
    join(Home(tmp_path / "new"), real)  # guessing has not used it up


def test_the_token_goes_to_no_other_authority(town: Town, tmp_path: Path) -> None:
    line = Office(town.home).invite()
    invitation = Invitation.parse(line)
    wrong = line.replace(invitation.authority, "0" * 64)
    with pytest.raises(InputError, match="fingerprint"):
        join(Home(tmp_path / "new"), wrong)
    join(Home(tmp_path / "new"), line)  # the token was not sent


@pytest.mark.parametrize("line", ["", "https://a:1", "http://a:1/#" + "0" * 64 + "/" + "0" * 16 + ".x", "\0", "x" * 10_000])
def test_a_line_that_is_no_invitation_is_named(line: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="manybody invite"):
        join(Home(tmp_path), line)


def test_a_key_is_readable_by_its_owner_alone(town: Town, node: Hand) -> None:
    for path in (node.joined.folder / "key.pem", town.home.path / "gateway" / "authority.key"):
        assert path.stat().st_mode & 0o077 == 0


# --- garbage ---------------------------------------------------------------------------------------------------

GARBAGE = {
    "nothing": b"",
    "noise": np.random.default_rng(1).bytes(1000),
    "no JSON": b"{'a': 1}",
    "a list": b"[]",
    "a number": b"1e999",
    "unknown fields": b'{"free": 1, "wait_s": 0.0, "run": "os.system"}',
    "loose types": b'{"free": "1", "wait_s": "0", "attempts": {}, "versions": "1"}',
    "NaN": b'{"free": 1, "wait_s": NaN, "seconds": NaN}',
    "a deep nest": b"[" * 100_000,
    "a huge number": b'{"free": ' + b"9" * 10_000 + b"}",
    "half a surrogate": b'{"token": "\\ud800", "kind": "join", "name": "x", "request": "\\ud800"}',
    "a pickle": pickle.dumps({"free": 1}),
    "code": b"__import__('os').system('true')",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused_and_never_an_error_of_the_gateway(node: Hand, name: str) -> None:
    told = statuses(node, GARBAGE[name])
    assert all(400 <= status < 500 for status in told.values()), told


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/docs"), ("DELETE", "/v1/lease"), ("POST", "/v1/run"), ("GET", "/v1/objects/../../etc/passwd"),
     ("GET", "/v1/objects/%2e%2e%2fledger.sqlite"), ("PUT", "/v1/objects/xyz"), ("GET", "/v1/lease")],
)  # fmt: skip
def test_there_is_nothing_else_to_be_had(node: Hand, method: str, path: str) -> None:
    assert 400 <= node.request(method, path)[0] < 500


@pytest.mark.parametrize("version", ["", "0", "99", "one", "1" * 1000])
def test_other_versions_are_refused_with_those_that_are_spoken(node: Hand, version: str) -> None:
    status, text = node.post("/v1/lease", b"{}", manybody_protocol=version)
    assert status == 426
    assert "1" in json.loads(text)["problem"]


def test_hello_finds_the_version_that_both_speak(node: Hand) -> None:
    assert node.talk(lambda client: client.ask("/v1/hello", Hello(versions=(99, 1, 7)), Welcome)).version == 1
    with pytest.raises(RefusedByGatewayError, match="Upgrade the older side") as refused:
        node.talk(lambda client: client.ask("/v1/hello", Hello(versions=(99,)), Welcome))
    assert refused.value.status == 426


# --- attempts --------------------------------------------------------------------------------------------------


def test_a_result_is_signed_and_the_ledger_can_show_it(town: Town, node: Hand, tmp_path: Path) -> None:
    attempt = submit(town)
    order = node.lease()
    digest, path = result(tmp_path)
    node.talk(lambda client: client.send(attempt, digest, path))
    node.finish(order, digest)
    told = standing(town, attempt)
    assert (told.state, told.result, told.nbytes) == ("finished", digest, path.stat().st_size)
    with closing(town.home.ledger()) as ledger, ledger.database.reading() as connection:
        (proof,) = queue.proofs(connection, order.task.digest)
    assert verify(proof.certificate, claim(proof.attempt, proof.task, proof.result, proof.node, proof.protocol), proof.signature)
    assert not verify(proof.certificate, claim(proof.attempt, proof.task, "0" * 64, proof.node, proof.protocol), proof.signature)


@pytest.mark.fault(
    "a replayed message",
    on="federation",
    happens="whatever a node says again, word for word, is refused: its attempt has ended",
    kept="the first result, once",
)
def test_what_is_said_again_changes_nothing(town: Town, node: Hand, tmp_path: Path) -> None:
    attempt, given_up = submit(town), submit(town)
    order = node.lease()
    node.lease()
    digest, path = result(tmp_path)
    told = {
        "/v1/heartbeat": Heartbeat(attempts=(Advance(attempt=attempt, worker="hand/w"),)),
        "/v1/finish": node.finished(order, digest),
        "/v1/fail": Fail(attempt=given_up, worker="hand/w", seconds=0.1, reason="no luck", lost=False),
    }

    def say() -> dict[str, tuple[int, Any]]:
        answers = {"PUT": (put(node, attempt, digest, path.read_bytes(), 0, path.stat().st_size), None)}
        for name, message in told.items():
            status, text = node.post(name, message.model_dump_json().encode(), manybody_protocol=str(VERSIONS[-1]))
            answers[name] = (status, json.loads(text))
        return answers

    assert {status for status, _ in say().values()} == {200}
    before = [standing(town, each) for each in (attempt, given_up)]
    assert [each.state for each in before] == ["finished", "failed"]
    again = say()
    assert again["PUT"][0] == again["/v1/fail"][0] == 409
    assert again["/v1/heartbeat"] == (200, {"attempts": []})
    assert again["/v1/finish"][1]["refused"][attempt][0] == 409
    assert [standing(town, each) for each in (attempt, given_up)] == before


def test_a_late_result_is_refused_and_the_attempt_lost(town: Town, node: Hand, tmp_path: Path) -> None:
    attempt = submit(town)
    order = node.lease()
    until = time.monotonic() + 20.0
    while standing(town, attempt).state == "leased" and time.monotonic() < until:
        time.sleep(0.1)
    assert standing(town, attempt).state == "lost"
    assert node.joined.name in standing(town, attempt).reason
    digest, path = result(tmp_path)
    with pytest.raises(RefusedByGatewayError):
        node.talk(lambda client: client.send(attempt, digest, path))
    with pytest.raises(RefusedByGatewayError):
        node.finish(order, digest)
    assert standing(town, attempt).state == "lost"


def test_heartbeats_keep_a_lease_and_tell_what_is_lost(town: Town, node: Hand) -> None:
    attempt = submit(town)
    node.lease()
    beat = Heartbeat(attempts=(Advance(attempt=attempt, worker="hand/w"), Advance(attempt="never-leased")))
    for _ in range(6):  # three leases long
        held = node.talk(lambda client: client.ask("/v1/heartbeat", beat, Held))
        assert held.attempts == (attempt,)
        time.sleep(0.8)
    with closing(town.home.ledger()) as ledger, ledger.database.writing() as connection:
        queue.cancel(connection, attempt)
    assert node.talk(lambda client: client.ask("/v1/heartbeat", beat, Held)).attempts == ()


@pytest.mark.fault(
    "a replayed message",
    on="federation",
    happens="what another node repeats is refused: the lease is not its own, nor is the signature",
    kept="the lease and the result of the first",
)
def test_no_node_ends_what_another_holds(town: Town, node: Hand, tmp_path: Path) -> None:
    attempt = submit(town)
    order = node.lease()
    thief = admit(town, tmp_path, "thief")
    digest, path = result(tmp_path)
    node.talk(lambda client: client.send(attempt, digest, path))
    with pytest.raises(RefusedByGatewayError, match="not leased"):
        thief.finish(order, digest)
    fail = Fail(attempt=attempt, worker="thief/w", seconds=0.0, reason="spite", lost=False)
    with pytest.raises(RefusedByGatewayError, match="not leased"):
        thief.talk(lambda client: client.ask("/v1/fail", fail, Accepted))
    with pytest.raises(RefusedByGatewayError, match="signature"):
        node.finish(order, digest, key=thief.joined.key)
    with pytest.raises(RefusedByGatewayError, match="leased to"):
        thief.talk(lambda client: client.send(attempt, digest, path))
    node.finish(order, digest)
    assert standing(town, attempt).state == "finished"


def test_a_result_for_another_task_or_never_sent_is_refused(town: Town, node: Hand, tmp_path: Path) -> None:
    attempt = submit(town)
    order = node.lease()
    with pytest.raises(RefusedByGatewayError, match="stored first"):
        node.finish(order, "ab" * 32)
    digest, path = result(tmp_path)
    node.talk(lambda client: client.send(attempt, digest, path))
    other = order.model_copy(update={"task": order.task.model_copy(update={"seed": 5})})
    with pytest.raises(RefusedByGatewayError, match="not leased"):
        node.finish(other, digest)
    node.finish(order, digest)


def test_only_a_node_that_has_the_method_gets_the_task(town: Town, node: Hand, tmp_path: Path) -> None:
    other = admit(town, tmp_path, "other")
    lacking = REPORT.model_copy(update={"methods": {"toy": Installed(version="2", stages=("add",))}})
    other.talk(lambda client: client.ask("/v1/node", lacking, Accepted))
    attempt = submit(town)
    assert other.talk(lambda client: client.ask("/v1/lease", AskWork(free=5, wait_s=0.0), Work)).orders == ()
    assert node.lease().attempt == attempt


def test_a_node_that_starts_anew_gives_back_what_it_held(town: Town, node: Hand) -> None:
    attempt = submit(town)
    node.lease()
    node.report()
    assert standing(town, attempt).state == "lost"


# --- results on their way --------------------------------------------------------------------------------------


def put(node: Hand, attempt: str, digest: str, body: bytes, offset: int, length: int) -> int:
    headers = {"manybody_attempt": attempt, "upload_offset": str(offset), "upload_length": str(length)}
    return node.request("PUT", f"/v1/objects/{digest}", io.BytesIO(body), **headers)[0]


@pytest.mark.fault(
    "a truncated body",
    on="federation",
    happens="the result is refused and does not exist; its node sends the rest",
    kept="what had come; nobody can read half a result",
)
def test_an_upload_that_broke_goes_on_where_it_ended(town: Town, node: Hand, tmp_path: Path) -> None:
    attempt = submit(town)
    node.lease()
    digest, path = result(tmp_path, size=500_000)
    data = path.read_bytes()
    assert put(node, attempt, digest, data[:1_500_000], 0, len(data)) == 400  # truncated
    assert not town.home.objects.has(digest)
    assert put(node, attempt, digest, data[2_000_000:], 2_000_000, len(data)) == 409  # a gap
    assert put(node, attempt, digest, data[1_500_000:], 1_500_000, len(data)) == 200
    assert town.home.objects.get(digest).arrays["total"].size == 500_000


@pytest.mark.fault(
    "a truncated body",
    on="federation",
    happens="a message that ends before its announced length is as good as unsaid",
    kept="the lease; said whole, the result counts",
)
def test_a_message_that_is_cut_short_is_not_said(town: Town, node: Hand, tmp_path: Path) -> None:
    attempt = submit(town)
    order = node.lease()
    digest, path = result(tmp_path)
    node.talk(lambda client: client.send(attempt, digest, path))
    message = node.finished(order, digest).model_dump_json().encode()
    host, _, port = town.address.removeprefix("https://").rpartition(":")
    words = f"Host: g\r\nmanybody-protocol: {VERSIONS[-1]}\r\nContent-Length: {len(message)}\r\n\r\n"
    head = f"POST /v1/finish HTTP/1.1\r\n{words}".encode()
    with (
        socket.create_connection((host, int(port)), timeout=20) as plain,
        node.joined.tls().wrap_socket(plain, server_hostname=host) as line,
    ):
        line.sendall(head + message[: len(message) // 2])
        line.unwrap()
    assert standing(town, attempt).state == "leased"
    node.finish(order, digest)
    assert standing(town, attempt).state == "finished"


def test_an_upload_is_what_it_says_or_nothing(town: Town, node: Hand, tmp_path: Path) -> None:
    attempt = submit(town)
    node.lease()
    digest, path = result(tmp_path, size=1000)
    data = path.read_bytes()
    assert put(node, attempt, digest, data[:-1] + b"!", 0, len(data)) == 422
    assert put(node, attempt, digest, data + b"more", 0, len(data)) == 413
    for wrong in (pickle.dumps([1]), b"print('code')", b"\xff" * 100, b"", data[:-8]):
        assert put(node, attempt, digest_bytes(wrong), wrong, 0, len(wrong)) == 422
        assert not town.home.objects.has(digest_bytes(wrong))
    header = json.dumps({"__metadata__": {"document": '{"value": NaN}'}}).encode()
    nan = len(header).to_bytes(8, "little") + header
    assert put(node, attempt, digest_bytes(nan), nan, 0, len(nan)) == 422
    assert put(node, attempt, digest, data, 0, len(data)) == 200


def test_inputs_are_shown_only_to_whoever_needs_them(town: Town, node: Hand, tmp_path: Path) -> None:
    stored = town.home.objects.put(Output({"total": np.arange(100_000.0)}))
    secret = town.home.objects.put(Output({"total": np.arange(3.0)}))
    attempt = submit(town, {"state": stored.digest})
    node.lease()
    asked = {"manybody_attempt": attempt}
    assert node.request("GET", f"/v1/objects/{secret.digest}", **asked)[0] == 403
    assert node.request("GET", f"/v1/objects/{stored.digest}", manybody_attempt="other")[0] == 409

    mine = ObjectStore(tmp_path / "mine")
    part = Partial(mine, stored.digest, "x")
    part.append(0, town.home.objects.path(stored.digest).read_bytes()[:300_000])  # as a broken transfer left it
    node.talk(lambda client: client.fetch(attempt, part))
    assert np.array_equal(mine.get(stored.digest).arrays["total"], np.arange(100_000.0))


@pytest.mark.fault(
    "a result that rots on the disk",
    on="federation",
    happens="no node gets it; it is set aside, so that the run computes it again",
    kept="nothing is computed from it",
)
def test_a_rotten_input_is_set_aside_and_named(town: Town, node: Hand) -> None:
    stored = town.home.objects.put(Output({"total": np.arange(10.0) + 5}))
    attempt = submit(town, {"state": stored.digest})
    node.lease()
    path = town.home.objects.path(stored.digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    status, text = node.request("GET", f"/v1/objects/{stored.digest}", manybody_attempt=attempt)
    assert (status, "corrupt" in text) == (404, True)
    assert not town.home.objects.has(stored.digest)


def test_an_input_that_rots_after_it_was_sent_is_found_when_a_node_asks_again(town: Town, node: Hand, tmp_path: Path) -> None:
    stored = town.home.objects.put(Output({"total": np.arange(10.0) + 7}))
    attempt = submit(town, {"state": stored.digest})
    node.lease()

    def fetch(place: str) -> None:
        part = Partial(ObjectStore(tmp_path / place), stored.digest, "x")
        node.talk(lambda client: client.fetch(attempt, part))

    fetch("before")
    path = town.home.objects.path(stored.digest)
    times = path.stat()
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # a failing disk changes bits and no time
    with pytest.raises(RefusedByGatewayError, match="corrupt"):
        fetch("after")
    assert not town.home.objects.has(stored.digest)
