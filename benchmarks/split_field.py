"""A field split over two processes: time steps a second by rounds and by gang at three halo sizes, and scaling to 2 workers.

Rounds run as tasks of the embedded backend, through the conductor and its ledger; k is chosen by the cost model from
probes measured in the same run, and the prediction is printed beside the measurement, on standard error. The gang's peer
is the same gang over MPI. Targets of 0 mean that none is set: these figures are for choosing, not for passing.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Result, compare
from manybody.core.protocols import Event
from manybody.core.study import Plan, Realisation, Study
from manybody.core.task import Task
from manybody.engines.fields.parts import Moment
from manybody.engines.fields.spec import AdvectedField, FiniteVolume, Wave
from manybody.network.gang import Channel, Gang
from manybody.network.local import Embedded
from manybody.network.rounds import Probe, compute, measure, time_round
from manybody.numerics.rounds import Costs, predict
from manybody.store.home import Home
from manybody.study.conduct import Conductor

NAME = "split-field"
DESCRIPTION = "time steps a second of a field in two slabs, by rounds and by gang, at halos of 64 kB, 1 MB and 10 MB"

SYSTEM = AdvectedField(velocity_x=1.0, diffusivity=1e-6, waves=(Wave(cycles_x=1, cycles_y=1),))
TIME_STEP = 1e-6  # stable on every grid here; the work of a step does not depend on it
WORKERS = 2
SCALING_TARGET, SCALING_SECONDS, SCALING_TASKS = 1.8, 5.0, 4


@dataclass(frozen=True)
class Case:
    """A grid whose halo of one step has a given size, and how many steps are timed."""

    halo: str
    rows: int
    columns: int
    steps: int
    gang_steps: int


CASES = (Case("64 kB", 512, 1024, 64, 1000), Case("1 MB", 128, 16_384, 16, 80), Case("10 MB", 64, 163_840, 4, 20))


def run(json: bool = False) -> list[Result]:
    """All results; with `json` nothing is printed on the way."""
    results = []
    for case in CASES:
        with tempfile.TemporaryDirectory(prefix="manybody-bench-") as folder, bench(Path(folder), WORKERS) as lab:
            costs = lab.costs(case)
            lab.show(not json, case, costs)
            k = method(case, costs=costs).split.steps_per_round
            results.append(
                compare(
                    f"split-field rounds of {k}, halo {case.halo}", "steps/s", 0.0,
                    lambda lab=lab, case=case, k=k: lab.rounds(case, k),
                    lambda lab=lab, case=case: lab.gang(case, "gloo"),
                    f"the gang over gloo, torch {importlib.metadata.version('torch')}", 1,
                )
            )  # fmt: skip
            mpi = importlib.util.find_spec("mpi4py") is not None
            results.append(
                compare(
                    f"split-field gang, halo {case.halo}", "steps/s", 0.0,
                    lambda lab=lab, case=case: lab.gang(case, "gloo"),
                    (lambda lab=lab, case=case: lab.gang(case, "mpi")) if mpi else None,
                    f"the gang over mpi4py {importlib.metadata.version('mpi4py')}" if mpi else None, 1,
                )
            )  # fmt: skip
    results.append(scaling())
    return results


def method(case: Case, steps_per_round: int | str = "auto", costs: Costs | None = None, parts: int = WORKERS) -> FiniteVolume:
    return FiniteVolume.model_validate(
        {
            "rows": case.rows, "columns": case.columns, "time_step": TIME_STEP, "sample_every": case.steps * TIME_STEP,
            "duration": 2 * case.steps * TIME_STEP, "parts": parts, "steps_per_round": steps_per_round, "costs": costs or Costs(),
        }
    )  # fmt: skip


@dataclass
class Lab:
    """Workers, a store and a ledger in a folder of their own."""

    home: Home
    backend: Embedded
    runs: int = 0

    def costs(self, case: Case) -> Costs:
        """What tasks cost here: of a small part, of one that moves much, and of one that computes much."""
        grids = (Case("", 32, 64, 1, 0), Case("", 64, case.columns, 1, 0), Case("", 64, 1024, 4, 0), Case("", 512, 1024, 32, 0))
        found = measure(self.backend, [self.probe(grid) for grid in grids], repeats=3)
        tiny = Case("", 32, 64, 16, 0)
        rest = 1 / self.rounds(tiny, 1) - predict(method(tiny).problem, found, WORKERS, 1).total_s / tiny.steps
        return found.model_copy(update={"dispatch_s": max(0.0, rest / WORKERS)})

    def probe(self, grid: Case) -> Probe:
        """One round of a whole grid, all its steps; what it moves and computes is counted as the model counts."""
        whole = method(grid, grid.steps, parts=1)
        tasks, _ = whole.plan(SYSTEM, 0, 0)
        start, first_round = (next(task for task in tasks if task.stage == stage) for stage in ("start", "advance"))
        digest = compute(self.backend, f"start-{grid}", start, {})
        ideal = Costs(dispatch_s=0.0, latency_s=0.0, bytes_per_s=1.0, cell_steps_per_s=1.0, workers=1)
        expected = predict(whole.problem, ideal, 1, grid.steps)
        inputs = dict.fromkeys(first_round.inputs, digest)
        return Probe(first_round, inputs, round(expected.transfer_s), round(expected.compute_s))

    def rounds(self, case: Case, k: int) -> float:
        """Steps a second by rounds of k, without the slabs at the start."""
        self.runs += 1
        tasks, _ = method(case, k).plan(SYSTEM, self.runs, 0)  # another seed: nothing is known from an earlier turn
        wanted = tuple(task for task in tasks if task.stage == "start" or self._in_first_sample(task, case))
        self._conduct(case, tuple(task for task in wanted if task.stage == "start"))
        begin = time.perf_counter()
        self._conduct(case, wanted)
        return case.steps / (time.perf_counter() - begin)

    def gang(self, case: Case, channel: Channel) -> float:
        """Steps a second of a gang: from what more steps take longer, so that its start does not count."""
        gang, few = Gang(WORKERS, self.home.objects.root, channel), case.gang_steps // 10
        short, long = (
            max(report.seconds for report in gang.reports(method(case).together(SYSTEM, steps)))
            for steps in (few, case.gang_steps)
        )
        return (case.gang_steps - few) / (long - short)

    def show(self, wanted: bool, case: Case, costs: Costs) -> None:
        """The model's figures, and its prediction beside the measurement for several k."""
        if not wanted:
            return
        chosen = method(case, costs=costs).split.steps_per_round
        tell(
            f"halo {case.halo}, grid {case.rows} x {case.columns}: latency {1e3 * costs.latency_s:.1f} ms, "
            f"dispatch {1e3 * costs.dispatch_s:.1f} ms, "
            f"{costs.bytes_per_s / 1e6:.0f} MB/s, {costs.cell_steps_per_s / 1e6:.1f} million cell steps/s; chosen k = {chosen}"
        )
        most = method(case).problem.most_steps(WORKERS)
        for k in sorted({1, 4, chosen, most} & set(range(1, most + 1))):
            predicted = predict(method(case).problem, costs, WORKERS, k).steps_per_s
            tell(f"  k = {k:2d}: predicted {predicted:8.1f} steps/s, measured {self.rounds(case, k):8.1f}")

    def _in_first_sample(self, task: Task, case: Case) -> bool:
        return task.stage == "advance" and task.parameters["begin"] < case.steps

    def _conduct(self, case: Case, tasks: tuple[Task, ...]) -> None:
        study = Study(
            name="split-field", system=SYSTEM, method=method(case), measures=("field-error",), checks=("exact",), seed=self.runs
        )  # fmt: skip
        plan = Plan(study, (Realisation(study.point(0), 0, tasks, ()),))
        with closing(self.home.ledger()) as ledger:
            ledger.record_study(study)
            run = ledger.begin_run(study.digest, self.home.path, NAME, {})
            ledger.add_tasks(run, tasks)
            conductor = Conductor(plan, run, ledger, self.home.objects, self.backend)
            conductor.recover()
            conductor.conduct(ignore)
            ledger.end_run(run, "benchmark", None, None)


