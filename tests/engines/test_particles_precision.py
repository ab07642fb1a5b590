"""Pair forces in single precision: how far off they are, that nothing else is, and what dynamics makes of it."""

import numpy as np
import pytest
import torch

from manybody.core.random import Key
from manybody.engines.particles.engine import LiquidEngine
from manybody.engines.particles.extended import ExtendedEngine
from manybody.engines.particles.spec import LennardJonesLiquid, MolecularDynamics, drift_tolerance
from manybody.engines.particles.state import ParticleState
from manybody.engines.particles.volume_moves import VolumeMoveEngine
from manybody.numerics.pairs import LENNARD_JONES

U = 2.0**-24  # single precision rounds a number to within this part of it
SYSTEM = LennardJonesLiquid(temperature=0.9, density=0.8, atoms=300, cutoff=2.5)
UNIT = {"epsilon": 1.0, "sigma": 1.0}
DOUBLE, MIXED = (LENNARD_JONES.bind(UNIT, precision) for precision in ("double", "mixed"))


@pytest.fixture(scope="module")
def liquid() -> ParticleState:
    hot = LiquidEngine(SYSTEM, 0.004, "bussi", temperature=2.0)
    engine = LiquidEngine(SYSTEM, 0.004, "bussi", thermostat_time=0.1)
    return engine.step(hot.step(hot.init(Key.from_seed(2)), 500), 500)


def bound(x: np.ndarray, box: np.ndarray, cutoff: float) -> np.ndarray:
    """How far off the forces on atoms at x [atoms, 3] may be, [atoms].

    Coordinates relative to a cluster's first atom are below D = 2 cutoff and rounded to U D, so the vector between two atoms
    is off by 2 sqrt(3) U D, and by U r from the subtraction: that times |u''|, the stiffest way. 24 (2 r^-14 + r^-8) r takes
    seventh powers of an inverse with six roundings in it, about 60 U of its terms; 20 U more for sums of 16 and of 16 lanes.
    """
    apart = x[:, None] - x
    apart -= box * np.round(apart / box)
    r = np.linalg.norm(apart, axis=2)
    np.fill_diagonal(r, np.inf)
    r[r > cutoff] = np.inf
    stiff = 4 * (156 * r**-14.0 + 42 * r**-8.0)
    force = 24 * (2 * r**-13.0 + r**-7.0)
    moved = np.where(np.isfinite(r), U * (2 * np.sqrt(3) * 2 * cutoff + np.where(np.isfinite(r), r, 0)), 0)
    return (moved * stiff + 80 * U * force).sum(axis=1)


@pytest.mark.parametrize(("edge", "at"), [(None, 0.0), (4000.0, 7.0), (4000.0, 3900.0)])
def test_forces_are_off_by_single_round_off_wherever_the_atoms_are(liquid, edge, at):
    """In a box of 4,000 single precision knows places to 1e-4, and forces would be off by a thousand times the bound."""
    x, box = liquid.positions.numpy() % liquid.box.numpy() + at, liquid.box.numpy() if edge is None else np.full(3, edge)
    exact, energy, virial, pairs = DOUBLE.evaluate(x, box, SYSTEM.cutoff)
    forces, *others = MIXED.evaluate(x, box, SYSTEM.cutoff)
    off = np.linalg.norm(forces - exact, axis=1)
    assert (off <= bound(x, box, SYSTEM.cutoff)).all()
    largest = np.linalg.norm(exact, axis=1).max()
    assert 0.01 * U * largest < off.max() < 100 * U * largest, "single precision, and no worse"
    assert others == pytest.approx([energy, virial, pairs], rel=1e-13)


def test_same_bits_for_any_number_of_threads_and_calls(liquid):
    one, two = (LiquidEngine(SYSTEM, 0.004, threads=threads, precision="mixed") for threads in (1, 2))
    (first, trace), (second, other) = one.record(liquid, 30, 10), two.record(liquid, 30, 10)
    assert torch.equal(first.positions, second.positions)
    assert (trace.potential_energy == other.potential_energy).all()
    assert torch.equal(first.velocities, one.record(liquid, 300, 1)[0].velocities)


def test_dynamics_conserves_as_in_double_precision(liquid):
    """Errors are random and heat by (dt dF)^2 / 2 a step, 1e-14 here: what is left is the integrator's, as in double."""
    slopes, spreads, averages = {}, {}, {}
    for precision in ("double", "mixed"):
        _, trace = LiquidEngine(SYSTEM, 0.004, precision=precision).record(liquid, 10, 1000)
        energy = (trace.potential_energy + trace.kinetic_energy) / (3 * SYSTEM.atoms * SYSTEM.temperature)
        slopes[precision] = abs(np.polyfit(0.04 * np.arange(1000), energy, 1)[0])
        spreads[precision] = energy.std()
        averages[precision] = trace.kinetic_energy.mean() / SYSTEM.atoms
        pushed = np.linalg.norm(trace.momentum[-1] - trace.momentum[0])
        # forces of a pair are not quite opposite: a random walk of dt dF, dF at most 100 U of a force of 14
        assert pushed < 5 * np.sqrt(10_000 * 3 * SYSTEM.atoms) * 0.004 * 100 * U * 14
    assert max(slopes.values()) < drift_tolerance(0.5)
    assert spreads["mixed"] == pytest.approx(spreads["double"], rel=0.3)
    assert averages["mixed"] == pytest.approx(
        averages["double"], abs=0.03
    )  # twice 1.5 T / sqrt(300 / heat capacity's share) over 40 tau


def test_studies_say_so_where_it_is_mixed():
    plain, mixed = MolecularDynamics(), MolecularDynamics(precision="mixed")
    assert "precision" not in plain.document() | plain.plan(SYSTEM, 1, 0)[0][1].parameters
    assert mixed.document()["precision"] == mixed.plan(SYSTEM, 1, 0)[0][1].parameters["precision"] == "mixed"
    assert mixed.conserves(SYSTEM)[1].tolerance > 1e8 * plain.conserves(SYSTEM)[1].tolerance


def test_boxes_move_as_in_double_precision(liquid):
    """80 steps are too few for what forces are off by, 1e-6, to have grown: trials fall alike, and pistons push alike."""
    boxes = {}
    for precision in ("double", "mixed"):
        trials = VolumeMoveEngine(SYSTEM, 2.0, 0.004, "langevin", stride=4, precision=precision)
        piston = ExtendedEngine(SYSTEM, 2.0, 0.004, stride=4, precision=precision)
        (_, tried), (_, pushed) = trials.record(liquid, 20), piston.record(piston.thermal(liquid), 20)
        assert 0 < tried.accepted < 20
        boxes[precision] = np.concatenate([tried.box, pushed.box])
    off = np.abs(boxes["mixed"] / boxes["double"] - 1).max()
    assert 0 < off < 1e-6 < np.ptp(boxes["double"])
