"""Errors that say what was expected, what came, where, and what to do."""

from __future__ import annotations

from dataclasses import dataclass


class ManybodyError(Exception):
    """Base of every error that the project raises on purpose."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input: where it stands, what was expected, what came, what to do."""

    where: str
    expected: str
    came: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}; got {self.came}. {self.remedy}"


class InputError(ManybodyError):
    """The user's input is wrong; nothing has run. Carries every problem found, not only the first."""

    exit_code = 2

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class TaskError(ManybodyError):
    """A task could not give a result for a reason of its own (a diverged run, a missing input)."""


class StoreError(ManybodyError):
    """The ledger or the object store could not do what was asked (full disk, newer schema)."""


class CorruptResultError(StoreError):
    """A stored result does not match its digest; it has been set aside and will be computed again."""
