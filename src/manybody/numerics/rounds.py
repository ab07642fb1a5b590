"""What it costs to advance a field that is split over workers, in rounds of k steps with halos k stencils wide.

More steps a round: fewer tasks and fewer exchanges, but wider halos that both neighbours compute. Pure arithmetic:
the same figures give the same choice anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import Field

from manybody.core.spec import Spec


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
    """A field [rows, columns] of `cell_bytes` a cell to be advanced by `steps`, each of which looks `halo` rows aside."""

    rows: int
    columns: int
    steps: int
    halo: int
    cell_bytes: int

    def most_steps(self, parts: int) -> int:
        """The most steps a round may have: the halo must come from the direct neighbours."""
        return max(0, min(self.rows // parts // self.halo, self.steps))


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


def predict(problem: SplitProblem, costs: Costs, parts: int, steps_per_round: int) -> Prediction:
    """The expected cost of `parts` slabs in rounds of `steps_per_round`; tasks of a round run in waves of `workers`.

    With r rows a part and k steps, the last step computes r rows and each one before it `halo` rows more on either
    side, r + halo k on average. A result is a slab with its two edges of k halo rows; a task reads its own and its
    neighbours' and writes one.
    """
    rounds = math.ceil(problem.steps / steps_per_round)
    waves = math.ceil(parts / costs.workers)
    rows = math.ceil(problem.rows / parts)
    reach = problem.halo * steps_per_round
    result_bytes = (rows + 2 * reach) * problem.columns * problem.cell_bytes
    computed = (rows + reach) * problem.columns * problem.steps
    return Prediction(
        parts=parts,
        steps_per_round=steps_per_round,
        latency_s=rounds * (parts * costs.dispatch_s + waves * costs.latency_s),
        transfer_s=rounds * waves * 4 * result_bytes / costs.bytes_per_s,
        compute_s=waves * computed / costs.cell_steps_per_s,
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
