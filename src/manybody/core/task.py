"""Tasks: the pure pieces of a study, and what they give back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from manybody.core.digest import digest_document
from manybody.core.random import Key
from manybody.core.spec import Frozen, Spec


class Needs(Frozen):
    """What a node must have for a task: `cores` to lend it at once, `gpus`, and `memory_bytes` for it alone.

    `data` names those that the node itself holds and that no task's result contains (`store.held`).
    """

    cores: int = Field(1, ge=1)
    gpus: int = Field(0, ge=0)
    memory_bytes: int = Field(0, ge=0)
    data: tuple[str, ...] = ()


class Task(Spec):
    """One pure piece of a study: (method, stage, version, parameters, input digests, seed) -> outputs.

    Its digest is its identity. `inputs` names the tasks whose results this one reads, by digest. `replica` asks
    for an independent computation of the same thing: it is part of the identity but not of the randomness, so
    an honest replica gives the same bits. `cost`, a prediction in core-seconds, and `needs` are no part of the identity.
    """

    method: str
    stage: str
    version: str
    system: dict[str, Any]
    parameters: dict[str, Any]
    inputs: dict[str, str] = {}
    seed: int = 0
    repeat: int = 0
    replica: int = 0
    cost: float = Field(1.0, ge=0)
    needs: Needs = Needs()

    def document(self) -> dict[str, Any]:
        """What is digested: everything but the cost and the needs."""
        return self.model_dump(mode="json", exclude={"cost", "needs"})

    @property
    def label(self) -> str:
        """A short name for people: method, stage, and the first digits of the digest."""
        return f"{self.method}/{self.stage} {self.digest[:8]}"

    @property
    def key(self) -> Key:
        """The random key: the same for every replica of the task, on any node, in any order."""
        document = self.document()
        del document["replica"]
        return Key.from_seed(self.seed, digest_document(document))

    def replicated(self, replica: int) -> Task:
        """The same computation, to be done once more by somebody else."""
        return self.model_copy(update={"replica": replica})


@dataclass(frozen=True)
class Output:
    """What a task gives back: named arrays and a JSON document of scalars. Both are part of its digest."""

    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """How far a task is, in the user's terms.

    `simulated` is what the task has advanced so far in its own unit (`unit`, such as ``tau``); `conserved` is the
    current error of its most telling conserved quantity, to be read against `tolerance`.
    """

    fraction: float
    simulated: float = 0.0
    unit: str = ""
    conserved: float | None = None
    tolerance: float | None = None
