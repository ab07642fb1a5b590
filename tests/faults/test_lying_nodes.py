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
from manybody.store.home import Home
from manybody.store.rows import ResultRow
from manybody.study.audit import Auditor
from manybody.study.compare import Comparing
from manybody.study.conduct import Conductor
from manybody.study.expand import expand
from manybody.study.roster import Roster
from manybody.study.run import RunOptions, run_study
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


SMALL = {
    "name": "small-liquid",
    "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776, "atoms": 108, "cutoff": 2.5},
    "method": {"name": "molecular-dynamics", "equilibration": 1.0, "duration": 4.0, "segment": 2.0},
    "repeats": 2,
    "measures": ["potential-energy"],
    "checks": ["conservation"],
}


class Watching:
    """A listener that has somebody told of events."""

    def __init__(self, watch: Callable[[Event], None] = lambda event: None) -> None:
        self.watch = watch

    def planned(self, *told: object) -> None: ...

    def event(self, event: Event, *told: object) -> None:
        self.watch(event)

    def judged(self, *told: object) -> None: ...


def test_a_study_on_a_liar_and_one_good_node_has_the_certificate_of_a_quiet_run(town: Town, tmp_path: Path) -> None:
    """Two nodes cannot settle anything: this machine decides. The certificate says who was caught, and of a quiet run that
    its machine was taken at its word."""
    liar = town.start_node("liar", Office(town.home).invite(), environment=lying(tmp_path / "lie", "one per cent"))
    liar.wait_for("is ready")

    def watch(event: Event) -> None:
        if event.kind == "finished" and "good" not in town.nodes:
            town.add_nodes("good")

    study = Study.model_validate(SMALL)
    options = RunOptions(home=town.home.path, out=tmp_path / "out", network=town.address, trust="spot=1.0")
    outcome = run_study(study, options, Watching(watch))
    quiet = run_study(study, RunOptions(home=tmp_path / "quiet", out=tmp_path / "quiet-out", workers=1), Watching())
    *others, trust = outcome.findings.checks
    assert tuple(others) == quiet.findings.checks
    assert trust.name == "trust in nodes"
    assert trust.verdict is Verdict.HOLDS
    assert trust.evidence["caught"].keys() == {"liar"}
    assert "trust in this machine, which was taken at its word" in quiet.findings.missing
    with closing(town.home.ledger()) as ours, closing(Home(tmp_path / "quiet").ledger()) as theirs:
        for each in expand(study).tasks:
            (found, wanted) = (ledger.result(each.digest) for ledger in (ours, theirs))
            assert found is not None
            assert wanted is not None
            assert found.result == wanted.result
            assert found.worker.startswith("good/")
