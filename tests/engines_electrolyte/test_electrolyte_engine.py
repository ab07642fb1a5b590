"""The engine of driven ions: its contract, its bits, its structure factors and its complaints."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from manybody.core.errors import TaskError
from manybody.core.protocols import Context
from manybody.core.random import Key
from manybody.core.study import Study
from manybody.core.task import Output, Task
from manybody.engines.electrolyte import stages
from manybody.engines.electrolyte.engine import IonEngine
from manybody.engines.electrolyte.spec import DrivenElectrolyte, IonDynamics
from manybody.engines.electrolyte.structure import ModeBins, long_modes
from manybody.testing.engine import check_engine

KEY = Key.from_seed(7)
IONS = DrivenElectrolyte(ions=40, coupling=0.8, field=2.0, repulsion=0.5)


@pytest.mark.parametrize("repulsion", [0.0, 0.5])
def test_contract(repulsion: float) -> None:
    # The centre is a mean of positions of order 10, rounded once a step: 50 steps of 2e-15 each.
    check_engine(IonEngine(IONS.model_copy(update={"repulsion": repulsion}), 0.1), conserved=1e-13)


def test_a_path_has_the_same_bits_however_it_is_cut() -> None:
    engine = IonEngine(IONS, 0.1)
    start = engine.init(KEY)
    whole = engine.follow(start, 45)
    pieces = start
    for steps in (1, 20, 5, 19):
        pieces = engine.step(pieces, steps)
    np.testing.assert_array_equal(whole.state.positions, pieces.positions)


def test_free_ions_drift_and_diffuse() -> None:
    """At a coupling of 1e-9 forces are 1e-4 of that of the field: displacements are E z t, and Gaussian of variance 2 t."""
    system = DrivenElectrolyte(ions=2000, coupling=1e-9, field=1.5, width=0.003)
    engine = IonEngine(system, 0.05)
    start = engine.init(KEY)
    moved = engine.step(start, 8).positions - start.positions
    time, count = 0.4, system.ions
    current = float((start.charges * moved[:, 0]).mean())
    assert current == pytest.approx(1.5 * time, abs=4 * math.sqrt(2 * time / count))
    across = float((moved[:, 1:] ** 2).mean())
    assert across == pytest.approx(2 * time, rel=4 * math.sqrt(2 / (2 * count)))


def test_structure_factors_are_sums_over_ions() -> None:
    engine = IonEngine(IONS, 0.1, modes=2)
    state = engine.step(engine.init(KEY), 30)
    found, modes = engine.structure(state), long_modes(IONS.edge, 2)
    unit = 2 * math.pi / IONS.edge
    rows = []
    for m in ((1, 1, 0), (1, -1, 0), (1, 0, 1), (1, 0, -1)):
        phases = np.exp(-1j * unit * state.positions @ np.array(m))
        n, c = phases.sum(), (state.charges * phases).sum()
        rows.append((abs(n) ** 2, abs(c) ** 2, (n * c.conjugate()).imag))
    place = int(np.argmin(abs(modes.along - unit) + abs(modes.square - 2 * unit**2)))
    expected = np.mean(rows, axis=0) / IONS.ions
    # Splines mix mode 1 along an axis with mode -7 of eight: by (1 / 7)^6 = 1e-5.
    np.testing.assert_allclose([found.density[place], found.charge[place], found.cross[place]], expected, atol=1e-4)
    np.testing.assert_array_equal(ModeBins.of(engine.mesh.points, 2).count, modes.count)


def test_current_of_a_state_is_the_field_less_what_holds_it_back() -> None:
    engine = IonEngine(IONS, 0.1)
    state = engine.init(KEY)
    followed, seen = engine.follow(state, 1), engine.observables(state)
    assert followed.relaxation == pytest.approx(seen["relaxation"], rel=1e-12)
    assert seen["current"] == 2.0 - seen["relaxation"]


def test_a_position_that_is_no_number_is_told() -> None:
    engine = IonEngine(IONS, 0.1)
    state = engine.init(KEY)
    positions = state.positions.copy()
    positions[17, 1] = math.nan
    with pytest.raises(TaskError, match=r"Step 0: expected finite positions; ion 17 has none"):
        engine.step(replace(state, positions=positions))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"ions": 41}, "an even number, half of each charge"),
        ({"ions": 10}, "at least 18, an edge of 8 widths"),
    ],
)
def test_impossible_systems_are_refused(changes: dict[str, int], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        DrivenElectrolyte.model_validate(IONS.document() | changes)


@pytest.mark.parametrize(
    ("system", "method", "match"),
    [
        ({"field": 9.0}, {"time_step": 0.05}, "0.0389, or the field carries ions past each other"),
        ({"width": 0.3}, {"time_step": 0.05}, "0.045, or ions diffuse out of their cloud"),
        ({"repulsion": 20.0}, {"time_step": 0.1}, "0.0333, or the response of the ions overshoots"),
        ({}, {"modes": 8}, "at most 3 modes"),
    ],
)
def test_methods_that_do_not_resolve_a_system_are_refused(system: dict[str, float], method: dict[str, float], match: str) -> None:
    changed = DrivenElectrolyte.model_validate(IONS.document() | {"field": 0.0} | system)
    with pytest.raises(ValidationError, match=match):
        Study.model_validate(
            {
                "name": "wrong",
                "system": changed.document(),
                "method": {"name": "ion-dynamics", "modes": 2, **method},
                "measures": ["screening"],
                "checks": ["exact"],
            }
        )


def test_a_segment_without_a_sound_start_is_refused(node: Context, compute: Callable[..., dict[str, Output]]) -> None:
    method = IonDynamics(equilibration=1.0, duration=1.0, segment=1.0, frame_every=1.0, modes=2)
    task = method.plan(IONS, 1, 0)[1][0]
    with pytest.raises(TaskError, match="expected an input `state`; got none"):
        stages.produce(task, {}, node)
    broken = Output({"unwrapped": np.full((40, 3), np.nan)}, {})
    with pytest.raises(TaskError, match=r"expected finite `unwrapped` of shape \[40, 3\]"):
        stages.produce(task, {"state": broken}, node)


def test_a_task_gives_the_same_bits_twice(node: Context) -> None:
    method = IonDynamics(equilibration=2.0, duration=1.0, segment=1.0, frame_every=1.0, modes=2)
    task: Task = method.plan(IONS, 1, 0)[0][0]
    first, second = stages.equilibrate(task, {}, node), stages.equilibrate(task.replicated(1), {}, node)
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name])
    assert first.arrays["density"].shape == (2, len(long_modes(IONS.edge, 2).along))
