"""A federation whose processes are killed, frozen, starved, cut off and deceived: nothing is lost or counted twice."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from manybody.core.digest import digest_bytes
from manybody.core.protocols import Event
from manybody.core.study import Study
from manybody.core.task import Output, Progress, Task
from manybody.network.federation.membership import Joined
from manybody.network.federation.serve import Office
from manybody.store import members, queue
from manybody.store.encoding import encode
from manybody.store.home import Home
from manybody.testing.federation import Process, Town
from manybody.testing.methods import installed, iterate, task

LEASE_S = 3.0
STUDY = Study.model_validate(
    {
        "name": "faults",
        "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
        "method": "molecular-dynamics",
        "measures": ["potential-energy"],
        "checks": ["conservation"],
    }
)


class Nowhere:
    """A context for a task that is computed here, to know what must come out."""

    device, threads = "cpu", 1

    def progress(self, progress: Progress) -> None:
        pass

    def resume(self) -> None:
        return None

    def keep(self, output: Output) -> None:
        pass


def iterations(count: int, steps: int = 200_000) -> list[Task]:
    return [task("iterate", steps=steps).model_copy(update={"repeat": repeat}) for repeat in range(count)]


def expected(wanted: Task) -> str:
    return digest_bytes(encode(iterate(wanted, {}, Nowhere())))


@dataclass
class Campaign:
    """Tasks computed over a federation, those that are lost once more, as a conductor would."""

    town: Town
    tasks: list[Task]
    prefix: str = "t"
    results: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.backend = self.town.backend()
        self._known = {each.digest: each for each in self.tasks}
        for number, each in enumerate(self.tasks):
            self.backend.submit(f"{self.prefix}{number}-1", each, {})

    def go(self, until: Callable[[Event], bool] = lambda event: False) -> Event | None:
        """Take events until one is met, or all is done."""
        for event in self.backend.events():
            self.events.append(event)
            assert event.kind != "failed", event.reason
            if event.kind == "finished":
                assert event.task not in self.results, "a result was counted twice"
                self.results[event.task] = event.result
            elif event.kind == "lost":
                number, _, tried = event.attempt.partition("-")
                self.backend.submit(f"{number}-{int(tried) + 1}", self._known[event.task], {})
            if until(event):
                return event
        return None

    def verify(self) -> None:
        """Every task has the result that it has when nothing goes wrong."""
        self.go()
        assert self.results == {each.digest: expected(each) for each in self.tasks}
        self.backend.close()

    def workers(self, kind: str = "finished") -> set[str]:
        """The nodes that events of a kind tell of."""
        return {event.worker.partition("/")[0] for event in self.events if event.kind == kind}


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    for name, value in installed(tmp_path / "plugin").items():
        monkeypatch.setenv(name, value)
    with Town(tmp_path, LEASE_S) as town:
        yield town


def states(town: Town) -> dict[str, int]:
    with closing(town.home.ledger()) as ledger, ledger.database.reading() as connection:
        return queue.count(connection)


def memory(pid: int, field: str = "VmHWM") -> int:
    """Memory of a process, bytes: `VmHWM` is the most that it ever had. Source: proc_pid_status(5)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) * 1024


# --- killed ----------------------------------------------------------------------------------------------------


@pytest.mark.fault(
    "kill -9 of a node",
    on="federation",
    happens="its leases run out and others compute what it held",
    kept="what it had finished; the other nodes' work is not touched",
)
def test_a_killed_node_costs_only_what_it_was_computing(town: Town) -> None:
    one, _ = town.add_nodes("one", "two")
    campaign = Campaign(town, iterations(12))
    campaign.go(lambda event: event.kind == "finished" and event.worker.startswith("one/"))
    one.kill()
    campaign.verify()
    assert campaign.workers() == {"one", "two"}
    assert "lost" not in {event.kind for event in campaign.events if event.worker.startswith("two/")}


@pytest.mark.fault(
    "kill -9 of the gateway or the scheduler",
    on="federation",
    happens="nodes compute on and try again; started anew, the gateway goes on from its ledger, at its old address",
    kept="everything: no attempt is lost, no result counted twice",
)
def test_a_killed_gateway_comes_back_to_where_it_was(town: Town) -> None:
    town.add_nodes("one", "two")
    campaign = Campaign(town, iterations(16))
    campaign.go(lambda event: len(campaign.results) == 3)
    address = town.address
    town.gateway.kill()
    town.start_gateway()
    assert town.address == address
    campaign.verify()
    assert {event.kind for event in campaign.events} <= {"started", "progress", "finished"}, "no work was lost"


