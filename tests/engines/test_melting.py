"""Crystal and melt: the sums along the box, the published lines, the tasks, the measures, and a check that can fail."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from pydantic import ValidationError

from manybody.checks.reference import read_table
from manybody.core.certificate import Verdict
from manybody.core.errors import TaskError
from manybody.core.protocols import Estimate
from manybody.core.study import Point, Realisation
from manybody.core.task import Output
from manybody.engines.particles.known_answers import pressure_tail
from manybody.engines.particles.melting import known_answers as known
from manybody.engines.particles.melting import stages
from manybody.engines.particles.melting.coexisting import Coexisting
from manybody.engines.particles.melting.observables import CrystalShare, MeltingTemperature, NormalPressure, tail_pressure
from manybody.engines.particles.melting.slabs import crystalline, normal_pressure
from manybody.engines.particles.melting.spec import CoexistenceDynamics, LennardJonesCoexistence
from manybody.numerics.pairs import LENNARD_JONES
from manybody.store.encoding import encode
from manybody.testing.node import LocalNode

SYSTEM = LennardJonesCoexistence(cells=4, length=8, cutoff=2.5)
METHOD = CoexistenceDynamics(
    start_temperature=1.1,
    preparation=2.0,
    equilibration=0.4,
    duration=0.8,
    segment=0.4,
    sample_every=0.1,
    frame_every=0.2,
    bins=4,
)


# --- sums along the box ------------------------------------------------------------------------------------------


def lattice(cells, constant):
    corner = np.stack(np.meshgrid(*[np.arange(count) for count in cells], indexing="ij"), axis=-1).reshape(-1, 1, 3)
    basis = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    return (corner + basis).reshape(-1, 3) * constant, np.array(cells) * constant


def test_crystalline_atoms_are_told_from_disordered_ones():
    """A crystal shaken by a tenth of the nearest distance, as near melting, and gas of the same density beside it."""
    generator = np.random.default_rng(5)
    sites, box = lattice((4, 4, 4), 1.585)
    shaken = sites + 0.065 * generator.standard_normal(sites.shape)
    assert crystalline(shaken, box, 1.585) == 256
    assert crystalline(generator.uniform(0, 1, (256, 3)) * box, box, 1.585) == 0
    gas = generator.uniform(0, 1, (256, 3)) * box + [0, 0, box[2]]
    both = crystalline(np.vstack([shaken, gas]), box * [1, 1, 2], 1.585)
    assert 160 <= both <= 256  # the two outer layers of each side see the gas


def test_normal_pressure_is_the_virial_along_the_box():
    """Its mean over slabs is (sum v_z^2 + sum f_z z) / V; for a cubic crystal that is the kernel's own virial / 3."""
    generator = np.random.default_rng(6)
    sites, box = lattice((4, 4, 4), 1.6)
    kernel = LENNARD_JONES.bind({"epsilon": 1.0, "sigma": 1.0})
    virial = kernel.evaluate(sites, box, 2.5)[2]
    velocities = generator.standard_normal(sites.shape)
    for bins in (1, 8):
        found = normal_pressure(sites, velocities, box, 2.5, bins)
        assert found.shape == (bins,)
        assert found.mean() == pytest.approx(((velocities[:, 2] ** 2).sum() + virial / 3) / box.prod(), rel=1e-12)
    # Two slabs a layer each repeat the lattice: what is at rest has one pressure.
    still = normal_pressure(sites, np.zeros_like(sites), box, 2.5, 4)
    assert np.ptp(still) < 1e-10 * abs(still).max()


def test_normal_pressure_is_the_work_of_stretching():
    """-dU/dL_z / A of the shifted energy, by central differences, atoms at random distances of a lattice."""
    generator = np.random.default_rng(7)
    sites, box = lattice((4, 4, 4), 1.6)
    x = sites + 0.05 * generator.standard_normal(sites.shape)
    kernel = LENNARD_JONES.bind({"epsilon": 1.0, "sigma": 1.0})
    energies = []
    for by in (1 + 1e-6, 1 - 1e-6):
        _, energy, _, pairs = kernel.evaluate(x * [1, 1, by], box * [1, 1, by], 2.5)
        energies.append(energy - kernel.energy(2.5) * pairs)
    work = -(energies[0] - energies[1]) / (2e-6 * box.prod())
    assert normal_pressure(x % box, np.zeros_like(x), box, 2.5, 5).mean() == pytest.approx(work, abs=1e-3)


