"""Whether a node has room for a task, by what it told of itself and what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from manybody.core.task import Needs, Task
from manybody.network.federation.protocol import Report
from manybody.network.machine import Machine


def machine_of(report: Report) -> Machine:
    """What a node has for its tasks."""
    return Machine(report.workers * report.threads, len(report.devices), report.memory_bytes, frozenset(report.data))


@dataclass
class Room:
    """The room of one node while it is being given work; `held` tells what the tasks need that it has already."""

    machine: Machine
    held: Callable[[], Iterable[Needs]]
    _free: Machine | None = field(default=None, init=False)

    def admits(self, task: Task) -> bool:
        """Whether the node can have this task, too; if so it is taken to have it. Cores are for the node to share out."""
        needs = task.needs
        if self.machine.lacks(needs):
            return False
        if not (needs.gpus or needs.memory_bytes):
            return True
        free = self._free = self._free or self.machine.beside(self.held())
        if free.lacks(needs):
            return False
        self._free = free.beside([needs])
        return True
