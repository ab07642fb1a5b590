"""A federation that is starved and deceived: full disks, wrong clocks, second coordinators, floods of garbage."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from manybody.core.digest import digest_bytes
from manybody.network.federation.gateway import Gateway, Settings
from manybody.network.federation.membership import Joined, join
from manybody.network.federation.node import BEATS
from manybody.network.federation.protocol import Accepted, AskWork, Installed, Report, Work
from manybody.network.federation.serve import Office
from manybody.network.federation.writer import Writer
from manybody.store import queue
from manybody.store.home import Home
from manybody.testing.campaign import Campaign, gated, iterations
from manybody.testing.federation import Process, Town
from manybody.testing.methods import installed, task

LEASE_S = 3.0
AMOUNT = 300_000_000
BOUND = 64_000_000  # of memory, for whatever comes: a few pieces of 1 MB, and what Python's allocator keeps
HEADS = {
    "a length": b"%s HTTP/1.1\r\nHost: g\r\nmanybody-protocol: 1\r\nContent-Length: 300000000\r\n\r\n",
    "chunks": b"%s HTTP/1.1\r\nHost: g\r\nmanybody-protocol: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "an endless header": b"%s HTTP/1.1\r\nHost: g\r\nX: ",
    "an endless line": b"%s?",
    "no HTTP": b"\x00\xff%s",
}
FIELD = """
name: small-field
system: {name: advected-field, waves: [{cycles_x: 1, cycles_y: 1}]}
method: {name: finite-volume, duration: 0.25, steps_per_round: 4}
measures: [field-variance]
checks: [conservation]
"""
CHUNK = os.urandom(1 << 16).replace(b"\r", b"x").replace(b"\n", b"x")


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    for name, value in installed(tmp_path / "plugin").items():
        monkeypatch.setenv(name, value)
    with Town(tmp_path, LEASE_S) as town:
        yield town


def memory(pid: int, field: str = "VmHWM") -> int:
    """Memory of a process, bytes: `VmHWM` is the most that it ever had. Source: proc_pid_status(5)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * 1024


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"may not mount a small disk here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.fault(
    "a full disk",
    on="federation",
    happens="the node says so, hands the attempt back and rests; others compute it",
    kept="the study; nothing half-written",
)
def test_a_node_whose_disk_is_full_gives_the_work_to_others(town: Town, tmp_path: Path) -> None:
    with small_disk(tmp_path / "full" / "objects", "1m"):
        full, _ = town.add_nodes("full", "roomy")
        big = [task("fill", nbytes=4_000_000).model_copy(update={"repeat": repeat}) for repeat in range(4)]
        campaign = Campaign(town, big)
        campaign.go()
        assert set(campaign.results) == {each.digest for each in big}
        assert campaign.workers() == {"roomy"}
        assert campaign.workers("lost") <= {"full"}
        if campaign.workers("lost"):
            assert "is full" in full.wait_for("Resting.*") or "is full" in full.said
        campaign.backend.close()
        full.stop()


@pytest.mark.fault(
    "a full disk",
    on="federation",
    happens="a gateway that cannot keep a result says so; nodes hold it and try again until there is room",
    kept="everything: no attempt is lost",
)
def test_a_gateway_whose_disk_is_full_gets_the_results_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in installed(tmp_path / "plugin").items():
        monkeypatch.setenv(name, value)
    stored = tmp_path / "gateway" / "objects"
    with small_disk(stored, "4m"), Town(tmp_path, LEASE_S) as town:
        (one,) = town.add_nodes("one")
        ballast = stored / "ballast"
        ballast.write_bytes(bytes(3_500_000))
        big = [task("fill", nbytes=1_000_000).model_copy(update={"repeat": repeat}) for repeat in range(3)]
        campaign = Campaign(town, big)
        one.wait_for("is full.*Trying again")
        ballast.unlink()
        campaign.go()
        assert set(campaign.results) == {each.digest for each in big}
        assert campaign.kinds() <= {"started", "progress", "finished"}
        assert all(digest_bytes(town.home.objects.path(each).read_bytes()) == each for each in campaign.results.values())
        campaign.backend.close()


