"""A node in this process, and a small liquid that the tests share."""

from __future__ import annotations

import pytest

from manybody.core.random import Key
from manybody.engines.solvation.engine import SolvationEngine
from manybody.engines.solvation.spec import LennardJonesSolvation
from manybody.engines.solvation.state import SolvationState
from manybody.testing.node import LocalNode

FLUID = LennardJonesSolvation(temperature=2.0, density=0.4, atoms=64, cutoff=2.5, solute_sigma=1.2, solute_epsilon=0.8)


@pytest.fixture
def lasting() -> type[LocalNode]:
    return LocalNode


@pytest.fixture(scope="session")
def fluid() -> LennardJonesSolvation:
    return FLUID


@pytest.fixture(scope="session")
def start() -> SolvationState:
    """64 particles and a larger solute at T = 2, fully coupled, with fresh accounts."""
    engine = SolvationEngine(FLUID, 1.0)
    melted = engine.step(SolvationEngine(FLUID, 1.0, time_step=5e-4).step(engine.init(Key.from_seed(3)), 200), 600)
    return engine.renewed(SolvationState(melted.positions, melted.velocities, melted.key))
