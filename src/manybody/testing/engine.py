"""The contract of an engine. Any engine's test runs it in one line: ``check_engine(engine)``.

What every engine promises, whatever it simulates: the same state gives the same future; two steps are one step twice;
what it declares conserved is conserved; its declared symmetries leave observables alone; a state handed over is not
changed; and, where it is reversible, motion reversed retraces itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Generic

import numpy as np
import torch

from manybody.core.protocols import Engine, State
from manybody.core.random import Key


@dataclass(frozen=True)
class EngineContract(Generic[State]):
    """The contract for one engine; each method raises `AssertionError` with what was promised and what came.

    conserved: by how much each quantity that the engine declares conserved may change within `steps`. roundoff: relative
    tolerance where only the order of additions may differ. reverse: the state with its motion reversed, for engines that
    are time-reversible; then `reversible_steps` there and back must return within `reversibility`, absolute.
    """

    engine: Engine[State]
    conserved: float
    steps: int = 50
    roundoff: float = 1e-9
    reverse: Callable[[State], State] | None = None
    reversible_steps: int = 50
    reversibility: float = 1e-8
    key: Key = field(default_factory=lambda: Key.from_seed(20))

    def start(self) -> State:
        """A state somewhat away from the start."""
        return self.engine.step(self.engine.init(self.key), self.steps)

    def repeats(self) -> None:
        """The same key and the same state give the same bits."""
        first, second = self.start(), self.start()
        assert _same_bits(first, second), "the same key gave two different states; derive all randomness from the key"

    def composes(self) -> None:
        """Two steps are one step twice, to round-off."""
        state = self.start()
        once, twice = self.engine.step(state, 2), self.engine.step(self.engine.step(state, 1), 1)
        _close("observables of two steps and of one step twice", self._look(once), self._look(twice), self.roundoff)

    def conserves(self) -> None:
        """What is declared conserved stays within tolerance."""
        state = self.start()
        before, after = self.engine.conserved(state), self.engine.conserved(self.engine.step(state, self.steps))
        for name, value in before.items():
            change = abs(after[name] - value)
            assert change <= self.conserved, f"{name} changed by {change:.3g} in {self.steps} steps; promised {self.conserved:g}"

    def is_symmetric(self) -> None:
        """The observables of a state's images under each symmetry are its own."""
        state = self.start()
        expected = self._look(state)
        for name, image in self.engine.symmetric(state, self.key.derive("symmetry")):
            _close(f"observables under {name}", self._look(image), expected, self.roundoff)

    def leaves_state_alone(self) -> None:
        """Nothing that an engine does changes the state handed to it."""
        state = self.start()
        before = _bits(state)
        self.engine.step(state, 2)
        self.engine.observables(state)
        self.engine.conserved(state)
        list(self.engine.symmetric(state, self.key.derive("symmetry")))
        assert _bits(state) == before, "a state handed to the engine was changed in place; copy it first"

    def reverses(self) -> None:
        """Forth, motion reversed, forth again: back where it began."""
        if self.reverse is None:
            return
        state = self.start()
        there = self.engine.step(state, self.reversible_steps)
        back = self.reverse(self.engine.step(self.reverse(there), self.reversible_steps))
        _close("observables after there and back", self._look(back), self._look(state), self.reversibility)

    def _look(self, state: State) -> dict[str, float]:
        return self.engine.observables(state)


def check_engine(
    engine: Engine[State], conserved: float, reverse: Callable[[State], State] | None = None, steps: int = 50
) -> None:
    """Hold an engine to its whole contract (`EngineContract`)."""
    contract = EngineContract(engine, conserved, steps, reverse=reverse)
    contract.repeats()
    contract.composes()
    contract.conserves()
    contract.is_symmetric()
    contract.leaves_state_alone()
    contract.reverses()


def _close(what: str, came: dict[str, float], expected: dict[str, float], tolerance: float) -> None:
    assert came.keys() == expected.keys(), f"{what}: expected {sorted(expected)}; got {sorted(came)}"
    for name, value in expected.items():
        good = math.isclose(came[name], value, rel_tol=tolerance, abs_tol=tolerance)
        assert good, f"{what}: {name} is {came[name]!r}, expected {value!r} within {tolerance:g}"


def _bits(value: Any) -> Any:
    """Something that is equal only for equal bits: of tensors, arrays, numbers and dataclasses of them."""
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().cpu().contiguous().numpy().tobytes()
    if is_dataclass(value):
        return tuple(_bits(getattr(value, item.name)) for item in fields(value))
    return value


def _same_bits(first: Any, second: Any) -> bool:
    return bool(_bits(first) == _bits(second))
