"""Starts that cannot go well: noticed within a hundred steps, the last sound state kept, and what to do said; or mended."""

import math
from dataclasses import replace

import pytest
import torch

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.engines.particles.engine import ExplodedError, LiquidEngine
from manybody.engines.particles.extended import ExtendedEngine
from manybody.engines.particles.relaxation import relax
from manybody.engines.particles.spec import LennardJonesLiquid
from manybody.engines.particles.volume_moves import VolumeMoveEngine

SYSTEM = LennardJonesLiquid(temperature=0.9, density=0.7, atoms=256, cutoff=2.5)
ENGINE = LiquidEngine(SYSTEM)
KEY = Key.from_seed(3)


def overlapping(state, apart=0.05):
    positions = state.positions.clone()
    positions[17] = positions[64] + apart / math.sqrt(3)
    return replace(state, positions=positions)


def exploding(state):
    velocities = state.velocities.clone()
    velocities[30] = 1e3
    return replace(state, velocities=velocities)


def without_number(state):
    velocities = state.velocities.clone()
    velocities[5, 1] = torch.nan
    return replace(state, velocities=velocities)


def pushed(state):
    engine = ExtendedEngine(SYSTEM, 0.5)
    return engine.step(engine.adopt(state), 20)


RUNS = {
    "recorded": lambda state: ENGINE.record(state, 20, 5),
    "unrecorded": lambda state: ENGINE.step(state, 100),
    "langevin": lambda state: LiquidEngine(SYSTEM, thermostat="langevin").step(state, 100),
    "volume moves": lambda state: VolumeMoveEngine(SYSTEM, 0.5).step(state, 4),
    "piston": pushed,
}


@pytest.mark.parametrize("spoil", [overlapping, exploding, without_number], ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("run", RUNS)
def test_found_within_a_hundred_steps_with_the_state_kept(spoil, run):
    start = spoil(ENGINE.init(KEY))
    atom = {overlapping: "(17|64)", exploding: r"\d+", without_number: r"\d+"}[spoil]
    said = rf"Step \d\d?: atom {atom} .* has exploded. Lower `time_step` \(now 0.004\), or start without overlapping"
    with pytest.raises(ExplodedError, match=said) as caught:
        RUNS[run](start)
    assert caught.value.state is not None
    assert torch.equal(caught.value.state.positions, start.positions)


def test_a_late_explosion_leaves_the_state_before_it():
    hasty = LiquidEngine(SYSTEM, time_step=0.06)
    start = ENGINE.step(ENGINE.init(KEY), 200)
    with pytest.raises(ExplodedError) as caught:
        hasty.step(start, 4000)
    kept = caught.value.state
    assert kept is not None
    assert torch.isfinite(kept.positions).all()
    ENGINE.step(kept, 20)  # with a sound time step it goes on


def test_cutoff_beyond_half_the_box_is_refused_at_once():
    state = ENGINE.init(KEY)
    small = replace(state, positions=state.positions * 0.6, box=state.box * 0.6)
    with pytest.raises(
        ExplodedError, match=r"Step 0: the cutoff, 2.5, is beyond half the shortest edge of the box, 4.291. Lower the"
    ):
        ENGINE.step(small, 1)
    with pytest.raises(ExplodedError, match="is beyond half"):
        relax(ENGINE, small)


@pytest.mark.parametrize("minimiser", ["fire", "l-bfgs"])
def test_overlapping_atoms_are_parted_and_the_run_goes_on(minimiser):
    start = overlapping(ENGINE.init(KEY))
    calm = relax(ENGINE, start, 50.0, minimiser)
    forces = ENGINE.evaluate(calm.positions, calm.box)[0]
    assert float(forces.norm(dim=1).max()) <= 50.0
    assert torch.equal(calm.velocities, start.velocities)
    end = LiquidEngine(SYSTEM, 0.004, "bussi").step(calm, 300)
    assert torch.isfinite(end.positions).all()


def test_random_places_become_a_start():
    """Where atoms are thrown in at random, some pairs all but coincide: forces fall from above 1e10 to what collisions reach."""
    state = ENGINE.init(KEY)
    thrown = torch.from_numpy(KEY.generator().uniform(0, 1, (256, 3))) * state.box
    start = replace(state, positions=thrown)
    assert float(ENGINE.evaluate(thrown, state.box)[0].abs().max()) > 1e10
    LiquidEngine(SYSTEM, 0.004, "bussi").step(relax(ENGINE, start, 100.0), 300)


def test_what_cannot_be_relaxed_is_said():
    state = ENGINE.init(KEY)
    same = state.positions.clone()
    same[12] = same[200] + state.box * torch.tensor([1.0, 0, 0])
    with pytest.raises(TaskError, match=r"Step 0: atoms 12 and 200 are at the same place. Move one of them."):
        relax(ENGINE, replace(state, positions=same))
    lost = state.positions.clone()
    lost[40, 2] = torch.inf
    with pytest.raises(TaskError, match=r"atom 40 has no finite position. Give it one."):
        relax(ENGINE, replace(state, positions=lost))
    with pytest.raises(
        TaskError, match=r"fire left a force of .* on atom \d+ after 3 steps; 1e-05 was asked for. Allow more steps"
    ):
        relax(ENGINE, overlapping(state), 1e-5, most_steps=3)
