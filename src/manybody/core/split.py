"""What a method or a backend may offer besides, for problems whose parts depend on each other. Others need none of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from manybody.core.certificate import Finding
from manybody.core.study import Realisation
from manybody.core.task import Output, Task


@runtime_checkable
class ReadsParts(Protocol):
    """A method whose tasks read only parts of some of their inputs, so that no more has to be moved."""

    def reads(self, task: Task, name: str) -> Mapping[str, slice] | None:
        """The arrays that `task` reads of its input `name`, and which rows of each; None: all there is.

        A stage is given either the whole input or exactly this, and gives the same in both cases: counted from the end
        that a slice keeps. It is no part of a task's identity.
        """


@runtime_checkable
class States(Protocol):
    """A method that has something to state in every certificate, whichever checks a study asks for."""

    def states(self, run: Realisation, outputs: Sequence[Output]) -> list[Finding]:
        """The findings about one realisation, from the outputs of its measured tasks."""


class Embedding(Protocol):
    """Makes arrays smaller for the way, with a bound on the error of every value. Found by name in the catalog."""

    def encode(self, array: np.ndarray, bound: float) -> tuple[bytes, float]:
        """The message for an array of floats, and the largest error in it, measured by decoding; at most `bound`.

        The same bytes anywhere. Raises `TaskError` where this installation cannot make them.
        """

    def decode(self, message: bytes) -> np.ndarray:
        """The array of a message; raises `InputError` for anything else."""


@runtime_checkable
class RunsGangs(Protocol):
    """A backend that can run the stages in a method's `gangs`."""

    def most_members(self) -> int:
        """How many members a gang can have at the same time, a core each."""
