"""A node in this process, and an equilibrated liquid that the tests share."""

from __future__ import annotations

import pytest

from manybody.core.random import Key
from manybody.engines.sheared.engine import ShearedEngine
from manybody.engines.sheared.spec import LennardJonesMixture
from manybody.engines.sheared.state import MixtureState
from manybody.testing.node import LocalNode

LIQUID = LennardJonesMixture(temperature=1.0, atoms=300, cutoff=2.5)


@pytest.fixture
def node() -> type[LocalNode]:
    return LocalNode


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
