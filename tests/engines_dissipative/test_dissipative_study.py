"""Measures and checks of dissipative particles, on fluids that obey by construction, and on fluids that break what is claimed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from manybody.checks.reference import read_table
from manybody.core.certificate import Verdict
from manybody.core.errors import InputError
from manybody.core.study import Study
from manybody.core.task import Output, Task
from manybody.engines.dissipative import known_answers, observables
from manybody.engines.dissipative.spec import DissipativeDynamics, DissipativeParticles
from manybody.store.objects import ObjectStore
from manybody.store.rows import ResultRow
from manybody.study.certify import findings
from manybody.study.expand import expand
from manybody.study.file import load_study
from manybody.study.measure import Measured

GALLERY = Path(__file__).parents[2] / "studies" / "dissipative-particles"
SHORT = ["method.duration=500", "method.segment=500", "repeats=1"]
Law = Callable[[DissipativeParticles], float]


def test_known_answers_are_those_of_their_limits():
    assert known_answers.pressure(3, 25, 1) == pytest.approx(25.725)
    assert known_answers.inverse_compressibility(3, 25, 1) == pytest.approx(16.15)
    weak = 1e-3  # then B2 is half the integral of the potential, pi a / 30, to first order
    assert known_answers.second_virial(weak, 1.0) == pytest.approx(known_answers.MEAN_FIELD_SLOPE * weak, rel=1e-3)
    hard = 1e12  # and that of hard spheres of diameter 1, but for a rim of a few 1e-6
    assert known_answers.second_virial(hard, 1.0) == pytest.approx(2 * math.pi / 3, rel=1e-3)
    assert known_answers.unlike_share((50, 50)) == pytest.approx(50 / 99)


def recorded(task: Task, law: Law, squeeze: float, noise: float) -> Output:
    """What a canonical fluid of pressure law(system) would record, positions `squeeze` times too warm."""
    system, generator = DissipativeParticles.model_validate(task.system), task.key.generator()
    leg_samples = round(task.parameters["time"] / task.parameters["sample_every"])
    white = generator.standard_normal((4, leg_samples))
    kT, n = system.temperature, system.particles
    ideal = 1.5 * (n - 1) * kT
    squared = 120 * kT * n * (squeeze + noise * white[0])
    kinetic = ideal * (1 + noise * white[1]) - 0.125 * task.parameters["time_step"] ** 2 * squared
    virial = (law(system) - system.density * kT) * system.volume * (1 + noise * white[2])
    arrays = {f"virial_{axis}": virial for axis in "xyz"}
    arrays |= {"squared_force": squared, "laplacian": np.full(leg_samples, 120.0 * n), "kinetic_energy": kinetic}
    fourth = 9 * n * (2 * kinetic / (3 * n)).mean() ** 2
    arrays |= {"fourth_moment": fourth * (1 + noise * white[3]), "time": 0.2 * np.arange(1, leg_samples + 1)}
    return Output(arrays | {"momentum": np.zeros(leg_samples)}, {"energy_fluctuation": task.parameters["time_step"] ** 2})


@pytest.fixture
def verdicts(tmp_path: Path) -> Callable[..., dict[str, Verdict]]:
    """The verdicts on a study whose fluids have a given pressure, configurational temperature and noise of samples."""

    def judge(study: Study, law: Law, squeeze: float = 1.0, noise: float = 0.01) -> dict[str, Verdict]:
        store, plan, rows = ObjectStore(tmp_path / "objects"), expand(study), {}
        for task in plan.tasks:
            stored = store.put(recorded(task, law, squeeze, noise))
            rows[task.digest] = ResultRow(task.digest, stored.digest, stored.nbytes, 1.0, "worker", "attempt", 0.0, {})
        return {finding.name: finding.verdict for finding in findings(plan, Measured(plan, rows, store)).checks}

    return judge


def published(system: DissipativeParticles) -> float:
    return known_answers.pressure(system.density, system.repulsion, system.temperature)


def test_a_canonical_fluid_with_the_published_equation_of_state_holds(verdicts):
    found = verdicts(load_study(GALLERY, [*SHORT, "checks=[canonical, equation-of-state, conservation]"]), published)
    assert set(found.values()) == {Verdict.HOLDS}
    assert sum(name.startswith("equation of state") for name in found) == 4  # from density 3 to 4, 5, 6 and 8
    assert sum(name.startswith("canonical") for name in found) == 3


def test_another_slope_or_another_temperature_of_positions_does_not(verdicts):
    """A slope 6 % off; positions 3 % too warm; and samples so noisy that nothing can be said."""
    study = load_study(GALLERY, [*SHORT, "checks=[canonical, equation-of-state]"])
    steep = verdicts(study, lambda system: system.density + 0.107 * system.repulsion * system.density**2)
    assert {steep[name] for name in steep if name.startswith("equation")} == {Verdict.FAILS}
    warm = verdicts(study, published, squeeze=1.03)
    assert warm["canonical configurational-temperature"] is Verdict.FAILS
    assert warm["canonical kinetic-temperature"] is Verdict.HOLDS
    noisy = verdicts(study, published, noise=0.5)
    assert Verdict.HOLDS not in noisy.values()


def test_checks_say_what_they_need():
    for check, complaint in (("canonical", "the measures kinetic-temperature"), ("equation-of-state", "the measures soft-press")):
        with pytest.raises(InputError, match=complaint):
            expand(load_study(GALLERY, [f"checks=[{check}]", "measures=[soft-energy]"]))
    with pytest.raises(InputError, match="two points that differ in density alone"):
        expand(load_study(GALLERY, ["checks=[equation-of-state]", "sweep=[{system.friction: 1}, {system.friction: 2}]"]))


def test_every_point_of_the_study_has_a_published_pressure():
    table = read_table(str(GALLERY / "published.csv"))
    rows = [table.row(point) for point in expand(load_study(GALLERY, ["checks=[canonical]"])).points]
    assert None not in rows
    assert len({id(row) for row in rows}) == len(table.rows)


def samples(measure: observables.MeasureSpec, system: DissipativeParticles, **arrays: np.ndarray) -> np.ndarray:
    method = DissipativeDynamics(frame_every=2.0)
    document = {"name": "one", "system": system.document(), "method": method.document(), "measures": [], "checks": []}
    study = Study.model_validate(document | {"measures": [measure.document()], "checks": [{"name": "conservation"}]})
    return measure.samples(expand(study).points[0], [Output(arrays, {})]).values


def test_measures_are_what_they_say():
    """Free flight, an ideal gas, two species, and a box under tension, by hand."""
    system = DissipativeParticles(particles=400, fractions=(0.5, 0.5), aspect=2.0)
    ones = np.ones(3)
    # displacements v lag each, one after the other the same: (1 + 2) v^2 lag^2 / (6 lag)
    flight = samples(observables.SoftDiffusion(), system, squared_displacement=12 * ones, displacement_product=12 * ones)
    assert flight == pytest.approx(3 * 12 / 12 * ones)
    apart = samples(observables.Segregation(), system, pairs=100 * ones, unlike_pairs=np.array([0.0, 50.0, 100.0]))
    assert apart == pytest.approx(1 - np.array([0, 0.5, 1]) * 399 / 200)
    tension = samples(observables.InterfacialTension(), system, virial_z=500 * ones, virial_x=400 * ones, virial_y=300 * ones)
    assert tension == pytest.approx(0.5 * system.box[2] * 150 / system.volume * ones)
    gas = np.random.default_rng(9).uniform(0, 1, (4, 400, 3)).astype(np.float32) * DissipativeParticles(particles=400).box[0]
    distribution = samples(observables.SoftDistribution(bins=8), DissipativeParticles(particles=400), frames=gas)
    # the 8th shell of 400 particles has 6 % of all pairs: 19,000 in four frames
    assert distribution[:, -1].mean() == pytest.approx(1, abs=4 / math.sqrt(19_000))
