"""Which node a task goes to: one that has room for what it demands, that it need not avoid, and that has its inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from manybody.core.protocols import NodeInfo
from manybody.core.task import Task
from manybody.network.federation.protocol import Report
from manybody.network.gang import cores

COMPARED = ("manybody", "python", "numpy", "numba", "torch")  # versions that decide whether results have equal bits


AHEAD_S = 0.1  # tasks are sent ahead for so long, so that a node need not wait for its next one
AHEAD = 12  # so many at most for each that runs


@dataclass(frozen=True)
class Demand:
    """What a task takes of a node while it runs, by the names of Dask's resources: `cores`, `gpu`, `memory` (bytes)."""

    amounts: Mapping[str, float]

    @cached_property
    def text(self) -> str:
        """For people, and to compare by."""
        return ", ".join(f"{amount:g} {name}" for name, amount in self.amounts.items())


def demand(task: Task, threads: int) -> Demand:
    """What a task demands: its cores, for a gang one a member; GPUs and memory where its needs or its parameters say so."""
    on_gpu = str(task.parameters.get("device", "")).startswith("cuda")
    memory = task.parameters.get("memory_bytes")
    amounts = {
        "cores": float(cores(task, threads)),
        "gpu": float(max(task.needs.gpus, on_gpu)),
        "memory": max(float(task.needs.memory_bytes), float(memory) if isinstance(memory, int | float) else 0.0),
    }
    return Demand({name: amount for name, amount in amounts.items() if amount})


@dataclass
class Node:
    """A Dask worker: what it declared and has, what was sent there, which results it holds, how long its tasks take."""

    name: str
    address: str
    host: str
    cores: int
    memory: int
    declared: Mapping[str, float]
    report: Report
    taken: dict[str, Demand] = field(default_factory=dict)
    pace_s: float = float("inf")
    holds: set[str] = field(default_factory=set)

    @cached_property
    def capacity(self) -> dict[str, float]:
        """What there is in all. A worker that declares no cores has its threads; GPUs must be declared, to be counted on."""
        return {"cores": float(self.cores), "memory": float(self.memory) or float("inf"), "gpu": 0.0} | dict(self.declared)

    def could_run(self, wanted: Demand) -> bool:
        """Whether it has enough when it runs nothing else."""
        return all(amount <= self.capacity.get(name, 0.0) for name, amount in wanted.amounts.items())

    def has_room(self, wanted: Demand) -> bool:
        """Whether it has enough now."""
        free = dict(self.capacity)
        for other in self.taken.values():
            for name, amount in other.amounts.items():
                free[name] -= amount
        return all(amount <= free.get(name, 0.0) for name, amount in wanted.amounts.items())

    def may_queue(self) -> bool:
        """Whether a task may be sent ahead of room for it: where tasks are so short that a round trip counts."""
        ahead = min(AHEAD, int(AHEAD_S / max(self.pace_s, 1e-3)))
        return ahead > 0 and len(self.taken) < (1 + ahead) * self.capacity["cores"]

    def note(self, seconds: float) -> None:
        """Learn from a task how long they take here: a running mean over about the last four."""
        self.pace_s = seconds if self.pace_s == float("inf") else 0.75 * self.pace_s + 0.25 * seconds

    def resources(self, wanted: Demand) -> dict[str, float]:
        """The part of a demand that this node declared to Dask, which keeps account of it over all coordinators."""
        return {name: amount for name, amount in wanted.amounts.items() if name in self.declared}

    def info(self, threads: int) -> NodeInfo:
        """This node as the backend tells of it: as many workers of `threads` threads as its cores make."""
        return NodeInfo(
            name=self.name, workers=int(self.capacity["cores"]) // threads, threads=threads,
            devices=self.report.devices, memory_bytes=self.memory or self.report.memory_bytes, address=self.address,
            speed=self.report.speed,
        )  # fmt: skip


def place(wanted: Demand, inputs: Iterable[str], avoid: frozenset[str], nodes: Iterable[Node]) -> Node | None:
    """The node for a task now; None where it must wait.

    A node that is to be avoided as a whole, by its name, never gets it. One with a worker to be avoided is taken only where
    no other could ever run it: there a fresh process does. Among those with room the one that lacks fewest inputs, then the
    one with least to do. Where none has room, a node whose tasks are short may take one more, to begin it without waiting
    for a round trip.
    """
    able = [node for node in nodes if node.could_run(wanted) and node.name not in avoid]
    tainted = {name.rpartition("/")[0] for name in avoid}
    others = [node for node in able if node.name not in tainted]
    ready = [node for node in others or able if node.has_room(wanted)] or [node for node in others or able if node.may_queue()]
    needs = set(inputs)
    return min(ready, key=lambda node: (len(needs - node.holds), len(node.taken), node.name), default=None)


def mismatches(node: str, theirs: Report, ours: Report) -> list[str]:
    """What differs between a node and this installation, so that results would not have equal bits."""
    versions = [
        f"{package} {theirs.provenance.get(package, 'absent')}, here {ours.provenance.get(package)}"
        for package in COMPARED
        if theirs.provenance.get(package) != ours.provenance.get(package)
    ]
    methods = [
        f"method {name} {theirs.methods[name].version}, here {method.version}"
        for name, method in ours.methods.items()
        if name in theirs.methods and theirs.methods[name].version != method.version
    ]
    return [f"{node} has {difference}" for difference in versions + methods]
