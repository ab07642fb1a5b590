"""Audits in a run: nodes in this process, some of which lie; whatever they do, what stands in the end is right."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from manybody.core.certificate import Verdict
from manybody.core.errors import TaskError
from manybody.core.protocols import Event, NodeInfo
from manybody.core.study import Plan, Study
from manybody.core.task import Output, Task
from manybody.network.trust import TrustPolicy
from manybody.store import audits
from manybody.store.database import Database
from manybody.store.home import Home
from manybody.store.objects import ObjectStore
from manybody.study.audit import Auditor, same_bits
from manybody.study.conduct import Conductor
from manybody.study.roster import Roster
from manybody.study.standing import OUTDATED
from manybody.study.word import Word

STUDY = Study.model_validate(
    {
        "name": "audits",
        "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
        "method": "molecular-dynamics",
        "measures": ["potential-energy"],
        "checks": ["conservation"],
    }
)
EVERY = TrustPolicy(spot=1.0, arbiter=False)
Lie = Callable[[str, Output, random.Random], Output | str]


def honest(task: Task, inputs: Mapping[str, Output]) -> Output:
    """The sum of the inputs, and something of the task's own."""
    own = task.key.generator().random(3)
    return Output({"x": own + sum(output.arrays["x"] for output in inputs.values())}, {"inputs": sorted(inputs)})


# --- ways to lie: each takes the liar's name, so that no two liars agree ----------------------------------------------


def off(name: str, output: Output, random: random.Random) -> Output:
    return Output({"x": output.arrays["x"] * (1.01 + len(name) * 1e-3 + sum(name.encode()) * 1e-6)}, output.document)


def sometimes(name: str, output: Output, random: random.Random) -> Output:
    return off(name, output, random) if random.random() < 0.5 else output


def not_a_number(name: str, output: Output, random: random.Random) -> Output:
    return Output({"x": np.full(3, np.nan)}, {"by": name})


def wrong_shape(name: str, output: Output, random: random.Random) -> Output:
    return Output({"x": np.zeros(4 + sum(name.encode()))}, output.document)


def fails(name: str, output: Output, random: random.Random) -> str:
    return f"{name} does not want to"


LIES: list[Lie] = [off, sometimes, not_a_number, wrong_shape, fails]


