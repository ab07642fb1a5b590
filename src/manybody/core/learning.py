"""Learning from data that several parties hold: what a problem says of itself, and what a learner must offer.

A problem (a system) knows who holds what; a learner knows the model and its loss; a method (federated or not) says how
they are brought together. The three meet by name: a problem names its learner, a method gets the problem from the study.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from pydantic import Field

from manybody.core.protocols import SystemSpec
from manybody.core.random import Key
from manybody.core.spec import Spec
from manybody.core.task import Output, Task

Tensors = Mapping[str, np.ndarray]


class Party(Spec):
    """One who holds data and trains on it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$", description="short name, lower case with hyphens")
    held: str = Field("", description="name of its data in its own node's folder; empty: a task of the study makes them")
    capacity: float | None = Field(None, gt=0, description="rate of its node, where it is known")
    multiplier: float = Field(1.0, description="what it multiplies its updates by: 1 where it is honest")


@dataclass(frozen=True)
class Sources:
    """Where data come from: the tasks in order, whose result each party's data are, and what everybody may see."""

    tasks: tuple[Task, ...]
    data: Mapping[str, Task]
    public: Task


class LearningProblem(SystemSpec, ABC):
    """Something to learn from data that several parties hold: what is learned, and who holds what.

    `learner` is ``module:function`` of (document of `learned`, device) -> `Learner`, imported only where a task runs.
    """

    learner: ClassVar[str]

    @property
    @abstractmethod
    def parties(self) -> tuple[Party, ...]:
        """Who holds data, in the order of the study."""

    @property
    @abstractmethod
    def learned(self) -> dict[str, Any]:
        """The document of what is learned: all that a learner needs to know, and nothing of who holds what."""

    @property
    @abstractmethod
    def samples(self) -> int:
        """About how many samples a party has, for expected costs."""

    @abstractmethod
    def sources(self, seed: int, repeat: int) -> Sources:
        """The tasks that make the data, but for those that parties hold."""


class Training(Spec):
    """How a party trains in a round: full-batch gradient steps on its own loss.

    `pull` adds (pull / 2) |theta - theta_0|^2 to the loss, theta_0 being what the round started with. With `clip` the
    gradient of every sample is clipped to that norm before their mean is taken, and steps follow the mean itself: a sample
    more or less then moves a step by at most learning_rate clip / samples.
    """

    steps: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    pull: float = Field(0.0, ge=0)
    clip: float | None = Field(None, gt=0)


@dataclass(frozen=True)
class Trained:
    """What a party has after a round: parameters, and facts. `variance` is that of its error on data not trained on."""

    parameters: Tensors
    samples: int
    loss: float
    variance: float


class Learner(Protocol):
    """A model and its loss. Pure: the same arguments give the same bits."""

    def read(self, path: Path) -> Output:
        """Data that a node holds, as `prepare` takes them. Raises `TaskError` where the file is no such thing."""

    def prepare(self, raw: Output) -> Output:
        """Data ready to train on."""

    def start(self, public: Output, key: Key) -> tuple[Tensors, Tensors]:
        """The parameters that all start with, and what else all agree on, from public data."""

    def train(self, parameters: Tensors, agreed: Tensors, data: Output, training: Training) -> Trained:
        """A round of training on a party's prepared data."""

    def examine(self, rounds: Sequence[Tensors], agreed: Tensors, public: Output) -> Output:
        """What is measured of the parameters after each round, on public data."""

    def pooled(self, start: Tensors, agreed: Tensors, data: Mapping[str, Output]) -> Output | None:
        """What training on all data in one place would end with, in closed form; None where there is none.

        Arrays: for each party, its loss 1/2 theta H theta - b theta + s/2 as ``hessian/PARTY`` [values, values],
        ``linear/PARTY`` [values] and ``square/PARTY`` [], theta being all tensors by name, flattened.
        """
