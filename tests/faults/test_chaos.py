"""A study over a federation while everything breaks at random: the digests of the quiet run, every task done once.

``MANYBODY_CHAOS_SEED=7 pytest tests/faults/test_chaos.py`` draws another campaign. What strikes, on whom and in which
order follows from the seed; the instants are counted in results, so a slow machine sees the same campaign.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sqlalchemy import func, select

from manybody.core.digest import digest_bytes
from manybody.core.random import Key
from manybody.network.federation.client import AwayError, RefusedByGatewayError
from manybody.network.federation.membership import Joined
from manybody.network.federation.protocol import INLINE_LIMIT, Finish, Finished, Judged
from manybody.network.federation.serve import Office
from manybody.store.home import Home
from manybody.store.schema import members, queue, results
from manybody.testing.federation import Process, Town

SEED = int(os.environ.get("MANYBODY_CHAOS_SEED", "1"))
LEASE_S = 2.0
STALL_S = 6.0  # without a result for so long, the next fault strikes all the same: what stalls may be what struck
PATIENCE_S = 300.0  # how long the run may take once nothing strikes any more
RESTARTS = 6  # runs that may end by themselves and are started again: a task that is lost three times ends one
NODES = ("one", "two", "three", "four")
STUDY = """
name: chaos
system: {name: advected-field, velocity_y: 0.5, diffusivity: 0.001, waves: [{cycles_x: 1, cycles_y: 1}]}
method: {name: finite-volume, rows: 256, columns: 256, parts: 2, steps_per_round: 5, time_step: 0.00125,
  duration: 0.175, sample_every: 0.025}
