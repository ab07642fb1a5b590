"""What is measured of a liquid, from outputs made by hand."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from manybody.core.errors import InputError
from manybody.core.study import Point, Study
from manybody.core.task import Output
from manybody.engines.particles.known_answers import energy_tail, pair_energy, pressure_tail
from manybody.engines.particles.observables import (
    Density,
    Enthalpy,
    IsothermalCompressibility,
    PotentialEnergy,
    Pressure,
    RadialDistribution,
    radial_distribution,
)
from manybody.engines.particles.spec import LennardJonesLiquid, MolecularDynamics

SYSTEM = LennardJonesLiquid(temperature=0.8, density=0.5, atoms=200, cutoff=2.5)
METHOD = MolecularDynamics(sample_every=0.08, frame_every=0.16)
POINT = Point(0, "", SYSTEM, METHOD)


def output(pairs, energy=-600.0, virial=300.0, frames=2):
    samples = len(pairs)
    generator = np.random.default_rng(0)
    return Output(
        {
            "time": 0.08 * np.arange(1, samples + 1),
            "pairs": np.array(pairs, dtype=float),
            "potential_energy": np.full(samples, energy),
            "virial": np.full(samples, virial),
            "frame_time": 0.16 * np.arange(1, frames + 1),
            "frames": generator.uniform(0, SYSTEM.box, (frames, 200, 3)).astype(np.float32),
        },
        {"temperature": 0.75},
    )


def test_energy_is_that_of_the_plain_cutoff_with_its_tail():
    samples = PotentialEnergy().samples(POINT, [output([4000, 4010, 3990, 4000])])
    expected = (-600 + pair_energy(2.5) * np.array([4000, 4010, 3990, 4000])) / 200 + energy_tail(0.5, 2.5)
    np.testing.assert_allclose(samples.values, expected, rtol=1e-14)
    assert samples.interval == 0.08


def test_weights_carry_over_to_the_plain_potential():
    samples = Pressure().samples(POINT, [output([4000, 4010]), output([3990, 4000])])
    np.testing.assert_allclose(samples.weights, np.exp(-pair_energy(2.5) * np.array([0, 10, -10, 0]) / 0.8), rtol=1e-14)
    assert samples.values[0] == pytest.approx(0.5 * 0.8 + 300 / (3 * 400) + pressure_tail(0.5, 2.5))


def test_without_thermostat_nothing_is_reweighted():
    point = replace(POINT, method=METHOD.model_copy(update={"thermostat": "none"}))
    samples = Pressure().samples(point, [output([4000, 4010])])
    assert (samples.weights == 1).all()
    assert samples.values[0] == pytest.approx(0.5 * 0.75 + 300 / (3 * 400) + pressure_tail(0.5, 2.5))


def test_no_tail_where_none_is_asked_for():
    point = replace(POINT, system=SYSTEM.model_copy(update={"tail_correction": False}))
    with_tail, without = Pressure().samples(POINT, [output([4000])]), Pressure().samples(point, [output([4000])])
    assert with_tail.values[0] - without.values[0] == pytest.approx(pressure_tail(0.5, 2.5))


def test_radial_distribution_of_an_ideal_gas_is_one():
    """Each bin holds a Poisson number of pairs; chi-square over bins against its own spread, 4 standard errors."""
    generator = np.random.default_rng(2)
    edges = np.linspace(0, 4, 21)
    curves = radial_distribution(generator.uniform(-8, 8, (50, 300, 3)), 8.0, edges)
    pairs = 50 * 300 * 299 / 2 * 4 / 3 * np.pi * np.diff(edges**3) / 8.0**3
    z = (curves.mean(axis=0) - 1) * np.sqrt(pairs)
    assert abs((z**2).sum() - 20) < 4 * np.sqrt(40)


def test_radial_distribution_finds_the_shells_of_a_lattice():
    grid = np.stack(np.meshgrid(*[np.arange(6.0)] * 3, indexing="ij"), -1).reshape(-1, 3)
    edges = np.linspace(0, 2.7, 31)
    found = radial_distribution(grid[None], 6.0, edges)[0] * 4 / 3 * np.pi * np.diff(edges**3) * 215 / 216
    shells = {1: 6, math.sqrt(2): 12, math.sqrt(3): 8, 2: 6, math.sqrt(5): 24, math.sqrt(6): 24}
    expected = np.histogram(list(shells), edges, weights=list(shells.values()))[0]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_curves_carry_the_weights_of_their_samples():
    samples = RadialDistribution(bins=20).samples(POINT, [output([4000, 4020, 4000, 3980])])
    assert samples.values.shape == (2, 20)
    assert samples.axis is not None
    assert samples.axis[-1] == pytest.approx(min(5.0, SYSTEM.box / 2) * 39 / 40)
    np.testing.assert_allclose(samples.weights, np.exp(-pair_energy(2.5) * np.array([20, -20]) / 0.8))


TRIALS = replace(POINT, method=MolecularDynamics(pressure=0.3, sample_every=0.08, frame_every=0.16))
PISTON = MolecularDynamics(
    pressure=0.3, barostat="martyna-tobias-klein", thermostat="nose-hoover", sample_every=0.08, frame_every=0.16
)


def under_pressure(volumes, **changes):
    made = output([4000, 4010, 3990, 4000][: len(volumes)], **changes)
    edges = np.cbrt(np.array(volumes))[1::2, None] * np.ones(3)
    return Output(dict(made.arrays) | {"volume": np.array(volumes), "frame_edges": edges}, made.document)


def test_at_constant_pressure_everything_has_the_volume_of_its_time():
    volumes = np.array([400.0, 440.0, 390.0, 410.0])
    rho = 200 / volumes
    found = {kind.name: kind.samples(TRIALS, [under_pressure(volumes)]) for kind in (Density(), PotentialEnergy(), Pressure())}
    energies = (-600 + pair_energy(2.5) * np.array([4000, 4010, 3990, 4000])) / 200 + rho * energy_tail(1.0, 2.5)
    np.testing.assert_allclose(found["density"].values, rho)
    np.testing.assert_allclose(found["potential-energy"].values, energies)
    np.testing.assert_allclose(found["pressure"].values, rho * 0.8 + 100 / volumes + rho**2 * pressure_tail(1.0, 2.5))
    enthalpy = Enthalpy().samples(TRIALS, [under_pressure(volumes)])
    np.testing.assert_allclose(enthalpy.values, energies + 1.2 + 0.3 / rho)
    assert all((samples.weights == 1).all() for samples in (*found.values(), enthalpy))


def test_samples_under_a_piston_carry_their_volume():
    volumes = [400.0, 440.0]
    samples = Density().samples(replace(POINT, method=PISTON), [under_pressure(volumes)])
    np.testing.assert_allclose(samples.weights, np.array(volumes) / 420)


def test_at_constant_volume_enthalpy_has_the_measured_pressure():
    outputs = [output([4000, 4010])]
    energies, pressures = (kind.samples(POINT, outputs).values for kind in (PotentialEnergy(), Pressure()))
    np.testing.assert_allclose(Enthalpy().samples(POINT, outputs).values, energies + 1.2 + pressures / 0.5)


def test_compressibility_is_the_fluctuation_of_the_volume():
    volumes = np.array([400.0, 440.0, 380.0, 420.0])
    samples = IsothermalCompressibility().samples(TRIALS, [under_pressure(volumes)])
    assert samples.values.mean() == pytest.approx(volumes.var() / (volumes.mean() * 0.8))


def test_curves_are_counted_in_the_box_of_their_time():
    volumes = np.array([400.0, 440.0, 380.0, 420.0])
    samples = RadialDistribution(bins=20).samples(TRIALS, [under_pressure(volumes)])
    assert samples.axis is not None
    frames = np.asarray(under_pressure(volumes).arrays["frames"], dtype=float)
    edges = np.linspace(0, 0.9 * SYSTEM.box / 2, 21)
    np.testing.assert_allclose(samples.values[1], radial_distribution(frames[1:], np.cbrt(420.0), edges)[0])
    with pytest.raises(InputError, match="Start at the density"):
        RadialDistribution(bins=20).samples(TRIALS, [under_pressure(0.5 * volumes)])


@pytest.mark.parametrize(
    ("measure", "method", "came"),
    [
        ("density", {}, "constant volume"),
        ("isothermal-compressibility", {}, "constant volume"),
        ("isothermal-compressibility", {"pressure": 0.3, "thermostat": "none"}, "a thermostat"),
        ("radial-distribution", {"pressure": 0.3, "coupling": "anisotropic", "start": "crystal"}, "a cubic box"),
    ],
)
def test_what_cannot_be_measured_is_refused_when_the_study_is_read(measure, method, came):
    system = {"name": "lennard-jones-liquid", "temperature": 0.8, "density": 1.0, "atoms": 256, "cutoff": 2.5}
    told = {"system": system, "method": {"name": "molecular-dynamics"} | method, "measures": [measure]}
    with pytest.raises(ValidationError) as refused:
        Study.model_validate({"name": "s", "checks": ["conservation"]} | told)
    assert came in str(refused.value)
    assert measure in str(refused.value)


def test_neither_torch_nor_numba_is_loaded():
    program = "import manybody.engines.particles.observables, sys; print([m for m in ('torch', 'numba') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "[]"
