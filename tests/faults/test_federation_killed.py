"""A federation whose processes are killed, frozen or late: nothing is lost or counted twice."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from manybody.core.study import Study
from manybody.store import queue
from manybody.testing.campaign import Campaign, expected, gated, iterations
from manybody.testing.federation import Town
from manybody.testing.methods import installed, let_through, task

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


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    for name, value in installed(tmp_path / "plugin").items():
        monkeypatch.setenv(name, value)
    with Town(tmp_path, LEASE_S) as town:
        yield town


def states(town: Town) -> dict[str, int]:
    with closing(town.home.ledger()) as ledger, ledger.database.reading() as connection:
        return queue.count(connection)


@pytest.mark.fault(
    "kill -9 of a worker",
    on="federation",
    happens="its node hands the attempt back at once, with the signal as the reason; a fresh worker takes its place",
    kept="all but what that worker was computing",
)
def test_a_killed_worker_costs_its_node_one_attempt(town: Town, tmp_path: Path) -> None:
    (one,) = town.add_nodes("one")
    campaign = Campaign(town, gated(3, tmp_path / "gates"))
    campaign.go(lambda event: event.kind == "progress")
    for worker in psutil.Process(one.pid).children():
        worker.kill()
    lost = campaign.go(lambda event: event.kind == "lost")
    assert lost is not None
    assert "SIGKILL" in lost.reason
    campaign.verify()
    assert [event.kind for event in campaign.events].count("lost") == 1


@pytest.mark.fault(
    "kill -9 of a node",
    on="federation",
    happens="its leases run out and others compute what it held",
    kept="what it had finished; the other nodes' work is not touched",
)
def test_a_killed_node_costs_only_what_it_was_computing(town: Town, tmp_path: Path) -> None:
    one, _ = town.add_nodes("one", "two")
    campaign = Campaign(town, gated(12, tmp_path / "gates"))
    by_one = campaign.go(lambda event: event.kind == "progress" and event.worker.startswith("one/"))
    assert by_one is not None
    let_through([each for each in campaign.tasks if each.digest == by_one.task])
    campaign.go(lambda event: event.task == by_one.task and event.kind == "finished")
    campaign.go(lambda event: event.kind == "progress" and event.worker.startswith("one/") and event.task != by_one.task)
    one.kill()
    campaign.verify()
    assert campaign.workers() == {"one", "two"}
    assert campaign.workers("lost") == {"one"}
    assert "lost" not in {event.kind for event in campaign.events if event.worker.startswith("two/")}


@pytest.mark.fault(
    "kill -9 of the gateway or the scheduler",
    on="federation",
    happens="nodes compute on and try again; started anew, the gateway goes on from its ledger, at its old address",
    kept="everything: no attempt is lost, no result counted twice",
)
def test_a_killed_gateway_comes_back_to_where_it_was(town: Town, tmp_path: Path) -> None:
    town.add_nodes("one", "two")
    campaign = Campaign(town, [*iterations(3), *gated(13, tmp_path / "gates")])
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


@pytest.mark.fault(
    "a node that hangs and comes back",
    on="federation",
    happens="its lease runs out and another node does the work; awake, its late result is refused and it takes new work",
    kept="one result a task",
)
def test_a_frozen_node_loses_its_lease_and_its_late_result_is_refused(town: Town, tmp_path: Path) -> None:
    (one,) = town.add_nodes("one")
    campaign = Campaign(town, gated(1, tmp_path / "gates"))
    campaign.go(lambda event: event.kind == "progress")
    one.send_all(signal.SIGSTOP)
    let_through(campaign.tasks)
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
    "a gateway that hangs and comes back",
    on="federation",
    happens="nodes compute on; awake, the gateway takes no lease back before its nodes had time to be heard",
    kept="everything: no attempt is lost",
)
def test_a_frozen_gateway_takes_nothing_back_for_having_slept(town: Town, tmp_path: Path) -> None:
    town.add_nodes("one", "two")
    campaign = Campaign(town, gated(4, tmp_path / "gates"))
    campaign.go(lambda event: event.kind == "progress")
    town.gateway.send(signal.SIGSTOP)
    let_through(campaign.tasks)
    select.select([], [], [], 1.5 * LEASE_S)  # leases end meanwhile, and so do tasks
    town.gateway.send(signal.SIGCONT)
    campaign.verify()
    assert campaign.kinds() <= {"started", "progress", "finished"}


@pytest.mark.fault(
    "a node that joins at half time",
    on="federation",
    happens="it gets work at once",
    kept="no result is computed for its sake",
)
def test_a_node_that_joins_at_half_time_takes_its_share(town: Town, tmp_path: Path) -> None:
    town.add_nodes("one")
    campaign = Campaign(town, [*iterations(2), *gated(12, tmp_path / "gates")])
    campaign.go(lambda event: len(campaign.results) == 2)
    town.add_nodes("two")
    campaign.go(lambda event: event.kind == "started" and event.worker.startswith("two/"))
    campaign.verify()
    assert campaign.workers() == {"one", "two"}