sweep: [{system.velocity_x: 0.5}, {system.velocity_x: 0.75}, {system.velocity_x: 1.0}]
measures: [field-variance]
checks: [conservation, exact, convergence]
"""
FAULTS = {
    "kill a worker": 4, "kill a node": 3, "kill the gateway": 2, "kill the run": 2, "freeze a node": 3, "freeze the gateway": 1,
    "freeze the run": 1, "pour garbage": 4, "replay a result": 4, "rot a result": 4, "rot a result on a node": 2,
    "start a second run": 1, "start a second gateway": 1, "join": 1, "revoke": 1, "leave": 1,
}  # fmt: skip
HEADS = (
    b"POST /v1/lease HTTP/1.1\r\nHost: g\r\nmanybody-protocol: 1\r\nContent-Length: 900000\r\n\r\n",
    b"POST /v1/finish HTTP/1.1\r\nHost: g\r\nmanybody-protocol: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"PUT /v1/objects/" + b"a" * 64 + b" HTTP/1.1\r\nHost: g\r\nmanybody-protocol: 1\r\nContent-Length: 9000000\r\n\r\n",
    b"GET /",
    b"",
)


def counting(home: Home) -> dict[str, str]:
    """The result that counts of every task that has one, recomputations by other nodes included."""
    with closing(home.ledger()) as ledger, ledger.database.reading() as connection:
        found = connection.execute(select(results.c.task, results.c.digest).where(results.c.withdrawn.is_(None))).all()
    assert len({task for task, _ in found}) == len(found), "two results of one task count"
    return {str(task): str(digest) for task, digest in found}


def findings(out: Path) -> dict[str, dict[str, Any]]:
    """What the checks found, by name."""
    certificate = json.loads((out / "certificate.json").read_text(encoding="utf-8"))
    assert certificate["verdict"] == "holds"
    return {found["name"]: found for found in certificate["checks"]}


@dataclass
class Storm:
    """A run of the study over a federation, and what strikes it."""

    town: Town
    study: Path
    wanted: frozenset[str]
    random: np.random.Generator
    told: list[str] = field(default_factory=list)
    frozen: list[tuple[float, list[psutil.Process]]] = field(default_factory=list)
    orphans: list[psutil.Process] = field(default_factory=list)
    gone: list[Process] = field(default_factory=list)
    restarts: int = 0

    def __post_init__(self) -> None:
        self.runs = [self.start_run("out")]
        self._ledger = self.town.home.ledger()

    def start_run(self, out: str) -> Process:
        words = ("run", str(self.study), "--network", self.town.address, "--json", "--out", str(self.town.folder / out))
        where = {"MANYBODY_HOME": str(self.town.home.path)}
        return Process(self.town.folder / f"of {out}", *words, environment=where)  # a log of its own

    def done(self) -> int:
        """How many results of the study count now."""
        with self._ledger.database.reading() as connection:
            counted = select(func.count()).where(results.c.withdrawn.is_(None) & results.c.task.in_(self.wanted))
            return int(connection.execute(counted).scalar_one())

    # --- the course of it --------------------------------------------------------------------------------------

    def rage(self, campaign: list[tuple[int, str]]) -> None:
        """Let every fault of a campaign strike when so many results are there."""
        for when, name in campaign:
            stalled, before = time.monotonic() + STALL_S, self.done()
            while (now := self.done()) < when and (now == 0 or time.monotonic() < stalled):
                stalled = time.monotonic() + STALL_S if now > before else stalled
                before = now
                self.tend()
                time.sleep(0.02)
            strike: Callable[[], str] = getattr(self, name.replace(" ", "_"))
            self.told.append(f"{now} results: {name}: {strike()}")

    def calm(self) -> None:
        """Let what is frozen go on, wait for the runs, and see that they end well."""
        until = time.monotonic() + PATIENCE_S
        while any(run.status is None for run in self.runs) or self.frozen:
            assert time.monotonic() < until, "the run does not end"
            self.tend()
            time.sleep(0.02)

    def tend(self) -> None:
        """Let go on what was frozen for long enough; start a run again that has ended without a certificate."""
        self.thaw(time.monotonic())
        for number, run in enumerate(self.runs):
            if run.status not in (None, 0):
                self.restarts += 1
                assert self.restarts <= RESTARTS, run.said
                self.told.append(f"a run ended with {run.status} and was started again: {run.said[-1500:]}")
                self.runs[number] = self.start_run(f"out-{number}")

    def thaw(self, now: float) -> None:
        """Let go on what was to be frozen until now."""
        for _, processes in [entry for entry in self.frozen if entry[0] <= now]:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGCONT)
        self.frozen = [entry for entry in self.frozen if entry[0] > now]

    def living(self) -> tuple[str, Process]:
        """One of the nodes that are not gone for good."""
        names = sorted(self.town.nodes)
        name = names[self.random.integers(len(names))]
        return name, self.town.nodes[name]

    def freeze(self, process: Process, leases: float) -> str:
        whole = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for each in whole:
            with suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGSTOP)
        self.frozen.append((time.monotonic() + leases * LEASE_S, whole))
        return f"for {leases:.2f} leases"

    # --- what strikes: each returns on whom --------------------------------------------------------------------

    def kill_a_worker(self) -> str:
        name, node = self.living()
        workers = psutil.Process(node.pid).children()
        for worker in workers[:1]:
            worker.kill()
        return f"{name}, {len(workers)} workers"

    def kill_a_node(self) -> str:
        name, node = self.living()
        self.orphans += psutil.Process(node.pid).children(recursive=True)
        node.kill()
        self.town.start_node(name)
        return name

    def kill_the_gateway(self) -> str:
        self.town.gateway.kill()
        self.town.start_gateway()
        return ""

    def kill_the_run(self) -> str:
        self.runs[0].kill()
        self.runs[0] = self.start_run("out")
        return ""

    def freeze_a_node(self) -> str:
        name, node = self.living()
        return f"{name} {self.freeze(node, self.random.uniform(0.3, 2.5))}"

    def freeze_the_gateway(self) -> str:
        return self.freeze(self.town.gateway, self.random.uniform(0.3, 2.0))

    def freeze_the_run(self) -> str:
        return self.freeze(self.runs[0], self.random.uniform(0.3, 2.0)) if self.runs[0].status is None else "has ended"

    def pour_garbage(self) -> str:
        """A few MB of noise, by a node or a stranger, under a head that is well-formed or none."""
        head, known = HEADS[self.random.integers(len(HEADS))], bool(self.random.integers(2))
        joined = Joined.load(Home(self.living()[1].home))
        tls = joined.tls() if known else ssl.create_default_context(cafile=str(joined.folder / "authority.pem"))
        answer = b""
        with suppress(OSError), self.connected(tls) as line:
            with suppress(OSError):
                line.sendall(head + self.random.bytes(2_000_000))
            answer = line.recv(12)
        assert answer[9:10] in (b"", b"4"), answer
        return f"{head[:24]!r} by {joined.name if known else 'a stranger'}: {answer!r}"

    @contextmanager
    def connected(self, tls: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
        host, _, port = self.town.address.removeprefix("https://").rpartition(":")
        with (
            socket.create_connection((host, int(port)), timeout=3) as plain,
            tls.wrap_socket(plain, server_hostname=host) as line,
        ):
            yield line

    def replay_a_result(self) -> str:
        """Say once more, word for word, what a node has said of a result."""
        columns = (
            queue.c.attempt,
            queue.c.task,
            queue.c.result,
            queue.c.worker,
            queue.c.seconds,
            queue.c.signature,
            members.c.name,
        )
        ended = select(*columns).join(members).where(queue.c.state == "finished").order_by(queue.c.attempt)
        with self._ledger.database.reading() as connection:
            rows = connection.execute(ended).all()
        attempt, task, result, worker, seconds, signature, name = rows[self.random.integers(len(rows))]
        path = self.town.home.objects.path(result)
        content = path.read_bytes() if path.exists() and path.stat().st_size <= INLINE_LIMIT else b""
        said = Finish(
            attempt=attempt, task=task, result=result, worker=worker, seconds=seconds, signature=signature,
            content=base64.b64encode(content).decode(),
        )  # fmt: skip
        try:
            judged = asyncio.run(self.say(name, Finished(results=(said,))))
        except (AwayError, RefusedByGatewayError) as error:
            return f"of {name}: {error}"
        assert judged.refused[attempt][0] in (404, 409, 422), judged
        return f"of {name}: {judged.refused[attempt]}"

    async def say(self, name: str, message: Finished) -> Judged:
        async with Joined.load(Home(self.town.folder / name)).client() as client:
            return await client.ask("/v1/finish", message, Judged, patience_s=3.0)

    def rot_a_result(self) -> str:
        return self.rot(self.town.home)

    def rot_a_result_on_a_node(self) -> str:
        return self.rot(Home(self.living()[1].home))

    def rot(self, home: Home) -> str:
        """Flip a bit of one of the newest results of a home; as a failing disk would, at the same time of change."""
        with suppress(FileNotFoundError):  # just set aside
            stored = sorted(home.objects.root.glob("??/*.safetensors"), key=lambda path: path.stat().st_mtime)[-8:]
            if not stored:
                return "nothing"
            path = stored[self.random.integers(len(stored))]
            stat = path.stat()
            path.chmod(0o644)
            with path.open("r+b") as file:
                file.seek(stat.st_size // 2)
                byte = file.read(1)[0]
                file.seek(stat.st_size // 2)
                file.write(bytes([byte ^ 4]))
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            return f"{path.parent.name}{path.stem[:6]} of {home.path.name}"
        return "nothing"

    def start_a_second_run(self) -> str:
        self.runs.append(self.start_run("second"))
        return ""

    def start_a_second_gateway(self) -> str:
        second = Process(self.town.home.path, "network", "up", "--port", "0")
        assert second.wait() == 2, second.said
        return ""

    def join(self) -> str:
        """A node more; it can come only where the gateway answers."""
        self.thaw(float("inf"))
        self.town.start_node("late", Office(self.town.home).invite()).wait_for("is ready")
        return ""

    def revoke(self) -> str:
        name, _ = self.dismiss()
        self.town.manybody("revoke", name)
        return name

    def leave(self) -> str:
        name, node = self.dismiss()
        node.ask_to_stop()
        return name

    def dismiss(self) -> tuple[str, Process]:
        """A node, no more one of those that shall live."""
        name, node = self.living()
        self.gone.append(self.town.nodes.pop(name))
        return name, node


def drawn(key: Key, tasks: int) -> list[tuple[int, str]]:
    """A campaign: every fault as often as told, in any order, spread over the study."""
    random = key.generator()
    names = [name for name, times in FAULTS.items() for _ in range(times)]
    instants = np.sort(random.integers(4, tasks - 10, len(names)))
    return [(int(when), names[index]) for when, index in zip(instants, random.permutation(len(names)), strict=True)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "study.yaml"
    path.write_text(STUDY, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def quiet(study: Path) -> Home:
    """A home with the study computed by a run that nobody disturbed."""
    home = Home(study.parent / "quiet")
    run = Process(home.path, "run", str(study), "--json", "--out", str(study.parent / "out"))
    assert run.wait() == 0, run.said
    return home


@pytest.fixture
def storm(study: Path, quiet: Home, tmp_path: Path) -> Iterator[Storm]:
    with Town(tmp_path, LEASE_S) as town:
        town.add_nodes(*NODES)
        storm = Storm(town, study, frozenset(counting(quiet)), Key.from_seed(SEED, "strikes").generator())
        try:
            yield storm
        finally:
            print(f"seed {SEED}:", *storm.told, sep="\n  ", file=sys.stderr)
            storm._ledger.close()
            storm.thaw(float("inf"))
            for process in [*storm.runs, *storm.gone]:
                process.kill()


@pytest.mark.timeout(900)
@pytest.mark.fault(
    "all of these at random",
    on="federation",
    happens="a study of 200 tasks runs while all of this strikes it, and nodes join, leave and are revoked",
    kept="the digests of the quiet run and its certificate; every task is finished once",
)
def test_a_study_in_a_storm_ends_with_the_digests_of_the_quiet_run(study: Path, quiet: Home, storm: Storm) -> None:
    wanted = counting(quiet)
    assert len(wanted) >= 200
    storm.rage(drawn(Key.from_seed(SEED, "campaign"), len(wanted)))
    storm.calm()
    last = storm.start_run("last")  # computes again what has rotted after its last use
    assert last.wait() == 0, last.said
    home = storm.town.home
    counted = counting(home)
    assert {task: counted[task] for task in wanted} == wanted
    assert all(digest_bytes(home.objects.path(digest).read_bytes()) == digest for digest in wanted.values())
    found, undisturbed = findings(storm.town.folder / "last"), findings(study.parent / "out")
    assert {name: found[name] for name in undisturbed} == undisturbed
    with closing(home.ledger()) as ledger:
        for task in wanted:
            history, ended = ledger.history(task), [attempt.state for attempt in ledger.attempts(task)]
            assert ended.count("finished") == len(history), "a task was counted twice"
            assert "running" not in ended
            assert all("corrupt" in row.reason or "no longer in the store" in row.reason for row in history[:-1])
    assert_sound(storm)


def assert_sound(storm: Storm) -> None:
    """All processes that shall live do, the others are gone, and none has met what it did not expect."""
    assert [process.status for process in (storm.town.gateway, *storm.town.nodes.values())] == [None] * (
        len(storm.town.nodes) + 1
    )
    assert {process.wait() for process in storm.gone} <= {0, 1, -signal.SIGTERM}
    assert psutil.wait_procs(storm.orphans, timeout=20.0)[1] == [], "workers outlive their node"
    shown = {row["name"]: row["trust"] for row in json.loads(storm.town.manybody("nodes", "--json"))}
    assert [name for name, trust in shown.items() if trust["caught"]] == [], "an honest node was caught"
    for log in storm.town.folder.glob("*/*.log"):
        assert "Traceback" not in log.read_text(errors="replace"), log