def wrong_clock(folder: Path, hours: int) -> dict[str, str]:
    """Environment of a process whose time of day is wrong."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler for the wrong clock")
    library, source = folder / "wrong_clock.so", Path(__file__).with_name("wrong_clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "WRONG_CLOCK_S": str(hours * 3600)}


@pytest.mark.fault(
    "clock skew",
    on="federation",
    happens="nothing: the protocol knows durations only, and no time of day of a node",
    kept="everything, with a clock 20 hours behind and 200 ahead",
)
@pytest.mark.parametrize("hours", [-20, 200])
def test_a_node_whose_clock_is_wrong_works_like_any_other(town: Town, tmp_path: Path, hours: int) -> None:
    wrong = wrong_clock(tmp_path, hours)
    town.start_node("wrong", Office(town.home).invite(), environment=wrong).wait_for("is ready")
    campaign = Campaign(town, iterations(4))
    campaign.verify()
    assert campaign.kinds() <= {"started", "progress", "finished"}


@pytest.mark.fault(
    "clock skew",
    on="federation",
    happens="the gateway's clock is set, by a day, while nodes work: it notices, and lets no lease run out by it",
    kept="everything: no attempt is lost",
)
def test_a_gateway_whose_clock_is_set_takes_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in installed(tmp_path / "plugin").items():
        monkeypatch.setenv(name, value)
    late = tmp_path / "late"
    with Town(tmp_path, LEASE_S, wrong_clock(tmp_path, 24) | {"WRONG_CLOCK_SINCE": str(late)}) as town:
        right = {"LD_PRELOAD": "", "WRONG_CLOCK_SINCE": ""}
        town.start_node("one", Office(town.home).invite(), environment=right).wait_for("is ready")
        campaign = Campaign(town, gated(1, tmp_path / "gates"))
        campaign.go(lambda event: event.kind == "progress")
        late.touch()
        for _ in range(2 * BEATS):  # longer than it takes to notice
            campaign.go(lambda event: event.kind == "progress")
        campaign.verify()
        assert campaign.kinds() <= {"started", "progress", "finished"}


@pytest.mark.fault(
    "a second coordinator started by mistake",
    on="federation",
    happens="a second gateway on the same ledger, or node under the same key, is refused and told which process is the first",
    kept="everything",
)
def test_a_second_gateway_and_a_second_node_are_refused(town: Town) -> None:
    (one,) = town.add_nodes("one")
    second = Process(town.home.path, "network", "up", "--port", "0")
    assert second.wait() == 2
    assert f"process {town.gateway.pid} serves {town.address}" in second.said
    twin = Process(one.home, "join", "--no-measure")
    assert twin.wait() == 2
    assert f"process {one.pid} runs as one" in twin.said
    Campaign(town, iterations(2)).verify()


@pytest.mark.fault(
    "a second coordinator started by mistake",
    on="federation",
    happens="two runs of the same study share the work, and write the same report",
    kept="one result a task; both runs end with the same verdict",
)
def test_two_runs_of_a_study_at_once_share_its_work(town: Town, tmp_path: Path) -> None:
    town.add_nodes("one", "two")
    study = tmp_path / "study.yaml"
    study.write_text(FIELD, encoding="utf-8")
    words = ("run", str(study), "--network", town.address, "--json", "--out", str(tmp_path / "out"))
    where = {"MANYBODY_HOME": str(town.home.path)}
    several = [Process(tmp_path / f"run-{number}", *words, environment=where) for number in range(2)]
    assert [run.wait() for run in several] == [0, 0], [run.said for run in several]
    told = [json.loads(run.said.splitlines()[-1]) for run in several]
    with closing(town.home.ledger()) as ledger:
        finished = [len(ledger.history(row.task.digest)) for row in ledger.tasks(1)]
    assert set(finished) == {1}
    assert sum(each["tasks"]["computed"] for each in told) == len(finished) == told[0]["tasks"]["total"]


@pytest.mark.fault(
    "a revoked certificate",
    on="federation",
    happens="the node stops, and says why",
    kept="what it had finished; what it held is done elsewhere",
)
def test_a_node_that_is_revoked_ends_and_its_work_is_done_elsewhere(town: Town, tmp_path: Path) -> None:
    one, _ = town.add_nodes("one", "two")
    campaign = Campaign(town, gated(8, tmp_path / "gates"))
    campaign.go(lambda event: event.worker.startswith("one/"))
    town.manybody("revoke", "one")
    assert one.wait() == 1
    assert "revoked" in one.said
    campaign.verify()
    late = [event for event in campaign.events if event.kind == "finished" and event.worker.startswith("one/")]
    assert len(late) < 8


def pour(address: str, tls: ssl.SSLContext, head: bytes, chunked: bool) -> bytes:
    """Send up to 300 MB; returns what came back before the connection was closed."""
    host, _, port = address.removeprefix("https://").rpartition(":")
    piece = b"%x\r\n%s\r\n" % (len(CHUNK), CHUNK) if chunked else CHUNK
    answer = b""
    with socket.create_connection((host, int(port)), timeout=20) as plain, tls.wrap_socket(plain, server_hostname=host) as line:
        try:
            line.sendall(head)
            for _ in range(AMOUNT // len(CHUNK)):
                line.sendall(piece)
        except (OSError, ssl.SSLError):
            pass
        try:
            while data := line.recv(65536):
                answer += data
        except (OSError, ssl.SSLError):
            pass
    return answer


def endpoints(town: Town) -> list[bytes]:
    """Every method and path that the gateway answers."""
    with closing(town.home.ledger()) as ledger, closing(Writer(ledger.database)) as writer:
        app = Gateway(ledger.database, town.home.objects, Office(town.home).authority(), Settings(), writer).app().app
    assert isinstance(app, FastAPI)
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    return [f"{method} {route.path}".replace("{digest}", "0" * 64).encode() for route in routes for method in route.methods]


@pytest.mark.fault(
    "300 MB of garbage to each endpoint",
    on="federation",
    happens="refused by what is announced, or cut off at the limit, whether by a stranger or a node",
    kept="memory (below 64 MB more), and service for the others",
)
@pytest.mark.parametrize("known", [False, True], ids=["a stranger", "a node"])
def test_floods_of_garbage_take_no_memory(town: Town, known: bool) -> None:
    (one,) = town.add_nodes("one")
    joined = Joined.load(Home(one.home))
    tls = joined.tls() if known else ssl.create_default_context(cafile=str(joined.folder / "authority.pem"))
    before = memory(town.gateway.pid, "VmRSS")
    paths = endpoints(town)
    assert len(paths) >= 11
    for name, head in HEADS.items():
        for path in paths if name in ("a length", "chunks") else paths[:1]:
            answer = pour(town.address, tls, head.replace(b"%s", path), name == "chunks")
            assert not answer or re.match(rb"HTTP/1.1 4\d\d ", answer), (name, path, answer[:100])
    grown = memory(town.gateway.pid) - before
    assert grown < BOUND, f"{grown / 1e6:.0f} MB"
    Campaign(town, iterations(2)).verify()


@pytest.mark.fault(
    "300 MB of garbage to each endpoint",
    on="federation",
    happens="what a node sends as the result of an attempt that it holds goes to the disk, is found to be none, and is removed",
    kept="memory (below 64 MB more) and disk",
)
def test_a_flood_of_garbage_as_a_result_leaves_nothing_behind(town: Town, tmp_path: Path) -> None:
    hand = join(Home(tmp_path / "hand"), Office(town.home).invite(), "hand")
    before = memory(town.gateway.pid, "VmRSS")
    attempt, length = asyncio.run(lease_one(town, hand)), AMOUNT // len(CHUNK) * len(CHUNK)
    told = {"Host": "g", "Manybody-Protocol": 1, "Manybody-Attempt": attempt, "Content-Length": length}
    told |= {"Upload-Offset": 0, "Upload-Length": length}
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    answer = pour(town.address, hand.tls(), f"PUT /v1/objects/{'0' * 64} HTTP/1.1\r\n{head}\r\n".encode(), False)
    assert b"expected a result of digest" in answer
    assert memory(town.gateway.pid) - before < BOUND
    assert list(town.home.objects.incoming.iterdir()) == []


async def lease_one(town: Town, hand: Joined) -> str:
    """Submit an attempt and lease it, as a node that a test plays."""
    wanted = task("add", terms=[1.0])
    with closing(town.home.ledger()) as ledger, ledger.database.writing() as connection:
        queue.submit(connection, queue.Queued("held", wanted, {}, frozenset(), 600.0))
    installed_here = {wanted.method: Installed(version=wanted.version, stages=("add",))}
    async with hand.client() as client:
        await client.ask("/v1/node", Report(workers=1, threads=1, memory_bytes=2**30, methods=installed_here), Accepted)
        work = await client.ask("/v1/lease", AskWork(free=1, wait_s=10.0), Work)
    return work.orders[0].attempt