def test_what_the_full_potential_adds_is_the_tail_of_the_pressure_over_the_density_where_g_is_one():
    """An ideal gas at the density of the liquid: 2000 atoms have 1e5 pairs in reach, the sum is good to about 1 %."""
    box = np.full(3, 13.0)
    gas = np.random.default_rng(8).uniform(0, 13.0, (2000, 3))
    density = 2000 / 13.0**3
    assert stages.tail(gas, box, 2.5) == pytest.approx(pressure_tail(density, 2.5) / density, rel=0.02)


# --- published lines ---------------------------------------------------------------------------------------------


def test_published_lines_agree_with_each_other_as_said():
    """Van der Hoef's crystal is at his melting pressure at his melting density; Mastny and de Pablo melt 1 to 1.5 % higher."""
    van_der_hoef = {0.8: 0.97994, 1.0: 1.01070, 1.5: 1.08080}  # his eq. (26)
    for temperature, density in van_der_hoef.items():
        assert known.crystal_pressure(temperature, density) == pytest.approx(known.older_melting_pressure(temperature), abs=0.035)
    for pressure in (1.0, 4.0):
        melting = known.melting_temperature(pressure)
        assert known.melting_pressure(melting) == pytest.approx(pressure, abs=1e-9)
        older = melting - known.melting_slope(melting) * (known.older_melting_pressure(melting) - pressure)
        assert 0.01 < melting / older - 1 < 0.016
    assert known.melting_temperature(1.0) == pytest.approx(0.779, abs=0.001)
    crystal, liquid = known.melting_densities(0.694)  # their triple point
    assert (crystal, liquid) == pytest.approx((0.9606, 0.8454), abs=2e-4)


def test_the_table_of_the_study_is_the_published_line():
    row = read_table("studies/lennard-jones-melting/published.csv").rows[0]
    assert row["melting-temperature"] == pytest.approx(known.melting_temperature(row["system.pressure"]), abs=5e-5)


# --- spec ---------------------------------------------------------------------------------------------------------


def test_pressure_of_the_cut_potential_is_higher_by_the_tails():
    crystal, liquid = known.melting_densities(1.0)
    assert LennardJonesCoexistence().virial_pressure == pytest.approx(4.0 - pressure_tail(1.0, 3.0) * crystal * liquid)
    mean_field = {"density_crystal": crystal, "density_liquid": liquid}
    mean_field |= {f"tail_{phase}": pressure_tail(1.0, 3.0) * mean_field[f"density_{phase}"] for phase in ("crystal", "liquid")}
    assert tail_pressure(mean_field) == pytest.approx(pressure_tail(1.0, 3.0) * crystal * liquid)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cells": 4, "cutoff": 3.5}, "at most half the box's width"),
        ({"pressure": 9.0}, r"within 1 of the melting pressure at this temperature, 3\.9"),
        ({"length": 9}, "multiple of 2"),
    ],
)
def test_impossible_systems_are_refused(given, said):
    with pytest.raises(ValidationError, match=said):
        LennardJonesCoexistence(**given)


def test_samples_are_whole_cycles():
    with pytest.raises(ValidationError, match=r"a whole multiple of 25 time steps, 0\.1; got 0\.15"):
        CoexistenceDynamics(sample_every=0.15)


def test_points_share_the_phases():
    cold, _ = METHOD.model_copy(update={"start_temperature": 0.9}).plan(SYSTEM, 1, 0)
    hot, measured = METHOD.plan(SYSTEM, 1, 0)
    assert [task.stage for task in hot] == ["crystal", "liquid", "join", "settle", "produce", "produce"]
    assert [a.digest == b.digest for a, b in zip(cold, hot, strict=True)] == [True, True, False, False, False, False]
    assert measured == hot[4:]


