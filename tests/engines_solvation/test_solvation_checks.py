"""The checks of coupling, on windows whose free energy is known by construction, and on windows that are broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from manybody.core.certificate import Verdict
from manybody.core.errors import InputError
from manybody.core.protocols import Context
from manybody.core.study import Study
from manybody.core.task import Output, Task
from manybody.engines.solvation.consistency import CoupledWindows, SolvationRoutes
from manybody.engines.solvation.known_answers import added_particle, tail
from manybody.study.expand import expand
from manybody.study.file import load_study
from manybody.study.measure import Measured
from manybody.testing.check import verify_check

GALLERY = Path(__file__).parents[2] / "studies"
SPREAD = 1.2  # kT: of the solute's energy where it is decoupled


def fluid(
    cost: float = 0.0, slope: float = 0.0, lag: float = 0.0, spread: float = SPREAD, insertions: int = 200
) -> Callable[..., Output]:
    """Windows of a solute whose energy g has a normal distribution where it is decoupled, N(m, s^2) in kT: exactly solvable.

    At coupling l the energy is l g, g is N(m - l s^2, s^2), and the free energy m l - l^2 s^2 / 2. m is such that the whole is
    what the equation of state gives, and `cost` epsilon more. slope is added to dU/dl alone; lag moves each window's g.
    """

    def sample(task: Task, inputs: Mapping[str, Output], context: Context | None) -> Output:
        kT, density, here = task.system["temperature"], task.system["density"], task.parameters["coupling"]
        wanted = added_particle(kT, density, task.system["atoms"]) - tail(density, task.system["cutoff"], 1.0, 1.0) + cost
        middle, generator = wanted / kT + 0.5 * spread**2, task.key.generator()
        count = round(task.parameters["time"] / task.parameters["sample_every"])
        g = middle - here * spread**2 + lag + spread * generator.standard_normal(count)
        inserted = np.exp(-(middle + spread * generator.standard_normal((count, insertions)))).mean(axis=1)
        arrays = {
            "slopes": kT * (g + slope),
            "energies": kT * g[:, None] * np.array(task.parameters["couplings"]),
            "neighbours": np.zeros(count),
            "insertions": inserted if here == 0 else np.zeros(0),
        }
        return Output(arrays, {"coupling": here})

    return sample


def nothing(task: Task, inputs: Mapping[str, Output], context: Context | None) -> Output:
    return Output({}, {})


@pytest.fixture(scope="module")
def study() -> Study:
    changes = ["sweep=[{system.density: 0.3}]", "method.windows=4", "method.blocks=16", "method.duration=60", "method.segment=60"]
    named = "measures=[solvation-free-energy, integrated-free-energy, inserted-free-energy]"
    return load_study(GALLERY / "lennard-jones-solvation", [*changes, named, "checks=[coupled-windows, solvation-routes]"])


@pytest.fixture
def made(study: Study, evidence: Callable[..., Measured]) -> Callable[..., Measured]:
    return lambda **broken: evidence(study, melt=nothing, settle=nothing, sample=fluid(**broken))


def broken(check: CoupledWindows | SolvationRoutes, measured: Measured) -> set[str]:
    """What a check says fails."""
    return {finding.name.split(" at density")[0] for finding in check.judge(measured, ()) if finding.verdict is Verdict.FAILS}


def test_sound_windows_hold_and_broken_ones_do_not(study, made):
    """Four routes lie within four of their own errors of the equation of state, which these windows obey."""
    good, slope, cost = made(), made(slope=0.3), made(cost=0.3)
    verify_check(CoupledWindows(), good, slope)
    verify_check(SolvationRoutes(), good, cost)
    assert broken(CoupledWindows(), slope) == {"integration and MBAR"}  # a wrong derivative
    assert broken(SolvationRoutes(), cost) == {"equation of state"}  # another potential, soundly sampled
    assert broken(CoupledWindows(least_overlap=0.48), good) == {"overlap of windows"}
    coarse = SolvationRoutes(coarse=1e-4).judge(good, ())
    assert {finding.verdict for finding in coarse} == {Verdict.UNDECIDED}
    point = good.plan.points[0]
    known = added_particle(point.system.temperature, point.system.density, point.system.atoms)
    for measure in study.measures:
        found = good.estimate(point, measure.name)
        assert found.value == pytest.approx(known, abs=4 * found.error), measure.name
        assert 0 < found.error < 0.1


def test_windows_that_have_not_settled_are_found(made):
    lagging = made(lag=0.3)
    assert broken(SolvationRoutes(), lagging) == {"coupling and insertion", "equation of state"}


def test_what_is_compared_must_be_measured(study):
    for check, missing in ((CoupledWindows(), "integrated"), (SolvationRoutes(), "inserted")):
        with pytest.raises(InputError, match=f"Add `- {missing}-free-energy`"):
            expand(study.model_copy(update={"measures": study.measures[:1], "checks": (check,)}))
