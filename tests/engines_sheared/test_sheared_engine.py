"""The engine of sheared mixtures: its contract, its balance of energy, its order, its limits and its complaints."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.core.task import Task
from manybody.engines.sheared import stages
from manybody.engines.sheared.engine import ShearedEngine
from manybody.engines.sheared.spec import LennardJonesMixture, ShearedDynamics
from manybody.engines.sheared.state import MixtureState
from manybody.testing.engine import check_engine

KINDS = {"sheared": (0.3, "isokinetic"), "isokinetic": (0.0, "isokinetic"), "newtonian": (0.0, "none"), "heated": (0.3, "none")}


@pytest.mark.parametrize("kind", ["sheared", "isokinetic", "newtonian"])
def test_contract(kind, liquid):
    """Motion reversed retraces itself, at rest; from a lattice whose contacts are hard, the energy is kept to 1e-3."""
    rate, thermostat = KINDS[kind]
    engine = ShearedEngine(liquid, 5e-4, rate, thermostat)
    back = (lambda state: replace(state, velocities=-state.velocities)) if rate == 0 else None
    check_engine(engine, conserved=1e-3, reverse=back)


def energies(engine: ShearedEngine, start: MixtureState, time: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Energy less work and heat, kinetic energy, heat and work, at every step."""
    _, trace = engine.record(start, 1, round(time / engine.time_step))
    energy = trace.potential_energy + trace.kinetic_energy
    return energy - trace.heat - trace.work, trace.kinetic_energy, trace.heat, trace.work


@pytest.mark.parametrize("kind", KINDS)
def test_energy_is_work_and_heat_to_second_order(kind, liquid, start):
    """Halving the time step quarters the fluctuation of the balance, with and without shear and thermostat."""
    rate, thermostat = KINDS[kind]
    spread = []
    for dt in (0.008, 0.004):
        balance, kinetic, heat, work = energies(ShearedEngine(liquid, dt, rate, thermostat), start, 1.6)
        spread.append(float(np.std(balance)))
        if thermostat == "isokinetic":
            assert np.abs(kinetic / kinetic[0] - 1).max() < 1e-12
        else:
            assert (heat == 0).all()
        assert (work != 0).any() == (rate > 0)
    # What pairs do at the cutoff, where the force jumps, adds noise of order 1 to that: a tenth of it at these steps.
    assert math.log2(spread[0] / spread[1]) == pytest.approx(2, abs=0.35)
    assert spread[1] < 2e-3 * liquid.atoms


def test_no_shear_is_newton_s_dynamics(liquid, start):
    """At rest and without the thermostat a step is velocity Verlet, by its own formula."""
    engine, dt = ShearedEngine(liquid, 0.003, 0.0, "none"), 0.003
    x, v = start.positions.copy(), start.velocities.copy()
    for _ in range(3):
        v = v + 0.5 * dt * engine.kernel.evaluate(x, start.species, start.cell).forces
        x = x + dt * v
        v = v + 0.5 * dt * engine.kernel.evaluate(x, start.species, start.cell).forces
    end = engine.step(start, 3)
    np.testing.assert_allclose(end.velocities, v, rtol=0, atol=1e-12)
    hops = (end.positions - x) @ np.linalg.inv(start.cell)
    np.testing.assert_allclose(hops, np.rint(hops), atol=1e-12)


def test_flow_is_that_of_moving_images(liquid, start):
    """Shear is nothing but images that move: a step is velocity Verlet in the laboratory, where velocities are v + rate y e_x."""
    rate, dt = 0.5, 0.002
    engine = ShearedEngine(liquid, dt, rate, "none")
    end = engine.step(start, 1)
    x = start.positions.copy()
    lab = start.velocities.copy()
    lab[:, 0] += rate * x[:, 1]
    lab += 0.5 * dt * engine.kernel.evaluate(x, start.species, start.cell).forces
    x += dt * lab
    cell = start.cell.copy()
    cell[:, 0] += rate * dt * start.cell[:, 1]
    lab += 0.5 * dt * engine.kernel.evaluate(x, start.species, cell).forces
    hops = (end.positions - x) @ np.linalg.inv(cell)
    np.testing.assert_allclose(hops, np.rint(hops), atol=1e-12)
    unwrapped = end.positions - np.rint(hops) @ cell
    flow = end.velocities.copy()
    flow[:, 0] += rate * unwrapped[:, 1]
    np.testing.assert_allclose(flow, lab, atol=1e-11)


