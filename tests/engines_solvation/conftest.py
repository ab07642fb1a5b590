"""A node in this process, and a small liquid that the tests share."""

from __future__ import annotations

import pytest

from manybody.core.random import Key
from manybody.core.task import Output, Progress
from manybody.engines.solvation.engine import SolvationEngine
from manybody.engines.solvation.spec import LennardJonesSolvation
from manybody.engines.solvation.state import SolvationState

FLUID = LennardJonesSolvation(temperature=2.0, density=0.4, atoms=64, cutoff=2.5, solute_sigma=1.2, solute_epsilon=0.8)


class LastingNode:
    """What a node lends a task (`core.protocols.Context`), with checkpoints."""

    device = "cpu"
    threads = 1

    def __init__(self, left: Output | None = None) -> None:
        self.left, self.kept, self.told = left, [], []

    def progress(self, progress: Progress) -> None:
        self.told.append(progress)

    def resume(self) -> Output | None:
        return self.left

    def keep(self, output: Output) -> None:
        self.kept.append(output)


@pytest.fixture
def lasting() -> type[LastingNode]:
    return LastingNode


@pytest.fixture(scope="session")
def fluid() -> LennardJonesSolvation:
    return FLUID


@pytest.fixture(scope="session")
def start() -> SolvationState:
    """64 particles and a larger solute at T = 2, fully coupled, with fresh accounts."""
    engine = SolvationEngine(FLUID, 1.0)
    melted = engine.step(SolvationEngine(FLUID, 1.0, time_step=5e-4).step(engine.init(Key.from_seed(3)), 200), 600)
    return engine.renewed(SolvationState(melted.positions, melted.velocities, melted.key))
