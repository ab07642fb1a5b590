"""What is measured of the shapes that a molecule takes, and of how replicas swap them. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from manybody.core.errors import InputError, Problem
from manybody.core.protocols import MeasureSpec, Samples
from manybody.core.spec import refuse
from manybody.core.study import Point
from manybody.core.task import Output
from manybody.engines.molecules.replicas import ReplicaExchange
from manybody.engines.molecules.spec import ForceFieldDynamics

Array = NDArray[np.float64]
Four = tuple[int, int, int, int]

ATOMS = "four bonded atoms, counted from 0"


def torsion_angles(frames: Array, atoms: Four) -> Array:
    """The angle between the planes of atoms a, b, c and b, c, d, of frames [frames, atoms, 3]; degrees, -180 .. 180, [frames].

    0 where a and d are on the same side, positive where d is turned clockwise looking from b to c (IUPAC, 1974).
    """
    a, b, c, d = (frames[:, atom].astype(np.float64) for atom in atoms)
    along = c - b
    left, right = np.cross(b - a, along), np.cross(along, d - c)
    sine = np.einsum("fd,fd->f", np.cross(left, right), along) / np.linalg.norm(along, axis=1)
    return np.asarray(np.degrees(np.arctan2(sine, np.einsum("fd,fd->f", left, right))))


class TorsionDistribution(MeasureSpec):
    """How often a torsion has which angle: a probability density, per degree, over -180 .. 180 degrees."""

    summary: ClassVar[str] = "probability density of a torsion of a molecule"
    symbol: ClassVar[str] = "p(phi)"
    unit: ClassVar[str] = "1/degree"
    methods: ClassVar[tuple[str, ...]] = ("force-field-dynamics", "replica-exchange")
    systems: ClassVar[tuple[str, ...]] = ("molecule", "molecular-box")

    name: Literal["torsion-distribution"] = "torsion-distribution"
    atoms: Four = Field(description=ATOMS)
    bins: int = Field(36, ge=4, le=720, description="intervals of the circle")

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One row of a histogram a stored configuration; `axis` holds the centres of the bins."""
        edges = np.linspace(-180.0, 180.0, self.bins + 1)
        index = np.clip(np.digitize(_angles(outputs, self.atoms), edges) - 1, 0, self.bins - 1)
        values = np.eye(self.bins)[index] * (self.bins / 360)
        return Samples(values, np.ones(len(values)), _frame_interval(point), 0.5 * (edges[1:] + edges[:-1]))


class TorsionPopulation(MeasureSpec):
    """The share of configurations whose torsion is between `begin` and `end`, degrees, going up from the one to the other."""

    summary: ClassVar[str] = "how often a torsion of a molecule is within a range of angles"
    symbol: ClassVar[str] = "P"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("force-field-dynamics", "replica-exchange")
    systems: ClassVar[tuple[str, ...]] = ("molecule", "molecular-box")

    name: Literal["torsion-population"] = "torsion-population"
    atoms: Four = Field(description=ATOMS)
    begin: float = Field(0.0, ge=-180, le=180, description="where the range begins, degrees")
    end: float = Field(120.0, ge=-180, le=180, description="where it ends; less than `begin` where it goes through 180 degrees")

    @model_validator(mode="after")
    def _a_range(self) -> TorsionPopulation:
        if self.begin == self.end:
            refuse("end", "another angle than `begin`", f"{self.end:g}", "Take 0 and 120 for the left-handed side.")
        return self

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """1 or 0 for each stored configuration."""
        beyond = (_angles(outputs, self.atoms) - self.begin) % 360
        values = (beyond < (self.end - self.begin) % 360).astype(np.float64)
        return Samples(values, np.ones(len(values)), _frame_interval(point))


class ExchangeAcceptance(MeasureSpec):
    """The probability that replica exchange accepts a swap, for each pair of neighbours on the ladder, the coldest first."""

    summary: ClassVar[str] = "how often replica exchange accepts a swap, along the ladder"
    symbol: ClassVar[str] = "P_swap"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("replica-exchange",)

    name: Literal["exchange-acceptance"] = "exchange-acceptance"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One row for every two rounds, in which each pair has a turn; `axis` is the lower rung. A single replica has a 0."""
        method = point.method
        assert isinstance(method, ReplicaExchange)
        if method.replicas == 1:
            return Samples(np.zeros((2, 1)), np.ones(2), method.round, np.zeros(1))
        tried = np.array([output.arrays["exchange_probability"] for output in outputs[1:]])
        twos = len(tried) // 2
        two = tried[: 2 * twos].reshape(twos, 2, -1)
        values = np.sum(two, axis=1, where=two >= 0) / np.sum(two >= 0, axis=1)
        return Samples(values, np.ones(twos), 2 * method.round, np.arange(method.replicas - 1.0))


def _angles(outputs: Sequence[Output], atoms: Four) -> Array:
    frames = np.concatenate([np.asarray(output.arrays["frames"]) for output in outputs])
    if not all(0 <= atom < frames.shape[1] for atom in atoms):
        raise InputError(Problem("atoms", f"atoms from 0 to {frames.shape[1] - 1}", f"{list(atoms)}", "Count from 0."))
    return torsion_angles(frames, atoms)


def _frame_interval(point: Point) -> float:
    assert isinstance(point.method, ForceFieldDynamics | ReplicaExchange)
    return point.method.frame_every
