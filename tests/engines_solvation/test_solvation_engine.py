"""The engine of a coupled solute: its contract, its forces and slopes, its tasks, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.core.task import Task
from manybody.engines.solvation import stages
from manybody.engines.solvation.engine import SolvationEngine, solute_pairs
from manybody.engines.solvation.spec import AlchemicalDynamics, LennardJonesSolvation
from manybody.testing.engine import check_engine

QUICK = AlchemicalDynamics(
    windows=3, melting=1.0, equilibration=1.0, settling=1.0, duration=6.4, segment=3.2, sample_every=0.2, frame_every=0.8,
    blocks=16, insertions=20,
)  # fmt: skip


def test_contract(fluid):
    """Motion reversed retraces itself; from a lattice whose contacts are hard, the energy is kept to 1e-3 kT."""
    back = lambda state: replace(state, velocities=-state.velocities)  # noqa: E731 -- a name for what is handed over
    check_engine(SolvationEngine(fluid, 0.4, time_step=5e-4), conserved=1e-3, reverse=back)


def test_compiled_forces_are_those_of_the_coupled_term(fluid, start):
    """What the mixture's kernel adds from coupling 0 to 0.35 is the term's energy and forces, by another route."""
    term = solute_pairs(fluid, 0.5).at(start.positions, 0.35)
    on, off = (SolvationEngine(fluid, coupling) for coupling in (0.35, 0.0))
    some, none = (engine.kernel.evaluate(start.positions, engine.species, engine.cell) for engine in (on, off))
    assert some.energy - none.energy == pytest.approx(term.energy, abs=1e-10 * abs(some.energy))
    np.testing.assert_allclose(some.forces - none.forces, term.forces, atol=1e-10 * np.abs(some.forces).max())
    assert np.abs(none.forces[0]).max() == 0


def test_samples_are_those_of_the_configuration(fluid, start):
    engine, term, couplings = SolvationEngine(fluid, 0.35), solute_pairs(fluid, 0.5), (0.0, 0.35, 1.0)
    end, trace = engine.record(start, 10, 2, couplings, insertions=500)
    found = term.at(end.positions, 0.35)
    assert trace.slopes[-1] == pytest.approx(found.slope, rel=1e-10)
    np.testing.assert_allclose(trace.energies[-1], term.energies(end.positions, couplings), rtol=1e-10, atol=1e-12)
    whole = engine.kernel.evaluate(end.positions, engine.species, engine.cell)
    assert trace.potential_energy[-1] == pytest.approx(whole.energy, rel=1e-12)
    apart = end.positions[0] - end.positions[1:]
    apart -= fluid.box * np.rint(apart / fluid.box)
    assert trace.neighbours[-1] == np.count_nonzero((apart**2).sum(axis=1) <= fluid.cutoff**2)


def test_insertion_is_the_mean_boltzmann_factor(fluid, start):
    """Against the term's own energies with the solute moved to the same places."""
    engine, term = SolvationEngine(fluid, 0.0), solute_pairs(fluid, 0.5)
    axes = start.key.derive("insertions", start.step).generator()
    places = np.stack([axes.uniform(0, fluid.box, (8, 1, 1)).ravel() for _ in range(3)], axis=1)
    factors = []
    for place in places:
        moved = start.positions.copy()
        moved[0] = place
        factors.append(math.exp(-term.at(moved, 1.0).energy / fluid.temperature))
    assert engine.insertion(start, 8) == pytest.approx(float(np.mean(factors)), rel=1e-9)


def test_new_velocities_keep_the_kinetic_energy_and_no_momentum(fluid, start):
    engine = SolvationEngine(fluid)
    fresh = engine.renewed(replace(start, step=7))
    assert float((fresh.velocities**2).sum()) == pytest.approx(engine.freedom * fluid.temperature, rel=1e-13)
    assert np.abs(fresh.velocities.sum(axis=0)).max() < 1e-12
    assert not np.array_equal(fresh.velocities, engine.renewed(start).velocities)
    assert engine.conserved(fresh)["balance"] == pytest.approx(engine.conserved(start)["balance"], abs=1e-12)


def test_a_decoupled_solute_flies_straight(fluid, start):
    """Nothing touches it; the thermostat changes the length of its velocity, not the direction."""
    end = SolvationEngine(fluid, 0.0).step(start, 40)
    before, after = (state.velocities[0] / np.linalg.norm(state.velocities[0]) for state in (start, end))
    np.testing.assert_allclose(after, before, atol=1e-12)


def test_an_exploded_run_says_where(fluid, start):
    positions = start.positions.copy()
    positions[2] = positions[1] + 1e-3
    with pytest.raises(TaskError, match=r"Step \d+: particle .* has exploded"):
        SolvationEngine(fluid).step(replace(start, positions=positions), 4)


def test_a_realisation_goes_on_from_its_checkpoint_with_the_same_bits(fluid, lasting):
    tasks, measured = QUICK.plan(fluid, 5, 0)
    assert len(tasks) == 1 + 3 * 3
    assert len(measured) == 3 * 2
    results = {tasks[0].digest: stages.melt(tasks[0], {}, lasting())}
    settled, first = tasks[1], tasks[2]
    results[settled.digest] = stages.settle(settled, {"state": results[tasks[0].digest]}, lasting())
    inputs, node = {"state": results[settled.digest]}, lasting()
    whole = stages.sample(first, inputs, node)
    again = stages.sample(first, inputs, lasting(node.kept[1]))
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name], err_msg=name)
    assert whole.document == again.document
    assert whole.arrays["insertions"].shape == (16,)
    assert whole.arrays["energies"].shape == (16, 3)
    assert node.told[-1].fraction == 1
    with pytest.raises(TaskError, match="expected an input `state`"):
        stages.sample(first, {}, lasting())


def test_longer_runs_keep_shorter_ones(fluid):
    short, long = (method.plan(fluid, 5, 0)[0] for method in (QUICK, QUICK.extended(2)))
    assert {task.digest for task in short} <= {task.digest for task in long}
    assert isinstance(short[0], Task)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"cutoff": 3.5}, "at most half the box"), ({"solute_epsilon": 0}, "greater than 0"), ({"solute_sigma": 3}, "less than")],
)
def test_impossible_systems_are_refused(changes, message, fluid):
    with pytest.raises(ValidationError, match=message):
        LennardJonesSolvation.model_validate(fluid.document() | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segment": 3.0}, "a whole multiple of frame_every"),
        ({"duration": 5.0}, "two samples in each of 16 blocks"),
        ({"melting_temperature": 1000}, "at most 400"),
        ({"windows": 2}, "greater than or equal to 3"),
    ],
)
def test_impossible_methods_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        AlchemicalDynamics.model_validate(QUICK.document() | changes)


def test_keys_make_states(fluid):
    engine = SolvationEngine(fluid)
    assert not np.array_equal(engine.init(Key.from_seed(1)).positions, engine.init(Key.from_seed(2)).positions)