# --- tasks --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chain():
    """A realisation's tasks and their outputs."""
    tasks, _ = METHOD.plan(SYSTEM, 1, 0)
    done, node = {}, LocalNode()
    for task in tasks:
        done[task.digest] = getattr(stages, task.stage)(task, {name: done[digest] for name, digest in task.inputs.items()}, node)
    return tasks, done, node


def test_outputs_have_their_shapes(chain):
    tasks, done, node = chain
    crystal, liquid, joined = (done[task.digest] for task in tasks[:3])
    assert crystal.arrays["box"] == pytest.approx(np.full(3, (256 / crystal.document["density"]) ** (1 / 3)))
    np.testing.assert_array_equal(crystal.arrays["box"][:2], liquid.arrays["box"][:2])
    assert 0.97 < crystal.document["density"] < 1.04
    assert 0.85 < liquid.document["density"] < 0.97
    assert joined.arrays["positions"].shape == (512, 3)
    assert joined.arrays["box"][2] == pytest.approx(crystal.arrays["box"][2] + liquid.arrays["box"][2])
    assert 0.1 < joined.document["phases"]["crystal_at_start"] < 0.6
    last = done[tasks[-1].digest]
    for name in ("time", "temperature", "potential_energy", "kinetic_energy", "effective_energy", "momentum"):
        assert last.arrays[name].shape == (4,)
    assert last.arrays["boxes"].shape == (4, 3)
    assert last.arrays["profile"].shape == (2, 4)
    assert last.arrays["crystal_share"].shape == last.arrays["force_square"].shape == last.arrays["frame_time"].shape == (2,)
    assert last.arrays["frames"].shape == (2, 512, 3)
    assert np.ptp(last.arrays["effective_energy"]) < 1e-3
    assert (last.arrays["boxes"][:, :2] == crystal.arrays["box"][:2]).all()
    assert node.told[-1].fraction == 1.0


def test_a_task_repeats_bit_for_bit(chain):
    tasks, done, _ = chain
    last = tasks[-1]
    again = stages.produce(last.replicated(1), {name: done[digest] for name, digest in last.inputs.items()}, LocalNode())
    assert encode(again) == encode(done[last.digest])


def test_conserve_takes_the_twin(chain):
    tasks, done, _ = chain
    twin = METHOD.twin(Realisation(Point(0, "", SYSTEM, METHOD), 0, tasks, tasks[4:]), 0.5)
    output = stages.conserve(twin, {"state": done[tasks[-1].digest]}, LocalNode())
    assert output.arrays["time"].shape == (1000,)
    assert 0 < output.document["energy_fluctuation"] < 1e-4


def test_missing_or_damaged_input_is_refused(chain):
    tasks, done, _ = chain
    with pytest.raises(TaskError, match="expected an input `crystal`; got none"):
        stages.liquid(tasks[1], {}, LocalNode())
    before = done[tasks[-1].inputs["state"]]
    damaged = Output(dict(before.arrays) | {"positions": np.full((512, 3), np.nan)}, before.document)
    with pytest.raises(TaskError, match="finite `positions` of shape"):
        stages.produce(tasks[-1], {"state": damaged}, LocalNode())


def test_a_crystal_that_does_not_melt_is_said(chain, monkeypatch):
    tasks, done, _ = chain
    monkeypatch.setattr(stages, "MELTING_TIME", 0.004)
    with pytest.raises(TaskError, match=r"expected a liquid; .* atoms are crystalline at the end of melting"):
        stages.liquid(tasks[1], {"crystal": done[tasks[0].digest]}, LocalNode())


# --- measures and check -------------------------------------------------------------------------------------------


PHASES = {"density_crystal": 1.01, "density_liquid": 0.92, "tail_crystal": -1.08, "tail_liquid": -0.99, "crystal_at_start": 0.45}