def test_the_list_outlasts_the_flip(liquid, start):
    """Forces along a run through several flips of the cell are those of a list made anew each step: no pair is ever missed."""
    engine = ShearedEngine(liquid, 0.002, 4.0)
    state, tilts = start, []
    for _ in range(5):
        state, trace = engine.record(state, 40, 1)
        tilts.append(state.cell[1, 0] / state.cell[0, 0])
        found = engine.kernel.evaluate(state.positions, state.species, state.cell)
        assert trace.pairs[0] == found.pairs
        assert trace.potential_energy[0] == pytest.approx(found.energy, rel=1e-12)
        assert trace.virial[0, 3] == pytest.approx(found.virial[0, 1], abs=1e-9)
    assert max(tilts) > 0.2
    assert min(tilts) < -0.2
    assert np.abs(state.velocities.sum(axis=0)).max() < 1e-10


def test_liquid_resists_the_flow(liquid, start):
    """Work is done on a sheared liquid, and the stress is that work: sigma V rate t."""
    _, trace = ShearedEngine(liquid, 0.004, 1.0).record(start, 1, 2000)
    stress = -(trace.virial[:, 3] + trace.kinetic[:, 3]) / liquid.box**3
    assert stress[500:].mean() > 1.0
    done = trace.work[-1] - trace.work[0]
    by_trapezoid = float((0.5 * (stress[1:] + stress[:-1])).sum()) * 0.004 * 1.0 * liquid.box**3
    assert done == pytest.approx(by_trapezoid, rel=5e-4)  # the two sum up to order dt^2


def test_a_run_goes_on_from_its_checkpoint_with_the_same_bits(node):
    system = LennardJonesMixture(temperature=1.0, atoms=216, cutoff=2.0)
    method = ShearedDynamics(
        shear_rate=0.3, melting=0.5, settling=1.0, duration=1.0, segment=1.0, frame_every=0.2, time_step=0.002
    )
    (settle, produce), _ = method.plan(system, 7, 0)
    whole = node()
    settled = stages.settle(settle, {}, whole)
    resumed = stages.settle(settle, {}, node(whole.kept[2]))
    for name, array in settled.arrays.items():
        np.testing.assert_array_equal(array, resumed.arrays[name], err_msg=name)
    output = stages.produce(produce, {"state": settled}, whole)
    assert output.arrays["frames"].shape == (5, 216, 3)
    assert output.document["strain"] == pytest.approx(0.3)
    with pytest.raises(TaskError, match="expected an input `state`"):
        stages.produce(produce, {}, whole)


def test_a_run_that_explodes_is_stopped_with_the_atom(liquid, start):
    x = start.positions.copy()
    x[17] = x[64] + 0.01
    with pytest.raises(TaskError, match=r"atom \d+ flies further .* Lower `time_step` \(now 0.005\)"):
        ShearedEngine(liquid).step(replace(start, positions=x))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fractions": (0.8, 0.3)}, "shares above 0 that add up to 1"),
        ({"fractions": (1.0,)}, r"1 row\(s\) of 1 numbers"),
        ({"sigma": ((1.0, 0.8), (0.7, 0.88))}, "the same for a with b"),
        ({"epsilon": ((1.0, -1.5), (-1.5, 0.5))}, "numbers above 0"),
        ({"mixing": "geometric"}, r"1 row\(s\) of 2 numbers, for 2 species with mixing `geometric`"),
        ({"atoms": 64}, "take at least 150 atoms"),
        ({"treatment": "switched", "switch": 2.5}, "less than the cutoff"),
    ],
)
def test_a_system_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ValidationError, match=said):
        LennardJonesMixture.model_validate({"temperature": 1.0} | changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"thermostat": "none", "shear_rate": 0.1}, "where there is shear, which heats"),
        ({"segment": 50.01}, "a whole multiple of frame_every"),
        ({"melting_temperature": 500.0}, "at most 400 with this time_step"),
        ({"shear_rate": -1.0}, "greater than or equal to 0"),
    ],
)
def test_a_method_that_cannot_be_is_refused(changes, said):
    with pytest.raises(ValidationError, match=said):
        ShearedDynamics.model_validate(changes)


def test_plan_lasts_until_the_strain():
    system = LennardJonesMixture(temperature=1.0)
    slow = ShearedDynamics(shear_rate=0.001, strain=0.5, settling_strain=0.25, duration=100.0, segment=100.0)
    tasks, measured = slow.plan(system, 1, 0)
    assert len(measured) == 5
    assert tasks[0].parameters["time"] == pytest.approx(250.0)
    assert len(slow.extended(2.0).plan(system, 1, 0)[1]) == 10
    assert system.counts == (400, 100)
    assert LennardJonesMixture(temperature=1.0, atoms=501).counts == (401, 100)
    assert isinstance(tasks[0], Task)
    assert tasks[0].key != Key.from_seed(1)