@dataclass
class InProcess:
    """A backend of nodes in this process, one worker each, that compute in an order drawn from a seed."""

    objects: ObjectStore
    nodes_there: dict[str, Lie | None]
    random: random.Random
    queued: dict[str, tuple[Task, dict[str, str], frozenset[str]]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    def submit(self, attempt: str, task: Task, inputs: Mapping[str, str], avoid: frozenset[str] = frozenset()) -> None:
        assert attempt not in self.queued
        self.queued[attempt] = (task, dict(inputs), avoid)

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        while found := [(attempt, name) for attempt in self.queued for name in self._fit(attempt)]:
            attempt, name = self.random.choice(found)
            task, inputs, avoid = self.queued[attempt]
            worker = next(f"{name}/{number}" for number in count(1) if f"{name}/{number}" not in avoid)
            yield Event("started", attempt, task.digest, worker)
            if attempt in self.queued:  # not cancelled since
                del self.queued[attempt]
                yield self._compute(attempt, task, inputs, worker)

    def _fit(self, attempt: str) -> list[str]:
        return [name for name in self.nodes_there if name not in self.queued[attempt][2]]

    def _compute(self, attempt: str, task: Task, inputs: dict[str, str], worker: str) -> Event:
        name = worker.partition("/")[0]
        self.asked[name] += 1
        try:
            output: Output | str = honest(task, {name: self.objects.get(digest) for name, digest in inputs.items()})
        except ValueError as error:  # an input of the wrong shape
            output = str(error)
        lie = self.nodes_there[name]
        if lie is not None and isinstance(output, Output):
            output = lie(name, output, self.random)
        if isinstance(output, str):
            return Event("failed", attempt, task.digest, worker, reason=output)
        stored = self.objects.put(output)
        return Event("finished", attempt, task.digest, worker, result=stored.digest, nbytes=stored.nbytes, seconds=1.0)

    def cancel(self, attempt: str) -> None:
        self.queued.pop(attempt, None)

    def nodes(self) -> list[NodeInfo]:
        return [NodeInfo(name=name, workers=1, threads=1) for name in self.nodes_there]

    def close(self) -> None:
        self.queued.clear()


class OwnMachine(InProcess):
    """The coordinator's own: workers without a node."""

    def _compute(self, attempt: str, task: Task, inputs: dict[str, str], worker: str) -> Event:
        event = super()._compute(attempt, task, inputs, worker)
        return Event(**{**vars(event), "worker": "local-1-1"})


class KilledError(Exception):
    """The run is killed."""


@dataclass
class Mortal:
    """A database whose process is killed before it writes once too often."""

    database: Database
    left: int

    def __getattr__(self, name: str) -> object:
        return getattr(self.database, name)

    @contextmanager
    def writing(self, **how: bool) -> Iterator[Connection]:
        if self.left <= 0:
            raise KilledError
        self.left -= 1
        with self.database.writing(**how) as connection:
            yield connection


@dataclass
class Site:
    """A home and a study in it, run any number of times."""

    home: Home
    plan: Plan
    nodes: dict[str, Lie | None]
    seed: int = 0
    policy: TrustPolicy = EVERY
    backend: InProcess | None = None
    events: list[Event] = field(default_factory=list)

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.plan.tasks

    def conduct(self, kill_at: int | None = None, watch: Callable[[Event], None] = lambda event: None) -> Word:
        """Run to the end, or until the ledger has been written to so often: nothing reaches it any more from there on."""
        ledger = self.home.ledger()
        with closing(ledger):
            ledger.record_study(STUDY)
            run = ledger.begin_run(STUDY.digest, self.home.path, "audits", {})
            ledger.add_tasks(run, self.tasks)
            if kill_at is not None:
                ledger.database = Mortal(ledger.database, kill_at)  # type: ignore[assignment]
            seeded = random.Random(self.seed)
            self.backend = InProcess(self.home.objects, self.nodes, seeded)
            roster = Roster(ledger)
            auditor = Auditor(self.tasks, STUDY.digest, ledger, self.home.secret, self.policy, roster, same_bits)
            own = (lambda: OwnMachine(self.home.objects, {"own": None}, seeded)) if self.policy.arbiter else None
            conductor = Conductor(self.plan, run, ledger, self.home.objects, self.backend, auditor, own)
            self.events = []

            def take(event: Event, *_: object) -> None:
                self.events.append(event)
                watch(event)

            conductor.recover()
            conductor.conduct(take)
            rows = {task.digest: conductor.standing.rows[task.digest] for task in self.tasks}
            word = Word(self.plan, rows, ledger, roster, self.policy, len(auditor.undecided))
            word.findings()  # while the ledger is open
            ledger.end_run(run, "holds", None, None)
            return word

    def bury(self) -> None:
        """Let runs that were killed hold nothing, as when their process is gone."""
        with closing(self.home.ledger()) as ledger:
            for run in ledger.runs():
                ledger.end_run(run.id, "killed", None, None)

    def results(self) -> dict[str, str]:
        with closing(self.home.ledger()) as ledger:
            rows = {task.digest: ledger.result(task.digest) for task in self.tasks}
        return {digest: row.result for digest, row in rows.items() if row is not None}

    def truth(self) -> dict[str, str]:
        """What stands where nobody lies."""
        outputs: dict[str, Output] = {}
        for task in self.tasks:
            outputs[task.digest] = honest(task, {name: outputs[need] for name, need in task.inputs.items()})
        return {digest: self.home.objects.put(output).digest for digest, output in outputs.items()}

    def records(self) -> tuple[dict[str, audits.Standing], list[float]]:
        """The nodes' records, and the chances with which results were recomputed, in the order in which they came."""
        with closing(self.home.ledger()) as ledger, ledger.database.reading() as connection:
            found = audits.of(connection, [each.digest for each in self.tasks])
            return audits.standings(connection), [each.audit.chance for each in found if not each.replica]

    def caught(self) -> set[str]:
        with closing(self.home.ledger()) as ledger, ledger.database.reading() as connection:
            return audits.caught(connection, STUDY.digest)


def task(index: int, *needs: Task, replica: int = 0) -> Task:
    inputs = {f"input-{number}": need.digest for number, need in enumerate(needs)}
    return Task(method="m", stage="s", version="1", system={}, parameters={"index": index}, inputs=inputs, replica=replica)


def chains(count: int, length: int) -> Plan:
    """Chains that a last task reads the ends of, and a replica that a check asks for."""
    tasks, ends = [], []
    for number in range(count):
        last: list[Task] = []
        for place in range(length):
            tasks.append(task(100 * number + place, *last))
            last = tasks[-1:]
        ends += last
    tasks.append(task(9999, *ends))
    return Plan(STUDY, (), (tuple(tasks), (tasks[0].replicated(1),)))


def good(count: int) -> dict[str, Lie | None]:
    return {f"good-{number}": None for number in range(count)}


def made(folder: Path) -> Home:
    """A home whose results need not last."""
    ObjectStore(folder / "objects", scratch=True)
    return Home(folder)


@pytest.fixture
def place(tmp_path: Path) -> Home:
    return made(tmp_path)


@pytest.mark.parametrize("lie", LIES)
def test_one_liar_of_four(place: Home, lie: Lie) -> None:
    site = Site(place, chains(3, 3), good(3) | {"liar": lie}, policy=EVERY)
    word = site.conduct()
    assert site.results() == site.truth()
    assert site.caught() <= {"liar"}
    (finding,) = word.findings()
    assert finding.verdict is Verdict.HOLDS
    assert finding.evidence["results"] == len(site.tasks)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)