@pytest.mark.fault(
    "kill -9 of the run",
    on="federation",
    happens="nodes finish what they hold; the next run of the study takes it over",
    kept="everything: no task is computed twice",
)
def test_a_killed_run_leaves_nothing_to_be_done_twice(town: Town) -> None:
    town.add_nodes("one", "two")
    with closing(town.home.ledger()) as ledger:
        ledger.record_study(STUDY)
    command = [sys.executable, str(Path(__file__).with_name("federation_run.py")), str(town.home.path), "12", "300000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        told = [json.loads(next(run.stdout))["kind"] for _ in range(6)]
        run.kill()
    assert "end" not in told
    again = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=120)
    kinds = [json.loads(line)["kind"] for line in again.stdout.splitlines()]
    assert kinds[-1] == "end"
    wanted = iterations(12, 300_000)
    with closing(town.home.ledger()) as ledger:
        found = {each.digest: ledger.history(each.digest) for each in wanted}
    assert {digest: [row.result for row in rows] for digest, rows in found.items()} == {
        each.digest: [expected(each)] for each in wanted
    }
    assert states(town)["finished"] == 12, "what the killed run had asked for was computed again"


# --- frozen, slow, late ----------------------------------------------------------------------------------------


@pytest.mark.fault(
    "a node that hangs and comes back",
    on="federation",
    happens="its lease runs out and another node does the work; awake, its late result is refused and it takes new work",
    kept="one result a task",
)
def test_a_frozen_node_loses_its_lease_and_its_late_result_is_refused(town: Town) -> None:
    (one,) = town.add_nodes("one")
    campaign = Campaign(town, iterations(1, 20_000_000))
    campaign.go(lambda event: event.kind == "progress")
    one.send_all(signal.SIGSTOP)
    town.add_nodes("two")
    campaign.go()
    assert campaign.workers("lost") == {"one"}
    assert campaign.workers() == {"two"}
    town.nodes["two"].stop()
    one.send_all(signal.SIGCONT)
    before = states(town)
    following = Campaign(town, [task("add", terms=[1.0])], "after")
    assert following.go(lambda event: event.kind == "finished") is not None
    assert following.workers() == {"one"}, "once awake, it works on"
    following.backend.close()
    campaign.verify()
    assert states(town)["finished"] == before["finished"] + 1


@pytest.mark.fault(
    "a node that joins at half time",
    on="federation",
    happens="it gets work at once",
    kept="no result is computed for its sake",
)
def test_a_node_that_joins_at_half_time_takes_its_share(town: Town) -> None:
    town.add_nodes("one")
    campaign = Campaign(town, iterations(14, 400_000))
    campaign.go(lambda event: len(campaign.results) == 2)
    town.add_nodes("two")
    campaign.verify()
    assert campaign.workers() == {"one", "two"}


# --- starved, deceived -----------------------------------------------------------------------------------------


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
    "clock skew",
    on="federation",
    happens="nothing: the protocol knows durations only, and no time of day of a node",
    kept="everything, with a clock 20 hours behind and 200 ahead",
)
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler for the shifted clock")
@pytest.mark.parametrize("hours", [-20, 200])
def test_a_node_whose_clock_is_wrong_works_like_any_other(town: Town, tmp_path: Path, hours: int) -> None:
    library = tmp_path / "wrong_clock.so"
    source = Path(__file__).with_name("wrong_clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    wrong = {"LD_PRELOAD": str(library), "WRONG_CLOCK_S": str(hours * 3600)}
    town.start_node("wrong", Office(town.home).invite(), environment=wrong).wait_for("is ready")
    campaign = Campaign(town, iterations(4))
    campaign.verify()
    assert {event.kind for event in campaign.events} <= {"started", "progress", "finished"}


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
    "a revoked certificate",
    on="federation",
    happens="the node stops, and says why",
    kept="what it had finished; what it held is done elsewhere",
)
def test_a_node_that_is_revoked_ends_and_its_work_is_done_elsewhere(town: Town) -> None:
    one, _ = town.add_nodes("one", "two")
    campaign = Campaign(town, iterations(8, 400_000))
    campaign.go(lambda event: event.worker.startswith("one/"))
    town.manybody("revoke", "one")
    assert one.wait() == 1
    assert "revoked" in one.said
    campaign.verify()
    late = [event for event in campaign.events if event.kind == "finished" and event.worker.startswith("one/")]
    assert len(late) < 8


