"""A cluster of real processes: lost workers, frozen ones, a scheduler that dies, versions that differ, inputs sent once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from manybody.core.protocols import Event
from manybody.network.cluster import Cluster, Limits
from manybody.network.cluster_local import LocalCluster
from manybody.network.messages import BackendError
from manybody.store.liveness import process_start
from manybody.store.objects import ObjectStore
from manybody.testing.methods import installed, task

FOREVER = 10**12  # steps of an iteration that will not end during a test
LIMITS = Limits(patience_s=20.0, silence_s=3.0, deadline_s=2.0, deadline_factor=1.0)
QUIET = Limits(patience_s=3.0, silence_s=3.0)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A scheduler and two Dask workers; a test that breaks one starts another in its place."""
    folder = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in installed(folder / "plugin").items():
            patch.setenv(name, value)
        with LocalCluster(folder, nodes=2) as machines:
            yield machines


@pytest.fixture
def backend(machines: LocalCluster, tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(machines.address, tmp_path / "objects", machines.security, 2, limits=LIMITS) as backend:
        yield backend


def started(backend: Cluster, *attempts: str) -> dict[str, Event]:
    """Listen until all of these attempts have told progress; the last progress of each."""
    found: dict[str, Event] = {}
    for event in backend.events():
        assert event.kind in ("started", "progress")
        if event.kind == "progress":
            found[event.attempt] = event
        if len(found) == len(attempts):
            break
    return found


def first(backend: Cluster, kind: str) -> Event:
    """The next event of a kind."""
    return next(event for event in backend.events() if event.kind == kind)


def node_of(event: Event) -> str:
    return event.worker.rpartition("/")[0]


def test_all_listen_on_loopback_and_demand_certificates(machines: LocalCluster, tmp_path: Path) -> None:
    """Nothing of a local cluster can be reached from outside; without its certificates there is no connection."""
    Cluster(machines.address, tmp_path / "objects", machines.security, 2, limits=LIMITS).close()  # both have come
    for process in machines.processes.values():
        listening = [each.laddr.ip for each in psutil.Process(process.pid).net_connections() if each.status == "LISTEN"]
        assert set(listening) == {"127.0.0.1"}
    assert machines.address.startswith("tls://")
    assert all((machines.tls / name).stat().st_mode & 0o077 == 0 for name in ("ca.pem", "cert.pem", "key.pem"))
    plain = machines.address.replace("tls://", "tcp://")
    with pytest.raises(BackendError, match="certificates"):
        Cluster(plain, tmp_path / "objects", None, limits=QUIET)


@pytest.mark.fault(
    "kill -9 of a node",
    on="cluster",
    happens="its attempt is lost at once and done elsewhere; it counts as a node no more",
    kept="the other nodes' work",
)
def test_killed_dask_worker_loses_its_attempt_alone(machines: LocalCluster, backend: Cluster) -> None:
    """kill -9 of a Dask worker: its attempt is lost at once, the other goes on; the work is done elsewhere."""
    for number in range(2):
        backend.submit(f"long-{number}", task("iterate", steps=FOREVER).replicated(number), {})
    running = started(backend, "long-0", "long-1")
    victim = node_of(running["long-0"])
    machines.send(victim, signal.SIGKILL)
    lost = first(backend, "lost")
    assert lost.attempt == "long-0"
    assert f"{running['long-0'].worker} is gone" in lost.reason
    assert victim not in {node.name for node in backend.nodes()}
    backend.cancel("long-1")
    backend.submit("again", task("iterate", steps=10), {})
    assert node_of(first(backend, "finished")) != victim
    machines.start_node(victim)


@pytest.mark.fault(
    "a node that hangs and comes back",
    on="cluster",
    happens="after a few silent seconds its attempts are lost and it is retired; awake, what it says counts no more",
    kept="one result a task",
)
def test_frozen_dask_worker_is_retired(machines: LocalCluster, tmp_path: Path) -> None:
    """SIGSTOP of a Dask worker: the engine does not mind, we do after `silence_s`; waking up changes nothing."""
    with Cluster(machines.address, tmp_path / "objects", machines.security, 2, limits=QUIET) as backend:
        backend.submit("long", task("iterate", steps=FOREVER), {})
        running = started(backend, "long")["long"]
        victim = node_of(running)
        machines.send(victim, signal.SIGSTOP)
        lost = first(backend, "lost")
        assert lost.attempt == "long"
        assert "nothing was heard of it for 3 s" in lost.reason
        machines.send(victim, signal.SIGCONT)
        backend.submit("again", task("iterate", steps=10), {})
        told = list(backend.events())
        assert [event.attempt for event in told] == ["again"] * len(told)
        assert node_of(told[-1]) != victim
    machines.processes[victim].wait(20.0)  # retired, it ends when it finds its scheduler gone
    machines.start_node(victim)


@pytest.mark.fault(
    "a node that hangs and comes back",
    on="cluster",
    happens="a task that tells nothing until its deadline is lost and its process killed; its node takes other work",
    kept="one result a task",
)
def test_frozen_task_meets_its_deadline(backend: Cluster) -> None:
    """A process that holds its interpreter and tells nothing is lost at the deadline, and killed; its node stays."""
    backend.submit("stuck", task("hold"), {})
    told = started(backend, "stuck")["stuck"]
    assert told.progress is not None
    pid = int(told.progress.simulated)
    os.kill(pid, signal.SIGSTOP)
    lost = first(backend, "lost")
    assert "told nothing for 2 s" in lost.reason
    backend.submit("next", task("add", terms=[1.0]), {})
    assert first(backend, "finished").attempt == "next"
    assert len(backend.nodes()) == 2
    backend.close()
    assert process_start(pid) is None


def test_inputs_go_to_a_node_once_and_again_when_it_has_lost_them(machines: LocalCluster, tmp_path: Path) -> None:
    """Results stay where they were computed; what a node has thrown away is sent anew, unseen from outside."""
    with Cluster(machines.address, tmp_path / "objects", machines.security, 2, limits=LIMITS) as backend:
        source = task("fill", nbytes=300_000)
        backend.submit("source", source, {})
        made = first(backend, "finished")
        store = ObjectStore(tmp_path / "objects")
        total = task("add", inputs={"a": source.digest}, terms=[])
        backend.submit("wrong", total, {"a": made.result})
        failed = first(backend, "failed")  # the output has no total: the stage was reached, with its input
        assert "total" in failed.reason
        assert node_of(failed) == node_of(made)
        [kept] = _copies(machines, made.result)
        kept.unlink()
        backend.submit("resent", total, {"a": made.result})
        assert "total" in first(backend, "failed").reason
        assert _copies(machines, made.result) == [kept]
        assert kept.read_bytes() == store.path(made.result).read_bytes()


def _copies(machines: LocalCluster, digest: str) -> list[Path]:
    """Where nodes keep a result."""
    return list(Path(machines.scratch).rglob(f"{digest[2:]}.safetensors"))


def test_other_versions_are_named_before_work_is_sent(
    machines: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Dask worker with another numba is refused by name, with what to do; one that comes later is left out."""
    other = tmp_path / "other" / "numba-0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: numba\nVersion: 0.1\n", encoding="utf-8")
    with Cluster(machines.address, tmp_path / "objects", machines.security, 2, limits=LIMITS) as before:
        with monkeypatch.context() as patch:
            patch.setenv("PYTHONPATH", os.pathsep.join([str(other.parent), os.environ["PYTHONPATH"]]))
            machines.start_node("old")
        with pytest.raises(BackendError, match=r"old has numba 0\.1, here (?s:.*)Install the same releases"):
            Cluster(machines.address, tmp_path / "objects", machines.security, 3, limits=LIMITS)
        before.submit("task", task("add", terms=[1.0]), {})
        assert node_of(first(before, "finished")) != "old"
        assert "old" not in {node.name for node in before.nodes()}
    machines.send("old", signal.SIGKILL)
    machines.processes["old"].wait()


RUN = """
import sys
from pathlib import Path
from manybody.network.cluster import Cluster
from manybody.network.cluster_security import security_of
from manybody.testing.methods import task

backend = Cluster(sys.argv[1], Path(sys.argv[2]), security_of(Path(sys.argv[3])), 2)
backend.submit("stuck", task("hold"), {})
for event in backend.events():
    if event.progress:
        print(int(event.progress.simulated), flush=True)
"""


@pytest.mark.fault(
    "kill -9 of the run",
    on="cluster",
    happens="nodes notice that the run is gone and kill what computes for it",
    kept="every result that had come",
)
def test_killed_run_leaves_no_process_at_work(machines: LocalCluster, tmp_path: Path) -> None:
    """kill -9 of a run: its nodes notice, and kill what computes for it."""
    words = [sys.executable, "-c", RUN, machines.address, str(tmp_path / "objects"), str(machines.tls)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        computing = psutil.Process(int(run.stdout.readline()))
        run.kill()
    computing.wait(20.0)


def test_a_closed_backend_takes_no_more(backend: Cluster) -> None:
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.submit("late", task("add", terms=[1.0]), {})


@pytest.mark.fault(
    "kill -9 of the gateway or the scheduler",
    on="cluster",
    happens="what was running is lost, with the reason; a scheduler that is started anew is used, else the run ends and says so",
    kept="every result that had come; what was running is computed again",
)
def test_dead_scheduler_loses_everything_and_is_found_again(machines: LocalCluster, tmp_path: Path) -> None:
    """kill -9 of the scheduler: attempts are lost with the reason; started again, it is used again; else it is said."""
    with Cluster(machines.address, tmp_path / "objects", machines.security, 2, limits=QUIET) as backend:
        for number in range(2):
            backend.submit(f"long-{number}", task("iterate", steps=FOREVER).replicated(number), {})
        started(backend, "long-0", "long-1")
        machines.send("scheduler", signal.SIGKILL)
        lost = list(backend.events())[-2:]
        assert [event.kind for event in lost] == ["lost", "lost"]
        assert all(machines.address in event.reason for event in lost)
        backend.submit("in vain", task("add", terms=[1.0]), {})
        with pytest.raises(BackendError, match="finished is kept"):
            list(backend.events())
        machines.processes["scheduler"].wait()
        assert machines.start_scheduler(int(machines.address.rpartition(":")[2])) == machines.address
        machines.start_node("node-3")
        backend.submit("again", task("add", terms=[1.0]), {})
        assert first(backend, "finished").worker.startswith("node-")