@given(
    seed=st.integers(0, 10**6),
    lies=st.lists(st.sampled_from(LIES), max_size=3).filter(lambda lies: lies.count(fails) < 3),
    kills=st.lists(st.integers(1, 90), max_size=3),
)
def test_whatever_liars_do_and_whenever_the_run_is_killed(
    tmp_path_factory: pytest.TempPathFactory, seed: int, lies: list[Lie], kills: list[int]
) -> None:
    """Four good nodes settle whatever liars do that do not agree with one another; nothing counts twice."""
    home = made(tmp_path_factory.mktemp("audits"))
    site = Site(home, chains(2, 3), good(4) | {f"liar-{index}": lie for index, lie in enumerate(lies)}, seed)
    for kill_at in kills:
        with suppress(KilledError):
            site.conduct(kill_at)
        site.bury()
        site.seed += 1
    word = site.conduct()
    assert site.results() == site.truth()
    assert not site.caught() & set(good(4)), "no good node is ever caught"
    assert word.findings()[0].verdict is Verdict.HOLDS
    again = site.conduct()
    assert not site.events, "nothing is left to do"
    assert again.findings() == word.findings(), "the certificate is the same"
    with closing(home.ledger()) as ledger:
        counted = [sum(row.withdrawn is None for row in ledger.history(each.digest)) for each in site.tasks]
    assert set(counted) == {1}


