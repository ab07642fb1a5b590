"""What it costs to advance a field that is split over workers, in rounds of k steps with halos k stencils wide.

More steps a round: fewer tasks and fewer exchanges, but wider halos that both neighbours compute. Pure arithmetic:
the same figures give the same choice anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pydantic import Field

from manybody.core.spec import Spec
from manybody.core.task import Task

if TYPE_CHECKING:
    from manybody.core.protocols import MethodSpec


CUT_WORTH = 0.5  # of a result: where a neighbour reads no more than this share, only that is sent


EXCHANGE_RATIO = 4.0  # of a bounded exchange of a smooth field: bytes before over after
EXCHANGE_BYTES_PER_S = 1.2e8  # encoded, verified and decoded again on a core: it pays on links slower than about 150 MB/s


class Costs(Spec):
    """What a task costs on the network at hand. The defaults are about those of the embedded backend with two workers.

    `dispatch_s` is what the coordinator takes for a task, one at a time: claimed, sent, recorded. `latency_s` is what
    a task takes on its worker and on the way, beyond moving its data and computing.
    """

    dispatch_s: float = Field(0.01, ge=0, description="seconds the coordinator takes for a task, one at a time")
    latency_s: float = Field(0.01, ge=0, description="seconds a task takes on its worker whatever its size")
    bytes_per_s: float = Field(4e8, gt=0, description="bytes of inputs and results that are moved a second")
    cell_steps_per_s: float = Field(4e7, gt=0, description="cells advanced by one time step, a second and worker")
    workers: int = Field(2, ge=1, description="workers that compute at the same time")


@dataclass(frozen=True)
class SplitProblem:
    """A field [rows, columns] of `cell_bytes` a cell to be advanced by `steps`, each of which looks `halo` rows aside.

    `ratio` is by how much what neighbours exchange is compressed; 1 where it is not.
    """

    rows: int
    columns: int
    steps: int
    halo: int
    cell_bytes: int
    ratio: float = 1.0

    def most_steps(self, parts: int) -> int:
        """The most steps a round may have: the halo must come from the direct neighbours."""
        return max(0, min(self.rows // parts // self.halo, self.steps))


@dataclass(frozen=True)
class Load:
    """What a split run asks for, to be weighed with costs.

    `dispatches` are tasks, one after the other at the coordinator; `waits` are waves of tasks, as many at a time as there
    are workers; `nbytes` are moved one after the other. On the busiest worker `cell_steps` are computed, and `coded` bytes
    are compressed and restored.
    """

    dispatches: float
    waits: float
    nbytes: float
    cell_steps: float
    coded: float = 0.0


@dataclass(frozen=True)
class Prediction:
    """Expected wall time of a split run, and what of it is latency, data and computing, seconds.

    `redundant` is the share of the computing that neighbours do as well.
    """

    parts: int
    steps_per_round: int
    latency_s: float
    transfer_s: float
    compute_s: float
    redundant: float
    steps: int

    @property
    def total_s(self) -> float:
        """Expected wall time, seconds."""
        return self.latency_s + self.transfer_s + self.compute_s

    @property
    def steps_per_s(self) -> float:
        """Expected pace."""
        return self.steps / self.total_s


def load(problem: SplitProblem, workers: int, parts: int, steps_per_round: int) -> Load:
    """What `parts` slabs in rounds of `steps_per_round` ask for; tasks of a round run in waves of `workers`.

    With r rows a part and k steps, the last step computes r rows and each one before it `halo` rows more on either
    side, r + halo k on average. A worker reads its part's r rows and halo k of either neighbour, and writes r. The
    coordinator reads every result when it comes, and again to cut out the 2 halo k that neighbours read; where these are
    more than half of a result, nothing is cut and all of it is read instead. Compressed edges are part of a result.
    """
    rounds = math.ceil(problem.steps / steps_per_round)
    waves = math.ceil(parts / workers)
    rows = math.ceil(problem.rows / parts)
    reach = problem.halo * steps_per_round
    sent = reach / problem.ratio
    result = rows + (2 * sent if problem.ratio > 1 else 0)
    cut = sent <= CUT_WORTH * result
    worker_rows = 2 * result + 2 * (sent if cut else result)
    coordinator_rows = 2 * result + (2 * sent if cut else 0)
    return Load(
        dispatches=rounds * parts,
        waits=rounds * waves,
        nbytes=rounds * (waves * worker_rows + parts * coordinator_rows) * problem.columns * problem.cell_bytes,
        cell_steps=waves * (rows + reach) * problem.columns * problem.steps,
        coded=rounds * waves * 2 * reach * problem.columns * problem.cell_bytes if problem.ratio > 1 else 0.0,
    )


def predict(problem: SplitProblem, costs: Costs, parts: int, steps_per_round: int) -> Prediction:
    """The expected cost of `parts` slabs in rounds of `steps_per_round`."""
    asked = load(problem, costs.workers, parts, steps_per_round)
    rows, reach = math.ceil(problem.rows / parts), problem.halo * steps_per_round
    return Prediction(
        parts=parts,
        steps_per_round=steps_per_round,
        latency_s=asked.dispatches * costs.dispatch_s + asked.waits * costs.latency_s,
        transfer_s=asked.nbytes / costs.bytes_per_s,
        compute_s=asked.cell_steps / costs.cell_steps_per_s + asked.coded / EXCHANGE_BYTES_PER_S,
        redundant=reach / (rows + reach),
        steps=problem.steps,
    )


def choose(problem: SplitProblem, costs: Costs, parts: Iterable[int]) -> Prediction | None:
    """The fastest split with one of these numbers of parts: of equals the fewest parts, then the fewest steps a round.

    None where no part would have the rows for one step's halo.
    """
    return min(
        _splits(problem, costs, parts),
        key=lambda split: (split.total_s, split.parts, split.steps_per_round),
        default=None,
    )


def _splits(problem: SplitProblem, costs: Costs, parts: Iterable[int]) -> Iterator[Prediction]:
    for number in parts:
        for steps in range(1, problem.most_steps(number) + 1):
            yield predict(problem, costs, number, steps)


@dataclass(frozen=True)
class Trial:
    """Rounds to be timed: tasks that are done before, those that are timed, and what these ask for."""

    before: tuple[Task, ...]
    timed: tuple[Task, ...]
    load: Load


@runtime_checkable
class Tunable(Protocol):
    """A method whose split may be left open, to be chosen by what the network at hand costs."""

    def is_open(self) -> bool:
        """Whether something is left to be chosen by measured costs."""

    def trials(self, workers: int, turn: int) -> tuple[Trial, ...]:
        """Rounds of this method that tell what it costs, a few seconds in all; other results every turn."""

    def settled(self, costs: Costs) -> MethodSpec:
        """This method with the choice made, so that the costs need not be known any more."""

    def expected_s(self, costs: Costs) -> float:
        """Expected wall time of one realisation, seconds."""