def made(temperature=1.0, share=0.5, pressure=None, seed=0):
    generator = np.random.default_rng(seed)
    at = SYSTEM.virial_pressure if pressure is None else pressure
    arrays = {
        "temperature": temperature + 0.01 * generator.standard_normal(400),
        "force_square": np.full(200, 400.0),
        "crystal_share": share + 0.01 * generator.standard_normal(200),
        "profile": at + 0.3 * generator.standard_normal((200, 4)),
    }
    return Output(arrays, {"phases": PHASES})


def test_temperature_is_carried_to_the_full_potential_and_from_the_step():
    point = Point(0, "", SYSTEM, METHOD)
    shift = known.melting_slope(1.0) * (4.0 - SYSTEM.virial_pressure - tail_pressure(PHASES))
    values = MeltingTemperature(window=0.1).samples(point, [made()]).values
    np.testing.assert_allclose(values - made().arrays["temperature"], shift + 0.004**2 * 400 / 6, atol=1e-14)
    means = MeltingTemperature(window=1.5).samples(point, [made()])  # 26 windows of 15 samples, the first 10 left over
    np.testing.assert_allclose(means.values, values[10:].reshape(26, 15).mean(axis=1), atol=1e-14)
    assert means.interval == pytest.approx(1.5)
    assert len(MeltingTemperature(window=500.0).samples(point, [made()]).values) == 1
    assert (NormalPressure().expected(point, [made()]) == SYSTEM.virial_pressure).all()


@dataclass
class Made:
    """Evidence made by hand: one output a run."""

    plan: object
    outputs: dict

    def output(self, task):
        return self.outputs[task]

    def samples(self, run, measure):
        reader = {"melting-temperature": MeltingTemperature, "crystal-share": CrystalShare, "normal-pressure": NormalPressure}
        settings = {"window": 0.1} if measure == "melting-temperature" else {}
        return reader[measure](**settings).samples(run.point, [self.outputs[task] for task in run.measured])

    def estimate(self, point, measure):
        values = np.concatenate([self.samples(run, measure).values for run in self.plan.realisations if run.point == point])
        return Estimate(values.mean(), values.std() / math.sqrt(len(values)), len(values), len(values), 1.0)


@dataclass
class Planned:
    realisations: tuple
    points: tuple


def judged(cold, hot):
    sides = {0.9: cold, 1.1: hot}
    points = tuple(
        Point(i, f"start {start}", SYSTEM, METHOD.model_copy(update={"start_temperature": start}))
        for i, start in enumerate(sides)
    )
    runs = tuple(Realisation(point, 0, (f"run {point.index}",), (f"run {point.index}",)) for point in points)
    outputs = {run.measured[0]: output for run, output in zip(runs, sides.values(), strict=True)}
    return {finding.name: finding.verdict for finding in Coexisting().judge(Made(Planned(runs, points), outputs), ())}


SOUND = {"cold": made(share=0.55, seed=1), "hot": made(share=0.35, seed=2)}


def test_sound_coexistence_holds():
    assert set(judged(**SOUND).values()) == {Verdict.HOLDS}


@pytest.mark.parametrize(
    ("spoilt", "name"),
    [
        ({"cold": made(share=0.42, seed=1)}, "freezing and melting"),
        ({"hot": made(share=0.46, seed=2)}, "freezing and melting"),
        ({"hot": made(share=0.15, seed=2)}, "both phases"),
        ({"hot": made(1.005, 0.35, seed=2)}, "one melting temperature"),
        ({"hot": made(share=0.35, pressure=SYSTEM.virial_pressure + 0.15, seed=2)}, "one pressure"),
    ],
)
def test_each_finding_can_fail(spoilt, name):
    found = judged(**(SOUND | spoilt))
    assert found.pop(name) is Verdict.FAILS
    assert set(found.values()) == {Verdict.HOLDS}


def test_one_side_alone_is_undecided():
    both = [replace(made(1.3, 0.55, seed=1)), made(1.3, 0.55, seed=2)]
    assert judged(*both)["freezing and melting"] is Verdict.UNDECIDED
