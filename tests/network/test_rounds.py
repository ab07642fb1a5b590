"""The cost model of rounds: its arithmetic, its choice, and figures measured with real tasks."""

from __future__ import annotations

import itertools
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manybody.core.study import Plan, Realisation
from manybody.engines.fields.spec import FiniteVolume
from manybody.network.local import Embedded
from manybody.network.rounds import Timing, fit
from manybody.numerics.rounds import Costs, Load, SplitProblem, choose, load, predict
from manybody.store.home import Home
from manybody.study.conduct import Conductor
from manybody.study.file import load_study
from manybody.study.tune import measure

GALLERY = Path(__file__).parents[2] / "studies" / "advection-diffusion"

PROBLEM = SplitProblem(rows=256, columns=512, steps=48, halo=8, cell_bytes=8)


def computed_rows(problem: SplitProblem, parts: int, k: int) -> float:
    """Rows that all stages of a round of one part compute, counted stage by stage, in steps of rows."""
    rows, stages = problem.rows // parts, 4
    reach = problem.halo // stages
    return sum(rows + 2 * reach * (stages * k - stage) for stage in range(1, stages * k + 1)) / stages


def test_computing_is_what_the_stages_add_up_to() -> None:
    costs = Costs(dispatch_s=0.0, latency_s=0.0, bytes_per_s=1e30, cell_steps_per_s=1e6, workers=4)
    for parts, k in itertools.product((1, 2, 4), (1, 2, 4, 8)):
        rounds = PROBLEM.steps / k
        exact = rounds * computed_rows(PROBLEM, parts, k) * PROBLEM.columns / 1e6
        ours = predict(PROBLEM, costs, parts, k)
        assert ours.compute_s == pytest.approx(exact, rel=0.04)  # the last stage's halo, 2 rows of at least 64, is counted in
        assert ours.total_s == pytest.approx(ours.compute_s)
        assert ours.redundant == pytest.approx(1 - 256 / parts / (256 / parts + 8 * k))


def test_latency_counts_rounds_and_waves() -> None:
    costs = Costs(dispatch_s=0.0, latency_s=1.0, bytes_per_s=1e30, cell_steps_per_s=1e30, workers=2)
    assert predict(PROBLEM, costs, 2, 16).latency_s == 3
    assert predict(PROBLEM, costs, 2, 7).latency_s == 7  # 6 rounds of 7 steps and one of 6
    assert predict(PROBLEM, costs, 3, 8).latency_s == 12  # the third part waits for a worker
    busy = costs.model_copy(update={"dispatch_s": 0.1})
    assert predict(PROBLEM, busy, 3, 8).latency_s == pytest.approx(12 + 6 * 3 * 0.1)  # the coordinator does one at a time


def test_neighbours_move_edges_only_unless_these_are_most_of_a_part() -> None:
    """Rows of 512 doubles, two parts of 128 rows, two workers: a worker reads and writes its own and reads halos;
    the coordinator reads each result twice and writes halos."""
    row = 512 * 8
    assert load(PROBLEM, 2, 2, 2).nbytes == 24 * row * ((2 * 128 + 2 * 16) + 2 * (2 * 128 + 2 * 16))
    assert load(PROBLEM, 2, 2, 16).nbytes == 3 * row * ((2 * 128 + 2 * 128) + 2 * 2 * 128), "whole parts are read"
    compressed = replace(PROBLEM, ratio=4.0)
    assert load(compressed, 2, 2, 2).nbytes == 24 * row * ((2 * 136 + 2 * 4) + 2 * (2 * 136 + 2 * 4))
    assert load(compressed, 2, 2, 2).coded == 24 * row * 2 * 16


def best(costs: Costs, *parts: int) -> tuple[int, int]:
    split = choose(PROBLEM, costs, parts)
    assert split is not None
    return split.parts, split.steps_per_round


def test_free_tasks_make_short_rounds_and_dear_ones_long() -> None:
    assert best(Costs(dispatch_s=0.0, latency_s=0.0, bytes_per_s=1e30, workers=2), 2) == (2, 1)
    assert best(Costs(latency_s=10.0, bytes_per_s=1e30, workers=2), 2) == (2, 16)
    assert PROBLEM.most_steps(2) == 16


def test_a_slow_link_makes_long_rounds() -> None:
    assert best(Costs(dispatch_s=0.0, latency_s=0.0, bytes_per_s=1e4, cell_steps_per_s=1e8, workers=2), 2) == (2, 16)


