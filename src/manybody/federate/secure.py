"""The method whose stages are a party's part of a secure aggregation. Torch-free, and free of Flower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, NoReturn

from pydantic import Field

from manybody.core.errors import InputError, Problem
from manybody.core.protocols import Conserved, MethodSpec, SystemSpec
from manybody.core.study import Realisation
from manybody.core.task import Task


class SecureAggregation(MethodSpec):
    """A party's stages: it trains with a stage of another method and gives away nothing but a masked vector.

    No study runs it by itself: its tasks are made by who aggregates (`federate.flower`), round by round.
    """

    summary: ClassVar[str] = "masked sums of what parties have trained"
    version: ClassVar[str] = "1"
    systems: ClassVar[tuple[str, ...]] = ()
    extent: ClassVar[str] = "rounds"
    stages: ClassVar[Mapping[str, str]] = {
        "announce": "manybody.federate.secure_stages:announce",
        "share": "manybody.federate.secure_stages:share",
        "mask": "manybody.federate.secure_stages:mask",
        "reveal": "manybody.federate.secure_stages:reveal",
        "flower": "manybody.federate.flower.node:answer",
    }

    name: Literal["secure-aggregation"] = "secure-aggregation"
    rounds: int = Field(1, ge=1, description="rounds of training, which who aggregates asks for one by one")

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> NoReturn:
        """Refuse: who aggregates makes the tasks."""
        remedy = "See docs/flower.md."
        raise InputError(Problem("method", "a method that studies run", f"`{self.name}`", remedy))

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """Nothing."""
        return ()

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """The same task: masking has no step to refine."""
        return realisation.tasks[-1]

    def repeatable(self, stage: str) -> bool:
        """No stage is: what a node answers depends on secrets of its own."""
        return False
