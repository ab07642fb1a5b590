"""The cost model of rounds: its arithmetic, its choice, and figures measured with real tasks."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manybody.core.errors import TaskError
from manybody.core.task import Task
from manybody.network.local import Embedded
from manybody.network.rounds import Probe, Timing, compute, fit, measure, time_round
from manybody.numerics.rounds import Costs, SplitProblem, choose, predict

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


def test_fitting_finds_the_figures_behind_exact_timings() -> None:
    truth = Costs(latency_s=0.03, bytes_per_s=2e8, cell_steps_per_s=5e7, workers=3)
    sizes = [(1_000, 0), (1_000, 10**7), (10**8, 0), (10**7, 10**6)]
    timings = [Timing(b, c, 0.03 + b / 2e8 + c / 5e7) for b, c in sizes]
    found = fit(timings, 3)
    assert found.latency_s == pytest.approx(truth.latency_s, rel=1e-9)
    assert found.bytes_per_s == pytest.approx(truth.bytes_per_s, rel=1e-9)
    assert found.cell_steps_per_s == pytest.approx(truth.cell_steps_per_s, rel=1e-9)


def test_fitting_bears_noise_and_bounds_what_does_not_show() -> None:
    rng = np.random.default_rng(5)
    sizes = [(b, c) for b in (0, 10**6, 10**8) for c in (0, 10**6, 10**8)]
    noisy = [Timing(b, c, (0.02 + b / 3e8 + c / 4e7) * float(rng.uniform(1.0, 1.1))) for b, c in sizes]
    assert fit(noisy, 1).cell_steps_per_s == pytest.approx(4e7, rel=0.1)
    assert fit(noisy, 1).bytes_per_s == pytest.approx(3e8, rel=0.2)
    flat = [Timing(b, c, 0.02) for b, c in sizes]
    assert fit(flat, 1).latency_s == pytest.approx(0.02)
    assert fit(flat, 1).bytes_per_s >= 100 * 10**8 / 0.02


def test_fitting_refuses_timings_that_leave_a_figure_open() -> None:
    with pytest.raises(ValueError, match="differ in bytes and in cell steps"):
        fit([Timing(1, 2, 0.1), Timing(2, 4, 0.2), Timing(3, 6, 0.3)], 1)


def field_task(stage: str, rows: int, **parameters: int) -> Task:
    return Task(
        method="finite-volume", stage=stage, version="2",
        system={"name": "advected-field", "gaussians": [{}]},
        parameters={"rows": rows, "columns": 512, "time_step": 1e-4, "precision": "float64"} | parameters,
    )  # fmt: skip


def test_figures_measured_on_real_workers_predict_another_task(tmp_path: Path) -> None:
    """Within a factor of four: other work may go on beside."""
    with Embedded(tmp_path, workers=1) as backend:
        steps = (1, 60)
        probes = [Probe(field_task("converge", 256, step=n), {}, 0, 256 * 512 * n) for n in steps]
        probes += [Probe(field_task("start", rows, first=0, last=rows), {}, rows * 512 * 8, 0) for rows in (16, 2048)]
        costs = measure(backend, probes, repeats=3)
        assert costs.workers == 1
        task = field_task("converge", 256, step=30)
        seconds = time_round(backend, "check", Probe(task, {}, 0, 256 * 512 * 30), 1)
    expected = costs.latency_s + 256 * 512 * 30 / costs.cell_steps_per_s
    assert seconds / 4 < expected < seconds * 4


def test_a_probe_that_fails_is_named(tmp_path: Path) -> None:
    with Embedded(tmp_path, workers=1) as backend, pytest.raises(TaskError, match=r"to be timed, failed"):
        compute(backend, "only", field_task("nothing", 16), {})
