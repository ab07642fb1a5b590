"""The liquid engine: its contract, its bits, its stages and its complaints."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.core.task import Output
from manybody.engines.particles import stages
from manybody.engines.particles.engine import LiquidEngine
from manybody.engines.particles.spec import LennardJonesLiquid, MolecularDynamics
from manybody.store.encoding import decode, encode
from manybody.testing.engine import check_engine
from manybody.testing.node import LocalNode

SYSTEM = LennardJonesLiquid(temperature=0.9, density=0.7, atoms=125, cutoff=2.5)
KEY = Key.from_seed(3)


def reversed_motion(state):
    return replace(state, velocities=-state.velocities)


@pytest.mark.parametrize("thermostat", ["none", "bussi", "langevin"])
def test_contract(thermostat):
    # Verlet's energy error at this step is below 1e-3 kT a degree of freedom, from the hot lattice on too.
    reverse = reversed_motion if thermostat == "none" else None
    check_engine(LiquidEngine(SYSTEM, 0.004, thermostat), conserved=1e-3, reverse=reverse)


@pytest.mark.parametrize("thermostat", ["none", "bussi", "langevin"])
def test_plain_torch_follows_the_kernel(thermostat):
    """Trajectories part at the rate of the liquid's chaos, e^(2 to 3 a tau): after 0.1 tau round-off has not grown."""
    fast, plain = LiquidEngine(SYSTEM, 0.004, thermostat), LiquidEngine(SYSTEM, 0.004, thermostat, device="cpu:0")
    start = fast.step(fast.init(KEY), 100)
    (first, trace), (second, expected) = fast.record(start, 5, 5), plain.record(start, 5, 5)
    apart = first.positions - second.positions
    apart -= start.box * torch.round(apart / start.box)
    assert float(apart.abs().max()) < 1e-11
    for name in ("potential_energy", "virial", "pairs", "kinetic_energy", "heat"):
        np.testing.assert_allclose(getattr(trace, name), getattr(expected, name), rtol=1e-10, atol=1e-10)


def test_recording_does_not_change_the_path():
    engine = LiquidEngine(SYSTEM, 0.004, "bussi")
    start = engine.init(KEY)
    one, two = engine.record(start, 10, 6)[0], engine.record(start, 60, 1)[0]
    assert torch.equal(one.positions, two.positions)
    assert one.heat == two.heat


def test_momentum_is_zero_and_stays():
    engine = LiquidEngine(SYSTEM, 0.004, "bussi")
    _, trace = engine.record(engine.init(KEY), 20, 20)
    assert np.abs(trace.momentum).max() < 1e-11


def test_lattice_with_vacancies_holds_any_number_of_atoms():
    system = LennardJonesLiquid(temperature=1.0, density=0.5, atoms=333, cutoff=2.5)
    state = LiquidEngine(system).init(KEY)
    assert state.positions.shape == (333, 3)
    apart = state.positions[:, None] - state.positions
    apart -= state.box * torch.round(apart / state.box)
    distance = apart.norm(dim=-1) + 10 * torch.eye(333)
    assert float(distance.min()) > 0.9


def test_overlapping_atoms_are_named():
    engine = LiquidEngine(SYSTEM)
    state = engine.init(KEY)
    positions = state.positions.clone()
    positions[17] = positions[64] + 1e-3
    with pytest.raises(TaskError, match=r"Step [01]: atom (17|64) .* Lower `time_step` \(now 0\.004\)"):
        engine.step(replace(state, positions=positions), 50)


def test_no_number_is_noticed_within_a_step():
    engine = LiquidEngine(SYSTEM)
    state = engine.init(KEY)
    velocities = state.velocities.clone()
    velocities[5, 1] = torch.nan
    with pytest.raises(TaskError, match=r"Step 0: atom 5 "):
        engine.step(replace(state, velocities=velocities), 50)


def test_too_large_a_step_is_stopped():
    engine = LiquidEngine(SYSTEM, time_step=0.1)
    with pytest.raises(TaskError, match="exploded"):
        engine.step(engine.init(KEY), 400)


