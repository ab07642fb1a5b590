"""kill -9 in the middle of a task, on a cluster and in a federation: another goes on where it was, with the same bits."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from manybody.core.digest import digest_bytes
from manybody.core.protocols import Backend, Event
from manybody.core.study import Plan, Study
from manybody.core.task import Output, Progress, Task
from manybody.network.cluster import Cluster
from manybody.network.cluster_local import LocalCluster
from manybody.store import handover
from manybody.store.encoding import encode
from manybody.store.home import Home
from manybody.store.provenance import provenance
from manybody.study.conduct import Conductor
from manybody.testing.federation import Town
from manybody.testing.methods import installed, iterate, let_through, task

STUDY = Study.model_validate(
    {
        "name": "resuming",
        "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
        "method": "molecular-dynamics",
        "measures": ["potential-energy"],
        "checks": ["conservation"],
    }
)


class Nowhere:
    """A context for a task that is computed here, to know what must come out."""

    device, threads = "cpu", 1

    def progress(self, progress: Progress) -> None: ...

    def resume(self) -> None:
        return None

    def keep(self, output: Output) -> None: ...


@dataclass
class Site:
    """A backend over a home, and how to kill -9 whoever computes as a worker of this name."""

    home: Home
    backend: Backend
    kill: Callable[[str], None]

    def conduct(self, only: Task, watch: Callable[[Event], None]) -> dict[str, str]:
        """Conduct one task; the digests of its results."""
        plan = Plan(STUDY, (), ((only,),))
        with closing(self.home.ledger()) as ledger:
            ledger.record_study(STUDY)
            run = ledger.begin_run(STUDY.digest, self.home.path / "out", "conduct", provenance())
            ledger.add_tasks(run, plan.tasks)
            conductor = Conductor(plan, run, ledger, self.home.objects, self.backend)
            conductor.conduct(lambda event, *_: watch(event))
            ledger.end_run(run, "ended", None, None)
            return dict(conductor.standing.results)


@pytest.fixture(params=["cluster", "federation"])
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name, value in installed(tmp_path / "plugin").items():
        monkeypatch.setenv(name, value)
    with ExitStack() as running:
        if request.param == "federation":
            town = running.enter_context(Town(tmp_path, lease_s=2.0, checkpoint_s=0.1))
            town.add_nodes("one", "two")
            backend: Backend = running.enter_context(town.backend())
            yield Site(town.home, backend, lambda worker: town.nodes[worker.partition("/")[0]].kill())
        else:
            machines = running.enter_context(LocalCluster(tmp_path / "cluster", nodes=2))
            home = Home(tmp_path / "home")
            cluster = Cluster(machines.address, home.objects.root, machines.security, 2, checkpoint_s=0.1)
            backend = running.enter_context(cluster)
            yield Site(home, backend, lambda worker: machines.send(worker.rpartition("/")[0], signal.SIGKILL))


@pytest.mark.fault(
    "kill -9 of a node",
    on="cluster",
    happens="a long task goes on from its last checkpoint on another node",
    kept="what lies before the checkpoint; the same bits in the end",
)
@pytest.mark.fault(
    "kill -9 of a node",
    on="federation",
    happens="a long task goes on from its last checkpoint, which the node had signed and left at the gateway, on another",
    kept="what lies before the checkpoint; the same bits in the end",
)
def test_another_goes_on_from_the_last_checkpoint_with_the_same_bits(site: Site, tmp_path: Path) -> None:
    long = task("iterate", steps=200_000, gate=str(tmp_path / "gate"))
    left: list[float] = []
    resumed: list[float] = []
    kinds: set[str] = set()

    def watch(event: Event) -> None:
        if event.kind == "checkpoint" and event.progress and not left:
            left.append(event.progress.fraction)
            site.kill(event.worker)
        elif event.kind in ("started", "lost"):
            resumed.clear()
            kinds.add(event.kind)
        elif event.kind == "progress" and event.progress:
            resumed.append(event.progress.fraction)
            if "lost" in kinds:
                let_through([long])

    found = site.conduct(long, watch)
    undisturbed = digest_bytes(encode(iterate(long, {}, Nowhere())))
    assert found == {long.digest: undisturbed}
    with closing(site.home.ledger()) as ledger:
        first, second = ledger.attempts(long.digest)
        assert (first.state, second.state) == ("lost", "finished")
        assert min(resumed) >= left[0] > 0, "what was behind the checkpoint was computed again"
        assert ledger.checkpoint(long.digest) is None
        with ledger.database.reading() as connection:  # the ledger can tell whose work the result rests on, too
            named = handover.contributors(connection, long.digest)
    assert named <= {"one", "two"}
    stored = {path.parent.name + path.stem for path in site.home.objects.root.glob("??/*.safetensors")}
    assert stored == {undisturbed}, "checkpoints are left in the store"
