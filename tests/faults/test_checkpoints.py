"""kill -9 in the middle of a task: the next attempt goes on from the last checkpoint, and ends with the same bits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from manybody.core.errors import TaskError
from manybody.core.protocols import Event
from manybody.core.study import Plan, Study
from manybody.core.task import Task
from manybody.network.local import Embedded
from manybody.store.home import Home
from manybody.store.provenance import provenance
from manybody.study.conduct import Conductor
from manybody.study.expand import expand
from manybody.testing.methods import installed, task

STUDY = Study.model_validate(
    {
        "name": "checkpointed",
        "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776, "atoms": 128, "cutoff": 2.5},
        "method": {"name": "molecular-dynamics", "equilibration": 16.0, "duration": 16.0, "segment": 16.0, "frame_every": 0.8},
        "measures": ["potential-energy"],
        "checks": ["conservation"],
    }
)
FOREVER = 10**12  # steps
Watch = Callable[[Event], None]


def conduct(home: Home, watch: Watch = lambda event: None, plan: Plan | None = None) -> dict[str, str]:
    """Conduct a plan on one worker that stores every checkpoint; the digests of its results."""
    plan = plan or expand(STUDY)
    with closing(home.ledger()) as ledger, closing(Embedded(home.objects.root, 1, checkpoint_s=0.0)) as backend:
        ledger.record_study(plan.study)
        run = ledger.begin_run(plan.study.digest, home.path / "out", "conduct", provenance())
        ledger.add_tasks(run, plan.tasks)
        conductor = Conductor(plan, run, ledger, home.objects, backend)
        conductor.recover()
        try:
            conductor.conduct(lambda event, *_: watch(event))
        finally:
            ledger.end_run(run, "ended", None, None)
        return conductor.results


def kill_workers() -> None:
    """kill -9 of every worker of this process."""
    for child in psutil.Process().children():
        if "manybody.network.worker" in child.cmdline():
            child.kill()


def stored(home: Home) -> set[str]:
    """The digest of every object in the store."""
    return {path.parent.name + path.stem for path in home.objects.root.glob("??/*.safetensors")}


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The results of a run that nobody disturbed."""
    return conduct(Home(tmp_path_factory.mktemp("quiet")))


@pytest.mark.fault(
    "kill -9 of a worker",
    on="embedded",
    happens="a long task goes on from its last checkpoint on another worker",
    kept="what lies before the checkpoint; the same bits in the end",
)
def test_a_task_whose_worker_is_killed_goes_on_from_its_last_checkpoint_with_the_same_bits(
    quiet: dict[str, str], tmp_path: Path
) -> None:
    home = Home(tmp_path)
    killed: dict[str, float] = {}
    last: dict[str, float] = {}
    resumed: dict[str, float] = {}

    def watch(event: Event) -> None:
        fraction = event.progress.fraction if event.progress else 0.0
        if event.kind == "checkpoint" and event.attempt not in killed:
            last.setdefault(event.attempt, fraction)
            if event.task not in killed:
                killed[event.task] = fraction
                kill_workers()
        elif event.kind == "progress" and event.task in killed:
            resumed[event.attempt] = min(fraction, resumed.get(event.attempt, 1.0))

    assert conduct(home, watch) == quiet
    assert len(killed) == len(quiet) == 2
    with closing(home.ledger()) as ledger:
        for digest, fraction in killed.items():
            first, second = ledger.attempts(digest)
            assert (first.state, second.state) == ("lost", "finished")
            assert resumed[second.id] > fraction  # what was behind the checkpoint was not computed again
            assert ledger.checkpoint(digest) is None
    assert stored(home) == set(quiet.values())  # no checkpoint is left


