"""Learned cost: how long a task will take on a node, from how long finished ones have taken, and where.

A method predicts the cost of its tasks in core-seconds. What they took instead is taken to be

    seconds = cost x pace(kind) x slowness(node),

with one pace for each kind of task (method, stage, version) and one slowness for each node, 1 in the middle of all nodes.
The logarithms are fitted by median polish (J. W. Tukey, Exploratory Data Analysis, 1977, chapter 11): medians only, so
that a few tasks that were frozen for an hour, or kept from a cache, move nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TypeVar

from manybody.core.protocols import NodeInfo
from manybody.core.study import Plan
from manybody.core.task import Task
from manybody.store.ledger import Ledger
from manybody.store.timings import newest_timings

Key = TypeVar("Key")
Kind = tuple[str, str, str]
SWEEPS = 4  # of the polish: each is a pass over both factors, and more change the third digit at most
SHORTEST_S = 1e-4  # a task that took less was not measured


def kind_of(task: Task) -> Kind:
    """What tasks share whose cost is predicted by the same formula: method, stage and version."""
    return task.method, task.stage, task.version


def node_of(worker: str, host: str = "") -> str:
    """The node that a worker belongs to: what stands before its last slash; `host` for worker processes of one machine."""
    return worker.rpartition("/")[0] or host


@dataclass(frozen=True)
class Timing:
    """How long a finished task took: its kind, predicted cost (core-seconds), seconds, and node."""

    kind: Kind
    cost: float
    seconds: float
    node: str


@dataclass(frozen=True)
class Costs:
    """Factors between predicted cost and seconds: `pace` by kind, `slowness` by node. Those that are not known are 1."""

    pace: Mapping[Kind, float] = field(default_factory=dict)
    slowness: Mapping[str, float] = field(default_factory=dict)

    def knows(self, task: Task) -> bool:
        """Whether tasks of this kind have been timed."""
        return kind_of(task) in self.pace

    def seconds(self, task: Task, node: str = "") -> float:
        """How long a task is expected to take on a node; on a middling one by default."""
        return task.cost * self.pace.get(kind_of(task), 1.0) * self.slowness.get(node, 1.0)

    def slower(self, node: str, other: str) -> float:
        """How many times as long as on the other node a task takes on a node."""
        return self.slowness.get(node, 1.0) / self.slowness.get(other, 1.0)

    def capacity(self, nodes: Iterable[NodeInfo]) -> float:
        """How many workers of middling speed the nodes are worth."""
        return math.fsum(node.workers / self.slowness.get(node.name, 1.0) for node in nodes)

    def on(self, nodes: Sequence[NodeInfo]) -> Costs:
        """The same by another measure: what is expected of the mean worker of these nodes, instead of a middling one."""
        workers, capacity = sum(node.workers for node in nodes), self.capacity(nodes)
        mean = workers / capacity if workers else 1.0
        slowness = dict.fromkeys((node.name for node in nodes), 1.0) | dict(self.slowness)
        return Costs(
            {kind: pace * mean for kind, pace in self.pace.items()}, {node: slow / mean for node, slow in slowness.items()}
        )


def learn(seen: Sequence[Timing], speeds: Mapping[str, Mapping[str, float]] | None = None) -> Costs:
    """Costs from timings, and from the speeds that nodes have measured: by node and method, predicted cost done a second.

    A measured speed counts as one more task of that method on that node.
    """
    ratios = [(timing.kind, timing.node, math.log(timing.seconds / timing.cost)) for timing in seen if _is_timed(timing)]
    for node, by_method in (speeds or {}).items():
        ratios += [((method, "", ""), node, -math.log(speed)) for method, speed in by_method.items() if speed > 0]
    kinds: dict[Kind, float] = {}
    nodes = dict.fromkeys((node for _, node, _ in ratios), 0.0)
    for _ in range(SWEEPS):
        kinds = _medians((kind, ratio - nodes[node]) for kind, node, ratio in ratios)
        nodes = _medians((node, ratio - kinds[kind]) for kind, node, ratio in ratios)
        middle = median(nodes.values()) if nodes else 0.0
        nodes = {node: value - middle for node, value in nodes.items()}
    kinds = _medians((kind, ratio - nodes[node]) for kind, node, ratio in ratios)
    timed = {kind: math.exp(value) for kind, value in kinds.items() if kind[1]}
    return Costs(timed, {node: math.exp(value) for node, value in nodes.items()})


def known_timings(ledger: Ledger, tasks: Iterable[Task]) -> list[Timing]:
    """What the ledger knows of tasks of the same kinds."""
    with ledger.database.reading() as connection:
        rows = newest_timings(connection, {kind_of(task) for task in tasks})
    return [Timing((row.method, row.stage, row.version), row.cost, row.seconds, node_of(row.worker, row.host)) for row in rows]


def priced(plan: Plan, costs: Costs) -> Plan:
    """A plan whose tasks cost what has been learned: what their order, their deadlines and the time left go by."""

    def price(tasks: Iterable[Task]) -> tuple[Task, ...]:
        return tuple(task.model_copy(update={"cost": costs.seconds(task)}) for task in tasks)

    runs = (replace(run, tasks=price(run.tasks), measured=price(run.measured)) for run in plan.realisations)
    return replace(plan, realisations=tuple(runs), evidence=tuple(price(tasks) for tasks in plan.evidence))


def repriced(timings: Iterable[Timing], costs: Costs) -> list[Timing]:
    """Timings by the measure of `priced` tasks."""
    return [replace(timing, cost=timing.cost * costs.pace.get(timing.kind, 1.0)) for timing in timings]


def _is_timed(timing: Timing) -> bool:
    return timing.seconds > SHORTEST_S and timing.cost > 0 and math.isfinite(timing.seconds * timing.cost)


def _medians(values: Iterable[tuple[Key, float]]) -> dict[Key, float]:
    grouped: dict[Key, list[float]] = {}
    for key, value in values:
        grouped.setdefault(key, []).append(value)
    return {key: median(group) for key, group in grouped.items()}