# --- garbage ---------------------------------------------------------------------------------------------------

AMOUNT = 300_000_000
BOUND = 64_000_000  # of memory, for whatever comes: a few pieces of 1 MB, and what Python's allocator keeps
PATHS = ("/v1/join", "/v1/hello", "/v1/node", "/v1/lease", "/v1/heartbeat", "/v1/finish", "/v1/fail", "/v1/leave")
HEADS = {
    "a length": b"POST %s HTTP/1.1\r\nHost: g\r\nmanybody-protocol: 1\r\nContent-Length: 300000000\r\n\r\n",
    "chunks": b"POST %s HTTP/1.1\r\nHost: g\r\nmanybody-protocol: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "an endless header": b"POST %s HTTP/1.1\r\nHost: g\r\nX: ",
    "an endless line": b"POST %s?",
    "no HTTP": b"\x00\xff%s",
}
CHUNK = os.urandom(1 << 16).replace(b"\r", b"x").replace(b"\n", b"x")


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
    for name, head in HEADS.items():
        for path in PATHS if name in ("a length", "chunks") else PATHS[:1]:
            answer = pour(town.address, tls, head.replace(b"%s", path.encode()), name == "chunks")
            assert not answer or re.match(rb"HTTP/1.1 4\d\d ", answer), (name, path, answer[:100])
    put = f"PUT /v1/objects/{'0' * 64} HTTP/1.1\r\nHost: g\r\nmanybody-protocol: 1\r\nContent-Length: {AMOUNT}\r\n\r\n"
    pour(town.address, tls, put.encode(), False)
    grown = memory(town.gateway.pid) - before
    assert grown < BOUND, f"{grown / 1e6:.0f} MB"
    Campaign(town, iterations(2)).verify()


# --- cut off ---------------------------------------------------------------------------------------------------


@dataclass
class Cable:
    """A network namespace, linked to this one by a cable that can be pulled."""

    name: str
    here: str
    there: str

    def pull(self) -> None:
        subprocess.run(["ip", "link", "set", self.name, "down"], check=True)

    def plug(self) -> None:
        subprocess.run(["ip", "link", "set", self.name, "up"], check=True)


@pytest.fixture
def cable() -> Iterator[Cable]:
    number = os.getpid() % 250
    name, here, there = f"mb{os.getpid()}", f"10.213.{number}.1", f"10.213.{number}.2"
    steps = (
        f"ip netns add {name}", f"ip link add {name} type veth peer name far netns {name}", f"ip addr add {here}/24 dev {name}",
        f"ip link set {name} up", f"ip -n {name} addr add {there}/24 dev far", f"ip -n {name} link set far up",
        f"ip -n {name} link set lo up",
    )  # fmt: skip
    try:
        for step in steps:
            done = subprocess.run(step.split(), capture_output=True, check=False)
            if done.returncode:
                pytest.skip(f"may not make network namespaces here: {done.stderr.decode().strip()}")
        yield Cable(name, here, there)
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.mark.fault(
    "a network cut and healed",
    on="federation",
    happens="a cut beyond the lease loses the attempts of the node; once it is healed, the node works on by itself",
    kept="one result a task; no second membership",
)
def test_a_network_cut_and_healed_loses_and_repeats_nothing(
    cable: Cable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in installed(tmp_path / "plugin").items():
        monkeypatch.setenv(name, value)
    with Town(tmp_path, LEASE_S, host=cable.here) as town:
        far = ("ip", "netns", "exec", cable.name)
        node = town.start_node("far", Office(town.home).invite(), prefix=far)
        node.wait_for("is ready")
        campaign = Campaign(town, iterations(2, 8_000_000))
        campaign.go(lambda event: event.kind == "progress")
        cable.pull()
        lost = campaign.go(lambda event: event.kind == "lost")
        assert lost is not None
        assert "has not been heard" in lost.reason
        cable.plug()
        campaign.verify()
        assert campaign.workers() == {"far"}
        with closing(town.home.ledger()) as ledger, ledger.database.reading() as connection:
            assert {member.name for member in members.everyone(connection)} == {"far"}