def test_parts_beyond_the_workers_only_cost() -> None:
    costs = Costs(dispatch_s=0.0, latency_s=1e-4, bytes_per_s=1e10, cell_steps_per_s=1e6, workers=4)
    assert best(costs, 1, 2, 4, 8, 32)[0] == 4
    assert best(costs.model_copy(update={"workers": 1}), 1, 2, 4, 8, 32)[0] == 1


@settings(max_examples=50, deadline=None)
@given(
    latency=st.floats(0, 10), bandwidth=st.floats(1e3, 1e12), rate=st.floats(1e3, 1e12), workers=st.integers(1, 16),
    parts=st.sets(st.integers(1, 64), min_size=1, max_size=4),
)  # fmt: skip
def test_the_choice_is_the_best_and_always_the_same(
    latency: float, bandwidth: float, rate: float, workers: int, parts: set[int]
) -> None:
    costs = Costs(latency_s=latency, bytes_per_s=bandwidth, cell_steps_per_s=rate, workers=workers)
    split = choose(PROBLEM, costs, sorted(parts))
    assert split == choose(PROBLEM, costs, sorted(parts, reverse=True))
    every = [predict(PROBLEM, costs, p, k) for p in parts for k in range(1, PROBLEM.most_steps(p) + 1)]
    if not every:
        assert split is None
        return
    assert split is not None
    assert split.total_s == min(other.total_s for other in every)
    assert split.steps_per_s == pytest.approx(PROBLEM.steps / split.total_s)


def asked(dispatches: float, waits: float, nbytes: float, cell_steps: float) -> Load:
    return Load(dispatches, waits, nbytes, cell_steps)


def test_fitting_finds_the_figures_behind_exact_timings() -> None:
    truth = Costs(dispatch_s=0.02, latency_s=0.03, bytes_per_s=2e8, cell_steps_per_s=5e7, workers=3)
    loads = [asked(8, 8, 1e3, 0), asked(24, 8, 3e3, 0), asked(9, 3, 1e8, 1e5), asked(6, 2, 1e6, 1e8)]
    timings = [
        Timing(each, 0.02 * each.dispatches + 0.03 * each.waits + each.nbytes / 2e8 + each.cell_steps / 5e7) for each in loads
    ]
    assert fit(timings, 3).document() == pytest.approx(truth.document())


def test_fitting_bears_noise_and_bounds_what_does_not_show() -> None:
    rng = np.random.default_rng(5)
    loads = [asked(2, 1, b, c) for b in (0, 10**6, 10**8) for c in (0, 10**6, 10**8)]
    noisy = [Timing(each, (0.02 + each.nbytes / 3e8 + each.cell_steps / 4e7) * float(rng.uniform(1.0, 1.1))) for each in loads]
    assert fit(noisy, 1).cell_steps_per_s == pytest.approx(4e7, rel=0.1)
    assert fit(noisy, 1).bytes_per_s == pytest.approx(3e8, rel=0.2)
    flat = fit([Timing(each, 0.02) for each in loads], 1)
    assert flat.latency_s + 2 * flat.dispatch_s == pytest.approx(0.02)
    assert flat.bytes_per_s >= 100 * 10**8 / 0.02


def test_fitting_refuses_timings_that_leave_a_figure_open() -> None:
    with pytest.raises(ValueError, match="differ in waits, bytes and cell steps"):
        fit([Timing(asked(n, n, n, 2 * n), 0.1 * n) for n in (1, 2, 3)], 1)


def test_figures_from_trials_predict_other_rounds(tmp_path: Path) -> None:
    """Trials of two workers tell what rounds of another size take, within a factor of four: other work may go on beside."""
    home = Home(tmp_path)
    settings = ["rows=256", "columns=512", "time_step=0.0005", "sample_every=0.008", "duration=0.016", "steps_per_round=8"]
    study = load_study(GALLERY, ["checks=[exact]", *(f"method.{setting}" for setting in settings)])
    method = study.method
    assert isinstance(method, FiniteVolume)
    with Embedded(home.objects.root, workers=2) as backend:
        costs = measure(study, home, backend)
        assert costs.workers == 2
        tasks, _ = method.plan(study.system, 0, 0)
        plan = Plan(study, (Realisation(study.point(0), 0, tasks, ()),))
        with closing(home.ledger()) as ledger:
            ledger.record_study(study)
            run = ledger.begin_run(study.digest, tmp_path, "test", {})
            ledger.add_tasks(run, tasks)
            begin = time.perf_counter()
            Conductor(plan, run, ledger, home.objects, backend).conduct(lambda *told: None)
            seconds = time.perf_counter() - begin
    assert seconds / 4 < method.expected_s(costs) < seconds * 4
