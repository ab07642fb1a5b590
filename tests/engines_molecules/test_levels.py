"""Multiple time steps: the parts make the whole, and errors fall with the square of the long step."""

import math
from dataclasses import replace

import numpy as np
import pytest

from manybody.core.random import Key
from manybody.engines.molecules.barostat import Barostat
from manybody.engines.molecules.engine import MoleculeEngine
from manybody.engines.molecules.levels import Levels, together
from manybody.engines.molecules.spec import KELVIN, ForceFieldDynamics, Molecule, WaterBox
from manybody.testing.engine import check_engine

KT = 300 * KELVIN
WATER = WaterBox(temperature=KT, molecules=64, cutoff=0.6, switch=0.5, force_error=1e-5)
ALANINE = Molecule(temperature=KT, rigid="none")


@pytest.fixture(scope="module")
def equilibrated():
    """States at 300 K after half a picosecond, at rest as a whole."""
    found = {}
    for system, dt in ((WATER, 0.002), (ALANINE, 0.0005)):
        engine = MoleculeEngine(system, dt, "langevin", 0.1)
        state = engine.at_rest(engine.step(engine.init(Key.from_seed(12)), round(0.5 / dt)))
        found[system.name] = replace(state, heat=0.0)
    return found


@pytest.mark.parametrize("system", [WATER, ALANINE], ids=["water", "molecule"])
def test_fast_and_slow_make_the_whole(equilibrated, system):
    field = MoleculeEngine(system).field
    levels, x = Levels.of(field), equilibrated[system.name].positions.numpy()
    whole, parts = field.evaluate(x), together(levels.fast.evaluate(x), levels.slow(x))
    assert parts.energies == pytest.approx({name: parts.energies[name] for name in whole.energies})
    assert parts.energy == pytest.approx(whole.energy, rel=1e-9)
    assert parts.virial == pytest.approx(whole.virial, rel=1e-9)
    assert np.abs(parts.forces - whole.forces).max() < 1e-9 * np.abs(whole.forces).max()
    slow = levels.slow(x).forces
    assert np.sqrt((slow**2).mean()) < 0.8 * np.sqrt((whole.forces**2).mean())


@pytest.mark.parametrize(("system", "short", "steps"), [(WATER, 0.002, 2), (ALANINE, 0.0005, 4)], ids=["water", "molecule"])
def test_energy_errors_fall_with_the_square_of_the_long_step(equilibrated, system, short, steps):
    fluctuations = []
    for dt in (short, short / 2):
        engine = MoleculeEngine(system, dt * steps, short_steps=steps)
        _, trace = engine.record(equilibrated[system.name], 1, round(0.4 / (dt * steps)))
        fluctuations.append(np.std(trace.potential_energy + trace.kinetic_energy))
    assert math.log2(fluctuations[0] / fluctuations[1]) == pytest.approx(2, abs=0.3)


def test_a_long_step_of_all_forces_is_worse_than_short_ones_of_the_fast(equilibrated):
    """Bonds to hydrogen in steps of half a femtosecond, the pairs each 2 fs: 2 fs for all would be far off."""

    def spread(**steps):
        _, trace = MoleculeEngine(ALANINE, 0.002, **steps).record(equilibrated["molecule"], 1, 100)
        return np.std(trace.potential_energy + trace.kinetic_energy)

    assert spread(short_steps=4) < 0.2 * spread()


def test_molecules_in_levels_keep_the_contract_of_an_engine():
    """In vacuum, where forces are in double precision: two long steps are one of them twice to 1e-9."""
    engine = MoleculeEngine(ALANINE, 0.001, short_steps=2)
    check_engine(engine, conserved=3e-2, reverse=lambda s: replace(s, velocities=-s.velocities), steps=20)


def test_levels_go_with_a_barostat(equilibrated):
    """The slow part is that of the box of now: the effective energy is conserved through moves of the volume."""
    engine = MoleculeEngine(WATER, 0.004, "bussi", 0.1, barostat=Barostat(0.06, KT, 2), short_steps=2)
    _, trace = engine.record(replace(equilibrated["water-box"], width=0.05), 1, 60)
    assert len(np.unique(trace.volume)) > 5
    energy = (trace.potential_energy + trace.kinetic_energy - trace.heat) / (engine.freedom * KT)
    assert np.ptp(energy) < 3e-3


def test_what_does_not_go_with_levels_is_refused():
    cut = WATER.model_copy(update={"electrostatics": "reaction-field"})
    with pytest.raises(ValueError, match="1 without particle-mesh Ewald"):
        ForceFieldDynamics(slow_every=2).suits(cut)
    with pytest.raises(ValueError, match="whole multiple of slow_every time steps"):
        ForceFieldDynamics(slow_every=3, time_step=0.002, sample_every=0.02)