def test_two_runs_at_once_agree_on_what_stands(place: Home) -> None:
    """Both may draw and catch; what one withdraws, the other computes or takes from it."""
    plan, nodes = chains(2, 3), good(3) | {"liar": off}
    sites = [Site(place, plan, nodes, seed) for seed in (1, 2)]
    words: list[Word] = []
    threads = [threading.Thread(target=lambda site=site: words.append(site.conduct())) for site in sites]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(words) == 2
    assert sites[0].results() == sites[0].truth()
    assert all(word.findings()[0].verdict is Verdict.HOLDS for word in words)
    with closing(place.ledger()) as ledger:
        assert all(sum(row.withdrawn is None for row in ledger.history(each.digest)) == 1 for each in plan.tasks)


def test_what_rests_on_a_false_result_is_withdrawn_and_kept_as_history(place: Home) -> None:
    """The liar has the first of a chain; good nodes go on from it until it is caught."""
    first, second, third = task(1), task(2, task(1)), task(3, task(2, task(1)))
    site = Site(place, Plan(STUDY, (), ((first, second, third),)), {"liar": off}, seed=3)

    def watch(event: Event) -> None:
        if event.kind == "finished":
            site.nodes.update(good(3))

    site.conduct(watch=watch)
    assert site.results() == site.truth()
    assert site.caught() == {"liar"}
    with closing(place.ledger()) as ledger:
        (wrong, *_), (right,) = (
            [row for row in ledger.history(first.digest) if (row.withdrawn is None) == counts] for counts in (False, True)
        )
        assert wrong.worker.startswith("liar")
        assert "liar, which was caught" in wrong.reason
        assert right.result == site.truth()[first.digest]
        reasons = {row.reason for each in (second, third) for row in ledger.history(each.digest) if row.withdrawn}
    assert reasons <= {OUTDATED, wrong.reason}


# --- who decides where nodes are too few -------------------------------------------------------------------------------


def test_the_own_machine_decides_where_it_may(place: Home) -> None:
    site = Site(place, chains(1, 2), {"good-1": None, "liar": off}, policy=TrustPolicy(spot=1.0))
    word = site.conduct()
    assert site.results() == site.truth()
    assert site.caught() == {"liar"}
    assert word.findings()[0].verdict is Verdict.HOLDS


def test_without_it_the_question_stays_open_which_is_no_pass(place: Home) -> None:
    site = Site(place, chains(1, 2), {"good-1": None, "liar": off}, policy=EVERY)
    (finding,) = site.conduct().findings()
    assert finding.verdict is Verdict.UNDECIDED
    assert finding.evidence["undecided"] > 0
    assert "could not be settled" in finding.claim
    site.nodes |= {f"late-{number}": None for number in range(3)}
    (finding,) = site.conduct().findings()
    assert finding.verdict is Verdict.HOLDS, "with others there it is settled, without anything else being computed again"
    assert site.results() == site.truth()


def test_a_node_alone_is_checked_by_the_own_machine(place: Home) -> None:
    site = Site(place, chains(1, 3), {"liar": sometimes}, seed=1, policy=TrustPolicy(spot=1.0))
    with pytest.raises(TaskError, match=r"Every node there is was caught: liar\. Let another join"):
        site.conduct()
    site.nodes["good-1"] = None
    site.conduct()
    assert site.results() == site.truth()


# --- what is no node's fault -------------------------------------------------------------------------------------------


def test_a_result_that_two_nodes_find_not_finite_is_the_tasks_own(place: Home) -> None:
    def diverged(name: str, output: Output, random: random.Random) -> Output:
        return Output({"x": np.full(3, np.inf)})

    site = Site(place, chains(1, 1), {"a": diverged, "b": diverged, "c": diverged})
    with pytest.raises(TaskError, match=r"array `x` holds 3 of 3 numbers that are not finite; \w and \w found the same"):
        site.conduct()
    assert not site.caught(), "who was blamed first is pardoned"


def test_a_task_that_fails_everywhere_fails(place: Home) -> None:
    site = Site(place, chains(1, 1), dict.fromkeys("abcde", fails))
    with pytest.raises(TaskError, match=r"of \d tasks failed(?s:.*)does not want to"):
        site.conduct()
    assert not site.caught()