@pytest.mark.fault(
    "kill -9 of the run",
    on="embedded",
    happens="the next run goes on from the checkpoint of the task that was running",
    kept="what lies before the checkpoint; the same bits in the end",
)
def test_a_run_that_is_killed_leaves_its_checkpoint_to_the_next_run(quiet: dict[str, str], tmp_path: Path) -> None:
    home = Home(tmp_path)
    code = (
        "import runpy, sys; from pathlib import Path; from manybody.store.home import Home;"
        "module = runpy.run_path(sys.argv[1]); home = Home(Path(sys.argv[2]));"
        "module['conduct'](home, lambda event: print(event.kind, event.task, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", code, __file__, str(home.path)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        first = next(line.split()[1] for line in run.stdout if line.startswith("checkpoint"))
        run.kill()
    with closing(home.ledger()) as ledger:
        left = ledger.checkpoint(first)
        assert left is not None
        assert home.objects.has(left.digest)
    fractions: dict[str, list[float]] = {}

    def watch(event: Event) -> None:
        if event.kind == "progress" and event.progress:
            fractions.setdefault(event.task, []).append(event.progress.fraction)

    assert conduct(home, watch) == quiet
    assert min(fractions[first]) > left.fraction


# --- what a worker does with checkpoints, by a tiny method --------------------------------------------------------


@pytest.fixture
def arithmetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose workers know the testing method."""
    for name, value in installed(tmp_path / "plugin").items():
        monkeypatch.setenv(name, value)
    return Home(tmp_path / "home")


def first_checkpoint(home: Home, wanted: Task) -> Event:
    """The first checkpoint of a task, which is killed then."""
    with closing(Embedded(home.objects.root, 1, checkpoint_s=0.0)) as backend:
        backend.submit_resumable("first", wanted, {}, frozenset(), "")
        return next(event for event in backend.events() if event.kind == "checkpoint")


def told(home: Home, wanted: Task, checkpoint: str | None, checkpoint_s: float = 0.0) -> list[Event]:
    """Every event of one attempt."""
    with closing(Embedded(home.objects.root, 1, checkpoint_s=checkpoint_s)) as backend:
        if checkpoint is None:
            backend.submit("again", wanted, {})
        else:
            backend.submit_resumable("again", wanted, {}, frozenset(), checkpoint)
        return list(backend.events())


@pytest.mark.parametrize("damage", ["none", "flipped", "removed"])
def test_a_damaged_checkpoint_is_never_gone_on_from(arithmetic: Home, damage: str) -> None:
    wanted = task("iterate", steps=20_000)
    plain = told(arithmetic, wanted, None)[-1]
    left = first_checkpoint(arithmetic, wanted).result
    path = arithmetic.objects.path(left)
    if damage == "flipped":
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    elif damage == "removed":
        path.unlink()
    events = told(arithmetic, wanted, left)
    assert events[-1].result == plain.result
    begun = min(event.progress.simulated for event in events if event.progress)
    assert (begun > 0) == (damage == "none")


def test_the_checkpoint_of_another_task_is_refused(arithmetic: Home) -> None:
    left = first_checkpoint(arithmetic, task("iterate", steps=20_000)).result
    end = told(arithmetic, task("iterate", steps=20_001), left)[-1]
    assert end.kind == "failed"
    assert "expected its checkpoint" in end.reason


def test_checkpoints_are_kept_only_where_they_are_wanted_and_due(arithmetic: Home) -> None:
    wanted = task("iterate", steps=20_000)
    plain, rare = told(arithmetic, wanted, None), told(arithmetic, wanted, "", checkpoint_s=3600.0)
    assert [event.kind for event in plain + rare if event.kind == "checkpoint"] == []
    assert stored(arithmetic) == {plain[-1].result} == {rare[-1].result}


def test_the_time_of_a_resumed_task_counts_what_went_before(arithmetic: Home) -> None:
    wanted = task("iterate", steps=20_000)
    left = first_checkpoint(arithmetic, wanted).result
    before = float(arithmetic.objects.get(left).document["seconds"])
    assert before > 0
    assert told(arithmetic, wanted, left)[-1].seconds > before


def test_a_task_that_fails_by_itself_does_not_go_on_from_what_it_left(arithmetic: Home) -> None:
    wanted = task("iterate", steps=20_000, fail_at=15_000)
    plan = Plan(STUDY, (), ((wanted,),))
    with pytest.raises(TaskError, match="diverged at step 15000"):
        conduct(arithmetic, plan=plan)
    with closing(arithmetic.ledger()) as ledger:
        assert ledger.checkpoint(wanted.digest) is None
    assert stored(arithmetic) == set()
