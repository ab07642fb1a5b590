"""A federation in which some nodes lie: they are caught, what they touched is done again, and the answer is the right one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import get_args

import pytest

from manybody.core.certificate import Verdict
from manybody.core.digest import digest_bytes
from manybody.core.protocols import Event
from manybody.core.study import Plan, Study
from manybody.core.task import Output, Progress, Task
from manybody.network.federation.serve import Office
from manybody.network.trust import TrustPolicy
from manybody.store.encoding import encode
from manybody.store.rows import ResultRow
from manybody.study.audit import Auditor
from manybody.study.compare import Comparing
from manybody.study.conduct import Conductor
from manybody.study.roster import Roster
from manybody.study.word import Word
from manybody.testing.federation import Town
from manybody.testing.lies import Lie, lying
from manybody.testing.methods import add, installed, task

STUDY = Study.model_validate(
    {
        "name": "lies",
        "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
        "method": "molecular-dynamics",
        "measures": ["potential-energy"],
        "checks": ["conservation"],
    }
)
GOOD = ("good-1", "good-2", "good-3")
LIARS: dict[str, Lie] = {lie.replace(" ", "-"): lie for lie in get_args(Lie)}


class Nowhere:
    """A context for a task that is computed here, to know what must come out."""

    device, threads = "cpu", 1

    def progress(self, progress: Progress) -> None:
        pass

    def resume(self) -> None:
        return None

    def keep(self, output: Output) -> None:
        pass


def chains(count: int, length: int) -> list[Task]:
    """Chains of sums, each from where the one before it ended: what stands in one depends on all before it."""
    found = []
    for number in range(count):
        last: dict[str, str] = {}
        for place in range(length):
            found.append(task("add", last, terms=[1.0 + number, 0.5**place]))
            last = {"before": found[-1].digest}
    return found


def expected(tasks: list[Task]) -> dict[str, str]:
    """The digest of the result of each task where nobody lies."""
    outputs: dict[str, Output] = {}
    for each in tasks:
        outputs[each.digest] = add(each, {name: outputs[need] for name, need in each.inputs.items()}, Nowhere())
    return {digest: digest_bytes(encode(output)) for digest, output in outputs.items()}


def conduct(
    town: Town, plan: Plan, policy: TrustPolicy, watch: Callable[[Event], None] = lambda event: None
) -> tuple[dict[str, ResultRow], Word]:
    """A run of a plan over the federation: its results, and how far its nodes were believed."""
    ledger = town.home.ledger()
    ledger.record_study(plan.study)
    run = ledger.begin_run(plan.study.digest, town.folder / "out", "lies", {})
    ledger.add_tasks(run, plan.tasks)
    roster = Roster(ledger)
    auditor = Auditor(plan.tasks, plan.study.digest, ledger, town.home.secret, policy, roster, Comparing(plan, town.home.objects))
    with closing(town.backend()) as backend:
        conductor = Conductor(plan, run, ledger, town.home.objects, backend, auditor)
        conductor.recover()
        conductor.conduct(lambda event, *_: watch(event))
    results = {each.digest: conductor.standing.rows[each.digest] for each in plan.tasks}
    ledger.end_run(run, "holds", None, None)
    return results, Word(plan, results, ledger, roster, policy, len(auditor.undecided))


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    for name, value in installed(tmp_path / "plugin").items():
        monkeypatch.setenv(name, value)
    with Town(tmp_path) as town:
        yield town


@pytest.mark.fault(
    "NaN from a node",
    on="federation",
    happens="numbers that are not finite are refused on the face of it; the node is caught, what it touched is done again",
    kept="the right answer; nothing is counted twice",
)
@pytest.mark.fault(
    "a result of the wrong shape",
    on="federation",
    happens="other nodes recompute it and find another; the node is caught, what it touched is done again",
    kept="the right answer; nothing is counted twice",
)
@pytest.mark.fault(
    "numbers off by 1 %",
    on="federation",
    happens="other nodes recompute a share of each node's results; the node is caught, what it touched is done again",
    kept="the right answer; nothing is counted twice",
)
def test_liars_are_caught_and_the_answer_is_the_right_one(town: Town, tmp_path: Path) -> None:
    """The liars come first, so that each has a part; as long as they are among themselves, nothing can be settled."""
    for name, lie in LIARS.items():
        town.start_node(name, Office(town.home).invite(), environment=lying(tmp_path / f"lie-{name}", lie))
    for name in LIARS:
        town.nodes[name].wait_for("is ready")
    given: set[str] = set()

    def watch(event: Event) -> None:
        if event.kind in ("finished", "lost") and event.worker:
            given.add(event.worker.partition("/")[0])
        if given >= set(LIARS) and "good-1" not in town.nodes:
            town.add_nodes(*GOOD)

    tasks = chains(12, 4)
    results, word = conduct(town, Plan(STUDY, (), (tuple(tasks),)), TrustPolicy(spot=1.0), watch)
    assert {digest: row.result for digest, row in results.items()} == expected(tasks)
    (finding,) = word.findings()
    assert finding.verdict is Verdict.HOLDS
    assert set(finding.evidence["caught"]) == set(LIARS)
    assert finding.evidence["results"] == len(tasks), "nothing is counted twice"
    assert {row.worker.partition("/")[0] for row in results.values()} <= set(GOOD)
    shown = {row["name"]: row["trust"] for row in json.loads(town.manybody("nodes", "--json"))}
    assert all(shown[name]["caught"] > 0 and shown[name]["agreed"] == 0 for name in LIARS)
    assert all(shown[name]["caught"] == 0 and shown[name]["agreed"] > 0 for name in GOOD)
