"""Systems advanced together are the systems advanced one by one."""

import numpy as np
import pytest

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.engines.particles.engine import LiquidEngine
from manybody.engines.particles.ensemble import LiquidEnsemble
from manybody.engines.particles.spec import LennardJonesLiquid

SYSTEM = LennardJonesLiquid(temperature=1.0, density=0.8, atoms=64, cutoff=2.1)


@pytest.mark.parametrize("thermostat", ["none", "langevin"])
@pytest.mark.parametrize("threads", [1, 2])
def test_each_system_has_the_bits_that_it_has_alone(thermostat, threads):
    engine = LiquidEngine(SYSTEM, 0.004, thermostat)
    ensemble = LiquidEnsemble(engine, threads)
    keys = [Key.from_seed(seed) for seed in range(7)]
    together = ensemble.record(ensemble.step(ensemble.init(keys), 50), 10, 4)
    for key, (state, trace) in zip(keys, together, strict=True):
        alone, expected = engine.record(engine.step(engine.init(key), 50), 10, 4)
        assert state.positions.equal(alone.positions)
        assert state.velocities.equal(alone.velocities)
        np.testing.assert_array_equal(trace.potential_energy, expected.potential_energy)


def test_one_that_explodes_is_named_by_its_error():
    hasty = LiquidEnsemble(LiquidEngine(SYSTEM, 0.2), threads=2)
    with pytest.raises(TaskError, match="exploded"):
        hasty.step(hasty.init([Key.from_seed(1), Key.from_seed(2)]), 200)