def ignore(event: Event, task: Task, *_: object) -> None:
    """Watch nothing."""


@contextmanager
def bench(folder: Path, workers: int) -> Iterator[Lab]:
    home = Home(folder)
    with Embedded(home.objects.root, workers=workers) as backend:
        yield Lab(home, backend)


def scaling() -> Result:
    """Tasks of at least 5 s a second with two workers, and with one."""
    with tempfile.TemporaryDirectory(prefix="manybody-bench-") as folder, bench(Path(folder), 1) as one:
        steps = 500
        compute(one.backend, "warm", converge(64, 0), {})
        seconds = min(time_round(one.backend, f"pace-{turn}", Probe(converge(steps, 0), {}, 0, 0), 1) for turn in range(3))
        steps = round(1.2 * steps * SCALING_SECONDS / seconds)
        with Embedded(one.home.objects.root, workers=WORKERS) as two:
            return compare(
                "split-field scaling, tasks of 5 s on 2 workers and on 1", "tasks/s", SCALING_TARGET,
                lambda: throughput(two, steps), lambda: throughput(one.backend, steps), "one worker of the same backend", 1,
            )  # fmt: skip


def converge(steps: int, seed: int) -> Task:
    """A field of 256 x 256 cells, which fits into a core's cache, on its own."""
    moment = Moment(rows=256, columns=256, time_step=TIME_STEP, precision="float64", step=steps)
    return Task(
        method="finite-volume", stage="converge", version=FiniteVolume.version, system=SYSTEM.document(),
        parameters=moment.document(), seed=seed,
    )  # fmt: skip


def throughput(backend: Embedded, steps: int) -> float:
    """Tasks a second; workers have started before."""
    for worker in range(WORKERS):
        backend.submit(f"warm-{worker}", converge(64, worker), {})
    for _ in backend.events():
        pass
    begin = time.perf_counter()
    for number in range(SCALING_TASKS):
        backend.submit(f"task-{number}", converge(steps, number), {})
    for event in backend.events():
        assert event.kind not in ("failed", "lost"), event.reason
    return SCALING_TASKS / (time.perf_counter() - begin)


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
