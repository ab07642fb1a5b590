"""`manybody nodes` on this machine, on a cluster and in a federation: in 80 columns, and as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from manybody.cli import app
from manybody.core.protocols import Backend, Event
from manybody.core.study import Study
from manybody.network.cluster import Cluster
from manybody.network.cluster_local import LocalCluster
from manybody.network.cluster_survey import cluster_view
from manybody.network.survey import Capacity, federation_view, machine_speed
from manybody.store.home import Home
from manybody.store.provenance import architecture, provenance
from manybody.testing.federation import Town
from manybody.testing.methods import installed, task

FOREVER = 10**12  # steps
STUDY = Study.model_validate(
    {
        "name": "nodes",
        "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
        "method": "molecular-dynamics",
        "measures": ["potential-energy"],
        "checks": ["conservation"],
    }
)


@pytest.fixture(autouse=True)
def _plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in installed(tmp_path / "plugin").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MANYBODY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "80")
    return


def shown(*words: str) -> str:
    result = CliRunner().invoke(app, ["nodes", "--no-measure", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def until_progress(backend: Backend) -> Event:
    return next(event for event in backend.events() if event.kind == "progress")


def test_this_machine_with_what_its_runs_compute(tmp_path: Path) -> None:
    wanted = task("iterate", steps=FOREVER)
    with closing(Home(tmp_path / "home").ledger()) as ledger:
        ledger.record_study(STUDY)
        run = ledger.begin_run(STUDY.digest, tmp_path, "manybody run", {})
        ledger.add_tasks(run, [wanted])
        ledger.claim(run, wanted.digest)
        [row] = json.loads(shown("--json"))
        text = shown()
        ledger.end_run(run, "ended", None, None)
        assert json.loads(shown("--json"))[0]["running"] == []
    assert row["name"] == platform.node()
    assert row["workers"] >= 1
    assert row["memory_bytes"] > 2**20
    assert row["load"] >= 0
    [running] = row["running"]
    assert (running["task"], running["worker"]) == (wanted.label, f"run {run}")
    assert 0 <= running["since_s"] < 3600
    assert f"  {wanted.label} for" in text


def test_speed_is_measured_once_for_an_architecture(tmp_path: Path) -> None:
    kept = tmp_path / "capacity.json"
    assert machine_speed(kept, measured=False) == {}
    kept.write_text("no JSON", encoding="utf-8")
    assert machine_speed(kept, measured=False) == {}
    told = Capacity(architecture=architecture(provenance()), speed={"toy": 2.0})
    kept.write_text(told.model_dump_json(), encoding="utf-8")
    assert machine_speed(kept, measured=True) == {"toy": 2.0}
    kept.write_text(told.model_copy(update={"architecture": "another"}).model_dump_json(), encoding="utf-8")
    assert machine_speed(kept, measured=False) == {}


def test_a_federation_in_eighty_columns_and_as_json(tmp_path: Path) -> None:
    wanted = task("iterate", steps=FOREVER)
    with Town(tmp_path) as town:
        town.add_nodes("a-node-whose-name-is-rather-long")
        with closing(town.backend()) as backend:
            done = task("add", terms=[1.0])
            backend.submit("done", done, {})
            assert [event.kind for event in backend.events()][-1] == "finished"
            backend.submit("running", wanted, {})
            worker = until_progress(backend).worker
            text = town.manybody("nodes", "--network", town.address)
            [node] = federation_view(town.home, everyone=False)
            row = node.model_dump(mode="json")
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[0].split() == ["node", "heard", "busy", "memory", "load", "speed", "done", "failed", "lost", "trust"]
    assert "1/1" in text
    assert f"  {wanted.label} for" in text
    assert row["name"] == "a-node-whose-name-is-rather-long"
    assert row["record"] == {"finished": 1, "failed": 0, "lost": 0}
    assert row["heard_s"] < 60
    assert row["load"] >= 0
    [running] = row["running"]
    assert (running["task"], running["worker"]) == (wanted.label, worker)
    assert running["fraction"] >= 0


def test_another_gateway_is_not_taken_for_this_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["nodes", "--network", "https://elsewhere.example:4433"])
    assert result.exit_code != 0


def test_a_cluster_with_what_it_runs(tmp_path: Path) -> None:
    wanted = task("iterate", steps=FOREVER)
    home = Home(tmp_path / "home")
    with LocalCluster(tmp_path / "cluster", nodes=1, cores=2, tls=home.path / "tls") as machines:
        with Cluster(machines.address, home.objects.root, machines.security, 1) as backend:
            backend.submit("running", wanted, {})
            until_progress(backend)
            text = shown("--network", machines.address)
            [busy] = cluster_view(machines.address, home, measured=False)
        [idle] = cluster_view(machines.address, home, measured=False)
    assert max(map(len, text.splitlines())) <= 80
    assert f"  {wanted.label} for" in text
    assert (busy.name, busy.workers, [each.task for each in busy.running]) == ("node-1", 2, [wanted.label])
    assert idle.running == ()
    assert busy.memory_bytes > 2**20
    assert busy.load is not None
    assert busy.methods["testing-arithmetic"] == "1"
