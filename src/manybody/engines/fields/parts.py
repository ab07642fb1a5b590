"""What the tasks of a split field are asked for: typed, torch-free."""

from __future__ import annotations

from typing import Literal

from manybody.core.spec import Spec

STEP_HALO = 8  # rows that one time step looks aside: 4 stages of 2 (`numerics.stencils.HALO`, which loads a compiler)

EXCHANGE_ERROR = "exchange error"  # in documents: the largest error of an embedding that was sent, so far

Precision = Literal["float64", "float32"]


class Grid(Spec):
    """A grid [rows, columns] of the square, x from row to row, and the time step and precision on it."""

    rows: int
    columns: int
    time_step: float
    precision: Precision


class Part(Grid):
    """Rows first to last (exclusive) of a grid.

    Where neighbours are sent embeddings, they are of `edge` rows at either end, with `bound` on the error of every value;
    both are 0 where neighbours read the rows themselves.
    """

    first: int
    last: int
    edge: int
    bound: float


class Round(Part):
    """`steps` time steps of a part, from step number `begin` on."""

    begin: int
    steps: int


class Moment(Grid):
    """The whole grid after `step` time steps."""

    step: int


class Course(Grid):
    """What a gang of `members` advances from step `begin` on: `samples` samples, one every `stride` steps."""

    members: int
    channel: Literal["gloo", "mpi"]
    begin: int
    stride: int
    samples: int

    @property
    def moments(self) -> tuple[int, ...]:
        """The steps at which the field is kept; the start is one where the course begins with it."""
        after = tuple(self.begin + sample * self.stride for sample in range(1, self.samples + 1))
        return after if self.begin else (0, *after)


def at_step(step: int) -> str:
    """The name of the array that holds the field at a step of a course."""
    return f"step {step}"


def part_rows(rows: int, parts: int, part: int) -> tuple[int, int]:
    """First and last (exclusive) row of a part: as equal as whole rows allow."""
    return rows * part // parts, rows * (part + 1) // parts