def test_odd_shapes_are_recomputed_for_certain(place: Home) -> None:
    """Nothing is drawn, yet the one result that does not look like its siblings is looked at."""
    never = TrustPolicy(spot=0.0, tolerated=1e12, arbiter=False)
    tasks = tuple(Task(method="m", stage="s", version="1", system={}, parameters={}, repeat=repeat) for repeat in range(9))
    site = Site(place, Plan(STUDY, (), (tasks,)), good(4) | {"liar": wrong_shape}, seed=5, policy=never)
    word = site.conduct()
    assert site.backend is not None
    assert site.backend.asked["liar"] > 0
    assert site.results() == site.truth()
    assert site.caught() == {"liar"}
    assert word.findings()[0].evidence["recomputed"] < len(tasks)


# --- records -------------------------------------------------------------------------------------------------------------


def test_trust_grows_with_what_is_found_right(place: Home) -> None:
    """The chance of being recomputed falls to the share of spot checks; the next run of the study counts nothing again."""
    site = Site(place, chains(8, 2), good(2), policy=TrustPolicy(arbiter=False, spot=0.2))
    (finding,) = site.conduct().findings()
    assert 0 < finding.evidence["recomputed"] < len(site.tasks)
    known, chances = site.records()
    assert chances[0] == float(site.policy.replication(0, 1))
    assert min(chances) < chances[0]
    assert set(known) == {"good-0", "good-1"}
    assert all(0 < each.agreed <= each.results and each.caught == 0 for each in known.values())
    site.conduct()
    assert site.records() == (known, chances)


def test_what_another_run_has_decided_on_a_result_stands(place: Home) -> None:
    """A run that knew the node before, and would hardly have drawn, takes over that another has."""
    site = Site(place, chains(2, 2), good(3))
    with closing(place.ledger()) as ledger:
        trusting = TrustPolicy(arbiter=False, spot=0.0, tolerated=1e9)
        waiting = Auditor(site.tasks, STUDY.digest, ledger, place.secret, trusting, Roster(ledger), same_bits)
        site.conduct()
        rows = [(each, ledger.result(each.digest)) for each in site.tasks if not each.replica]
        for each, row in rows:
            assert row is not None
            waiting.adopt(each, row.attempt, row.worker, row.result)
        waiting.review()
        assert {wanted.replicated(0).digest for wanted in waiting.wanted()} == {each.digest for each, _ in rows}


def test_decisions_follow_from_a_secret_and_not_from_the_study(tmp_path: Path) -> None:
    """Two homes draw differently; one draws the same again, however often it is asked."""
    drawn = []
    for number in range(2):
        home = made(tmp_path / f"home-{number}")
        with closing(home.ledger()) as ledger:
            for _ in range(2):
                auditor = Auditor([task(1)], STUDY.digest, ledger, home.secret, TrustPolicy(), Roster(ledger), same_bits)
                drawn.append([auditor.decide(task(1), f"{attempt:032x}", "node/1").drawn for attempt in range(64)])
    assert drawn[0] == drawn[1]
    assert drawn[2] == drawn[3]
    assert drawn[0] != drawn[2]
    assert (tmp_path / "home-0" / "secret.key").stat().st_mode & 0o077 == 0, "nobody else may read it"


def test_what_went_on_from_anothers_checkpoint_is_recomputed_and_nobody_blamed(
    place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The liar has computed the first half: the good node that went on from there is not to blame."""
    monkeypatch.setattr(Roster, "helpers", lambda roster, digest: {"gone"})
    site = Site(place, Plan(STUDY, (), ((task(1),),)), {"first": off}, seed=1, policy=TrustPolicy(spot=0.0, tolerated=1e12))

    def watch(event: Event) -> None:
        if event.kind == "finished":
            site.nodes.update(good(3))

    site.conduct(watch=watch)
    assert site.results() == site.truth()
    assert not site.caught()
