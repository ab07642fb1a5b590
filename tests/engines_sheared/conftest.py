"""A node in this process, and an equilibrated liquid that the tests share."""

from __future__ import annotations

import pytest

from manybody.core.random import Key
from manybody.core.task import Output, Progress
from manybody.engines.sheared.engine import ShearedEngine
from manybody.engines.sheared.spec import LennardJonesMixture
from manybody.engines.sheared.state import MixtureState

LIQUID = LennardJonesMixture(temperature=1.0, atoms=300, cutoff=2.5)


class Node:
    """What a node lends a task (`core.protocols.Context`)."""

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
def node() -> type[Node]:
    return Node


@pytest.fixture(scope="session")
def liquid() -> LennardJonesMixture:
    return LIQUID


@pytest.fixture(scope="session")
def start() -> MixtureState:
    """A Kob-Andersen liquid of 300 atoms at T = 1, with fresh accounts."""
    hot = ShearedEngine(LIQUID, 5e-4, temperature=3.0)
    engine = ShearedEngine(LIQUID)
    melted = ShearedEngine(LIQUID, 0.004, temperature=3.0).step(hot.step(hot.init(Key.from_seed(3)), 200), 1000)
    return engine.tempered(engine.step(engine.tempered(melted), 1000))
