"""What dynamics with rigid bonds must do: conserve, converge, share energy evenly, and stop where it cannot go on."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.engines.molecules.engine import MoleculeEngine
from manybody.engines.molecules.spec import KELVIN, Molecule, WaterBox
from manybody.numerics.statistics import block_error

KT = 300 * KELVIN
CUT = WaterBox(temperature=KT, molecules=64, cutoff=0.6, switch=0.5, electrostatics="reaction-field", permittivity=1e6)
EWALD = CUT.model_copy(update={"electrostatics": "pme", "force_error": 1e-5})
ALANINE = Molecule(temperature=KT)


@pytest.fixture(scope="module")
def equilibrated():
    """States at 300 K after half a picosecond, at rest as a whole."""
    found = {}
    for system in (CUT, ALANINE):
        engine = MoleculeEngine(system, 0.002, "langevin", 0.1)
        found[system.name] = engine.at_rest(engine.step(engine.init(Key.from_seed(11)), 500))
    return found


def total(trace):
    return trace.potential_energy + trace.kinetic_energy - trace.heat


@pytest.mark.parametrize("system", [EWALD, ALANINE], ids=["water", "molecule"])
def test_energy_errors_fall_with_the_square_of_the_time_step(equilibrated, system):
    fluctuations = []
    for dt in (0.002, 0.001):
        _, trace = MoleculeEngine(system, dt).record(replace(equilibrated[system.name], heat=0.0), 1, round(0.4 / dt))
        fluctuations.append(np.std(total(trace)))
    assert math.log2(fluctuations[0] / fluctuations[1]) == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize("thermostat", ["none", "bussi"])
def test_rigid_water_keeps_its_shape_its_energy_and_its_momentum(equilibrated, thermostat):
    engine = MoleculeEngine(EWALD, 0.001, thermostat, 0.1)
    after, trace = engine.record(replace(equilibrated["water-box"], heat=0.0), 2, 250)
    energy = total(trace) / (engine.freedom * KT)
    assert np.ptp(energy) < 1e-3
    # round-off of positions of a nm over the time step, times the mass, in 500 random steps of 192 atoms; ten times that
    assert np.abs(trace.momentum).max() < 10 * 2.3e-16 / 0.001 * 16 * math.sqrt(500 * 192)
    assert engine.topology.constraints.violation(after.positions.numpy()) < 1e-11


def test_a_molecule_in_vacuum_does_not_begin_to_turn(equilibrated):
    engine = MoleculeEngine(ALANINE, 0.002, "bussi", 0.1)
    after = engine.step(equilibrated["molecule"], 500)
    x, v, masses = after.positions.numpy(), after.velocities.numpy(), engine.topology.masses
    spin = masses @ np.cross(x - masses @ x / masses.sum(), v)
    assert np.abs(spin).max() < 1e-8
    assert engine.freedom == 3 * 22 - 12 - 6


@pytest.mark.parametrize("thermostat", ["langevin", "bussi"])
def test_rigid_water_shares_its_energy_evenly(equilibrated, thermostat):
    """Half of the energy is in the centres of mass, half in rotation: 3 N of each, less the total momentum."""
    engine = MoleculeEngine(CUT, 0.002, thermostat, 0.1)
    _, trace = engine.record(equilibrated["water-box"], 5, 800)
    moving = 3 * CUT.molecules - (0 if thermostat == "langevin" else 3)
    turning = 3 * CUT.molecules
    assert engine.freedom == moving + turning
    for kinetic, freedom in (
        (trace.centre_kinetic_energy, moving),
        (trace.kinetic_energy - trace.centre_kinetic_energy, turning),
    ):
        ratio = 2 * kinetic[200:] / (freedom * KT)
        error = float(block_error([ratio - ratio.mean()]).error)
        # At 2 fs the velocities of librating hydrogens lag by some (omega dt)^2 / 8, of half a percent.
        assert ratio.mean() == pytest.approx(1, abs=4 * error + 0.005)


def test_the_pressure_is_the_derivative_of_the_free_energy_along_moved_molecules():
    """-dU/dV where whole molecules move apart, against the molecular virial."""
    engine = MoleculeEngine(CUT)
    start = engine.step(engine.init(Key.from_seed(3)), 50)
    x, centres = start.positions.numpy(), engine.field.centres(start.positions.numpy())[engine.topology.molecule]

    def energy(factor):
        edge = CUT.box * factor
        wide = MoleculeEngine(CUT.model_copy(update={"density": CUT.density / factor**3}))
        assert wide.system.box == pytest.approx(edge)
        return wide.field.evaluate(x + (factor - 1) * centres).energy

    h = 1e-5
    slope = (energy(1 + h) - energy(1 - h)) / (2 * h)
    assert -slope == pytest.approx(engine.field.molecular_virial(x, engine.field.evaluate(x)), rel=2e-3)


def test_ewald_does_not_care_where_the_mesh_lies(equilibrated):
    field = MoleculeEngine(EWALD).field
    x = equilibrated["water-box"].positions.numpy()
    here, there = field.evaluate(x), field.evaluate(x + np.array([0.37, -1.2, 5.03]))
    assert here.energy == pytest.approx(there.energy, rel=1e-5)
    assert np.sqrt(((here.forces - there.forces) ** 2).sum() / (here.forces**2).sum()) < 2e-5
    assert np.abs(here.forces.sum(axis=0)).max() < 1e-8


@pytest.mark.parametrize("where", ["torn", "overlapping", "lost"])
def test_a_run_that_cannot_go_on_names_step_atom_and_remedy(equilibrated, where):
    state = equilibrated["water-box"]
    x, v = state.positions.clone(), state.velocities.clone()
    if where == "torn":
        v[4] *= 1000
    elif where == "overlapping":
        x[3:6] = x[0:3] + 0.01
    else:
        x[7, 1] = math.nan
    with pytest.raises(TaskError, match=r"Step \d+: .*atoms? \d+.*Lower `time_step`"):
        MoleculeEngine(CUT, 0.002).step(replace(state, positions=x, velocities=v, step=0), 100)


def test_flexible_bonds_are_stiffer_than_rigid_ones_allow(equilibrated):
    """The same molecule with and without rigid hydrogens: 12 bonds, 12 degrees of freedom."""
    flexible = MoleculeEngine(ALANINE.model_copy(update={"rigid": "none"}), 0.0005)
    rigid = MoleculeEngine(ALANINE, 0.0005)
    assert flexible.freedom - rigid.freedom == 12
    start = flexible.init(Key.from_seed(2))
    lengths = rigid.topology.constraints
    assert lengths.violation(rigid.step(rigid.init(Key.from_seed(2)), 20).positions.numpy()) < 1e-11
    assert lengths.violation(flexible.step(start, 20).positions.numpy()) > 1e-3
    assert torch.equal(start.box, torch.zeros(3, dtype=torch.float64))