@pytest.fixture(scope="module")
def chain():
    """A realisation's tasks and their outputs."""
    method = MolecularDynamics(equilibration=4, duration=8, segment=4, sample_every=0.08, frame_every=0.8)
    tasks, _ = method.plan(SYSTEM, seed=1, repeat=0)
    done: dict[str, Output] = {}
    node = LocalNode()
    for task in tasks:
        stage = stages.equilibrate if task.stage == "equilibrate" else stages.produce
        done[task.digest] = stage(task, {name: done[digest] for name, digest in task.inputs.items()}, node)
    return method, tasks, done, node


def test_outputs_have_their_shapes(chain):
    _, tasks, done, node = chain
    output = done[tasks[-1].digest]
    assert output.document["steps"] == 1000
    assert output.document["degrees_of_freedom"] == 372
    for name in ("time", "potential_energy", "pairs", "virial", "kinetic_energy", "effective_energy", "momentum"):
        assert output.arrays[name].shape == (50,)
        assert output.arrays[name].dtype == np.float64
    assert output.arrays["time"][[0, -1]] == pytest.approx([0.08, 4.0])
    assert output.arrays["frames"].shape == (5, 125, 3)
    assert output.arrays["frames"].dtype == np.float32
    assert output.arrays["frame_time"] == pytest.approx([0.8, 1.6, 2.4, 3.2, 4.0])
    assert output.arrays["positions"].shape == output.arrays["velocities"].shape == (125, 3)
    assert node.told[-1].fraction == 1.0
    assert node.told[-1].simulated == pytest.approx(4.0)
    assert node.told[-1].tolerance == pytest.approx(1e-4)


def test_a_task_repeats_bit_for_bit_and_a_replica_too(chain):
    _, tasks, done, _ = chain
    last = tasks[-1]
    inputs = {name: done[digest] for name, digest in last.inputs.items()}
    for again in (last, last.replicated(1)):
        output = stages.produce(again, inputs, LocalNode(threads=2))
        for name, values in done[last.digest].arrays.items():
            np.testing.assert_array_equal(output.arrays[name], values)
        assert output.document == done[last.digest].document


@pytest.mark.parametrize("thermostat", ["bussi", "langevin", "none"])
def test_a_task_that_goes_on_from_any_of_its_checkpoints_ends_with_the_same_bits(thermostat):
    # A list reaches 0.35 sigma too far and lasts tens of steps: a frame every 50 falls into its life.
    method = MolecularDynamics(thermostat=thermostat, equilibration=2, duration=1, segment=1, sample_every=0.04, frame_every=0.2)
    done: dict[str, Output] = {}
    for task in method.plan(SYSTEM, seed=1, repeat=0)[0]:
        stage = stages.equilibrate if task.stage == "equilibrate" else stages.produce
        inputs = {name: done[digest] for name, digest in task.inputs.items()}
        node = LocalNode()
        done[task.digest] = stage(task, inputs, node)
        assert len(node.kept) == round(task.parameters["time"] / 0.2)
        for left in node.kept:
            assert encode(stage(task, inputs, LocalNode(left=decode(encode(left))))) == encode(done[task.digest])


def test_conserve_takes_the_twin(chain):
    _, tasks, done, _ = chain
    parameters = MolecularDynamics().leg(thermostat="none", time_step=0.002, time=0.4, sample_every=0.002, frame_every=0.4)
    task = tasks[-1].model_copy(
        update={"stage": "conserve", "parameters": parameters.document(), "inputs": {"state": tasks[-1].digest}}
    )
    output = stages.conserve(task, {"state": done[tasks[-1].digest]}, LocalNode())
    assert output.arrays["time"].shape == (200,)
    assert 0 < output.document["energy_fluctuation"] < 1e-4


def test_missing_or_damaged_input_is_refused(chain):
    _, tasks, done, _ = chain
    with pytest.raises(TaskError, match="expected an input `state`; got none"):
        stages.produce(tasks[-1], {}, LocalNode())
    before = done[tasks[-1].inputs["state"]]
    damaged = Output(dict(before.arrays) | {"positions": np.full((125, 3), np.nan)}, before.document)
    with pytest.raises(TaskError, match="finite `positions`"):
        stages.produce(tasks[-1], {"state": damaged}, LocalNode())
