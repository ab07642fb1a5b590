"""A field split over two processes: time steps a second by rounds and by gang, at three halo sizes, beside predictions.

Rounds run as tasks of the embedded backend, through the conductor and its ledger. What tasks cost is measured first, as
`manybody run` measures it; the cost model chooses k, and its prediction is printed beside the measurement on standard
error. Rounds are compared with the gang over gloo, and that with the gang over MPI, turn by turn. Targets of 0 mean that
none is set: these figures are for choosing, not for passing.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import DISTURBED, Result, triad
from manybody.core.study import Plan, Realisation, Study
from manybody.core.task import Progress, Task
from manybody.engines.fields.spec import AdvectedField, FiniteVolume, Wave
from manybody.network.gang import Channel, Gang
from manybody.network.local import Embedded
from manybody.numerics.rounds import Costs, predict
from manybody.store.home import Home
from manybody.study.conduct import Conductor
from manybody.study.excerpts import Excerpts
from manybody.study.tune import measure

NAME = "split-field"
DESCRIPTION = "time steps a second of a field in two slabs, by rounds and by gang, at halos of 64 kB, 1 MB and 10 MB"

SYSTEM = AdvectedField(velocity_x=1.0, diffusivity=1e-6, waves=(Wave(cycles_x=1, cycles_y=1),))
TIME_STEP = 1e-6  # stable on every grid here; the work of a step does not depend on it
WORKERS, TURNS = 2, 2
SETTLED = 0.2  # of a gang's steps are done before its pace counts: by then all is loaded


@dataclass(frozen=True)
class Case:
    """A grid whose halo of one step has a given size, and how many steps are timed by rounds and by gang."""

    halo: str
    rows: int
    columns: int
    steps: int
    gang_steps: int


CASES = (Case("64 kB", 512, 1024, 32, 600), Case("1 MB", 128, 16_384, 16, 80), Case("10 MB", 64, 163_840, 4, 12))


def run() -> list[Result]:
    results = []
    for case in CASES:
        with bench(case) as lab:
            results += lab.compared(case)
    return results


def method(case: Case, steps: int, steps_per_round: int | str = "auto", costs: Costs | None = None, **more: str) -> FiniteVolume:
    return FiniteVolume.model_validate(
        {
            "rows": case.rows, "columns": case.columns, "time_step": TIME_STEP, "sample_every": steps // 2 * TIME_STEP,
            "duration": steps * TIME_STEP, "parts": WORKERS, "steps_per_round": steps_per_round, "costs": costs, **more,
        }
    )  # fmt: skip


@contextmanager
def bench(case: Case) -> Iterator[Lab]:
    """Workers, a store and a ledger in a folder of their own, and what tasks on fields of this size cost there."""
    with tempfile.TemporaryDirectory(prefix="manybody-bench-") as folder:
        home = Home(Path(folder))
        with Embedded(home.objects.root, workers=WORKERS) as backend:
            yield Lab(home, backend, measure(study(case), home, backend))


def study(case: Case) -> Study:
    split = method(case, 2 * case.steps)
    return Study(name=NAME, system=SYSTEM, method=split, measures=("field-error",), checks=("exact", "conservation"))


@dataclass
class Lab:
    """Where rounds and gangs are timed."""

    home: Home
    backend: Embedded
    costs: Costs
    runs: int = 0

    def figures(self) -> str:
        """What tasks cost here."""
        costs = self.costs
        return (
            f"dispatch {1e3 * costs.dispatch_s:.1f} ms, latency {1e3 * costs.latency_s:.1f} ms, "
            f"{costs.bytes_per_s / 1e6:.0f} MB/s, {costs.cell_steps_per_s / 1e6:.0f} million cell steps/s"
        )

    def compared(self, case: Case) -> Iterator[Result]:
        """Rounds beside the gang over gloo, and that beside the gang over MPI; other k beside their predictions."""
        split = method(case, 2 * case.steps, costs=self.costs)
        k, problem = split.split.steps_per_round, split.problem
        mpi = importlib.util.find_spec("mpi4py") is not None
        before = triad()
        rounds, gloo, over_mpi = [], [], []
        for _ in range(TURNS):
            rounds.append(self.rounds(case, k))
            gloo.append(self.gang(case, "gloo"))
            over_mpi += [self.gang(case, "mpi")] if mpi else []
        measured = {k: statistics.median(rounds)}
        for other in sorted({1, problem.most_steps(WORKERS)} - {k}):
            measured[other] = self.rounds(case, other)
        tell(f"halo {case.halo}, grid {case.rows} x {case.columns}: {self.figures()}; chosen k = {k}")
        tell("  a round is lent {:.3g} MB, of results of {:.3g} MB".format(*self.lent(case, k)))
        for each in sorted(measured):
            predicted = predict(problem, self.costs, WORKERS, each).steps_per_s
            tell(f"  k = {each:2d}: predicted {predicted:8.1f} steps/s, measured {measured[each]:8.1f}")
        triads = (before, triad())
        torch = f"the gang over gloo, torch {importlib.metadata.version('torch')}"
        yield result(f"{NAME} rounds of {k}, halo {case.halo}", rounds, gloo, torch, triads)
        version = f"the gang over mpi4py {importlib.metadata.version('mpi4py')}" if mpi else None
        yield result(f"{NAME} gang, halo {case.halo}", gloo, over_mpi, version, triads)

    def lent(self, case: Case, k: int) -> tuple[float, float]:
        """What the task of a round is lent, and the results that this is taken from, MB."""
        tasks, _ = method(case, 2 * case.steps, k).plan(SYSTEM, 0, 0)
        start = tuple(task for task in tasks if task.stage == "start")
        results = dict(zip((task.digest for task in start), self._conduct(case, start), strict=True))
        task = next(task for task in tasks if task.stage == "advance")
        excerpts, objects = Excerpts(tasks, self.home.objects), self.home.objects
        lent, whole = excerpts.inputs(task, results).values(), [results[need] for need in task.inputs.values()]
        sizes = [sum(objects.path(digest).stat().st_size for digest in digests) / 1e6 for digests in (lent, whole)]
        excerpts.discard_all()
        return sizes[0], sizes[1]

    def rounds(self, case: Case, k: int) -> float:
        """Steps a second by rounds of k, without the slabs at the start."""
        self.runs += 1
        tasks, _ = method(case, 2 * case.steps, k).plan(
            SYSTEM, self.runs, 0
        )  # another seed: nothing is known from an earlier turn
        start = tuple(task for task in tasks if task.stage == "start")
        rounds = tuple(task for task in tasks if task.stage == "advance" and task.parameters["begin"] < case.steps)
        self._conduct(case, start)
        begin = time.perf_counter()
        results = self._conduct(case, (*start, *rounds))
        pace = case.steps / (time.perf_counter() - begin)
        for result in results:
            self.home.objects.remove(result)
        return pace

    def gang(self, case: Case, channel: Channel) -> float:
        """Steps a second of a gang, from how far it tells that it is; so neither its start nor its end counts."""
        told: list[tuple[float, float]] = []

        def note(progress: Progress) -> None:
            told.append((progress.fraction, time.perf_counter()))

        task = method(case, case.gang_steps, run="gang", channel=channel).plan(SYSTEM, 0, 0)[0][0]
        for report in Gang(WORKERS, self.home.objects.root, channel).reports(task, tell=note):
            self.home.objects.remove(report.result)
        settled = [each for each in told if each[0] >= SETTLED]
        (first, begin), (last, end) = settled[0], settled[-1]
        return (last - first) * case.gang_steps / (end - begin)

    def _conduct(self, case: Case, tasks: tuple[Task, ...]) -> list[str]:
        asked = study(case)
        plan = Plan(asked, (Realisation(asked.point(0), 0, tasks, ()),))
        with closing(self.home.ledger()) as ledger:
            ledger.record_study(asked)
            run = ledger.begin_run(asked.digest, self.home.path, NAME, {})
            ledger.add_tasks(run, tasks)
            conductor = Conductor(plan, run, ledger, self.home.objects, self.backend)
            conductor.recover()
            conductor.conduct(lambda *told: None)
            ledger.end_run(run, "benchmark", None, None)
            return [row.result for task in tasks if (row := ledger.result(task.digest))]


def result(name: str, ours: list[float], theirs: list[float], version: str | None, triads: tuple[float, float]) -> Result:
    own, peer = statistics.median(ours), statistics.median(theirs) if theirs else None
    valid = triads[1] >= (1 - DISTURBED) * triads[0]
    return Result(name, own, peer, version, "steps/s", own / peer if peer else None, 0.0, *triads, valid)


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
