"""Systems advanced together go the way that each goes alone."""

import numpy as np
import pytest
import torch

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.engines.particles.engine import LiquidEngine
from manybody.engines.particles.ensemble import LiquidEnsemble
from manybody.engines.particles.spec import LennardJonesLiquid

SYSTEM = LennardJonesLiquid(temperature=1.0, density=0.8, atoms=64, cutoff=2.1)


@pytest.mark.parametrize("thermostat", ["none", "bussi", "langevin"])
def test_systems_side_by_side_go_the_way_that_each_goes_alone(thermostat):
    """The same noise, and forces but for round-off: 1e-15 of forces up to a hundred, grown by less than e^5 in 0.6 time units."""
    engine = LiquidEngine(SYSTEM, 0.004, thermostat)
    ensemble = LiquidEnsemble(engine, threads=2)
    started = ensemble.init(Key.from_seed(seed) for seed in range(11))
    together = ensemble.record(ensemble.step(started, 110), 10, 4)
    for start, (state, trace) in zip(started, together, strict=True):
        alone, expected = engine.record(engine.step(start, 110), 10, 4)
        apart = state.positions - alone.positions
        assert float((apart - state.box * torch.round(apart / state.box)).abs().max()) < 1e-11
        np.testing.assert_allclose(state.velocities, alone.velocities, rtol=0, atol=1e-10)
        for part in vars(trace):
            np.testing.assert_allclose(getattr(trace, part), getattr(expected, part), rtol=1e-6, atol=1e-8)
        assert (state.step, state.key) == (alone.step, alone.key)
        assert bool(((state.positions >= 0) & (state.positions <= state.box)).all())


@pytest.mark.parametrize("thermostat", ["none", "langevin"])
def test_the_bits_of_a_system_depend_on_no_other_and_not_on_threads(thermostat):
    engine = LiquidEngine(SYSTEM, 0.004, thermostat)
    started = LiquidEnsemble(engine).init(Key.from_seed(seed) for seed in range(11))
    many = LiquidEnsemble(engine, threads=2).record(started, 10, 4)
    for number in (0, 5, 10):
        ((alone, trace),) = LiquidEnsemble(engine).record(started[number : number + 1], 10, 4)
        assert many[number][0].positions.equal(alone.positions)
        assert many[number][0].velocities.equal(alone.velocities)
        np.testing.assert_array_equal(many[number][1].potential_energy, trace.potential_energy)


def test_a_stretch_too_long_for_one_call_is_the_same_stretch(monkeypatch):
    engine = LiquidEngine(SYSTEM, 0.004, "bussi")
    started = LiquidEnsemble(engine).init(Key.from_seed(seed) for seed in range(2))
    whole = LiquidEnsemble(engine).record(started, 30, 2)
    monkeypatch.setattr("manybody.engines.particles.ensemble.CALL_SECONDS", 1e-3)  # some 48 steps
    pieces = LiquidEnsemble(engine).record(started, 30, 2)
    monkeypatch.setattr("manybody.engines.particles.ensemble.CALL_SECONDS", 1.5e-4)  # 7 steps
    bits = LiquidEnsemble(engine).record(started, 30, 2)
    for (state, trace), *others in zip(whole, pieces, bits, strict=True):
        for again, told in others:
            np.testing.assert_allclose(again.positions, state.positions, rtol=0, atol=1e-11)
            np.testing.assert_allclose(told.heat, trace.heat, rtol=0, atol=1e-10)
            assert again.step == state.step == 60


def test_one_that_explodes_is_named_by_its_error():
    hasty = LiquidEnsemble(LiquidEngine(SYSTEM, 0.2), threads=2)
    with pytest.raises(TaskError, match="exploded"):
        hasty.step(hasty.init([Key.from_seed(1), Key.from_seed(2)]), 200)
