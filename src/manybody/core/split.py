"""What a method or a backend may offer besides, for problems whose parts depend on each other. Others need none of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from manybody.core.task import Task


@runtime_checkable
class ReadsParts(Protocol):
    """A method whose tasks read only parts of some of their inputs, so that no more has to be moved."""

    def reads(self, task: Task, name: str) -> Mapping[str, slice] | None:
        """The arrays that `task` reads of its input `name`, and which rows of each; None: all there is.

        A stage is given either the whole input or exactly this, and gives the same in both cases: counted from the end
        that a slice keeps. It is no part of a task's identity.
        """


@runtime_checkable
class RunsGangs(Protocol):
    """A backend that can run the stages in a method's `gangs`."""

    def most_members(self) -> int:
        """How many members a gang can have at the same time, a core each."""
