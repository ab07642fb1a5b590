"""Workload: the tasks that a run is to have done, what each needs and who reads it, and how much work hangs on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from manybody.core.task import Task


class Workload:
    """Tasks by digest, inputs before those that read them. Tasks may be added later, and taken out when nobody needs them."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self.tasks: dict[str, Task] = {}
        self.needs: dict[str, set[str]] = {}
        self.readers: dict[str, set[str]] = {}
        self.chain: dict[str, float] = {}
        for task in tasks:
            self.add(task)
        for digest, task in reversed(self.tasks.items()):
            for need in self.needs[digest]:
                self.chain[need] = max(self.chain[need], self.tasks[need].cost + self.chain[task.digest])

    def __len__(self) -> int:
        return len(self.tasks)

    def add(self, task: Task) -> None:
        """Take a task in; `chain` is the longest chain of work from its start that hangs on it, core-seconds.

        A replica that comes later is as urgent as what it checks: the sooner a fault is found, the less rests on it.
        """
        self.tasks[task.digest], self.chain[task.digest] = task, task.cost
        if task.replica:
            self.chain[task.digest] = max(task.cost, self.chain.get(task.replicated(0).digest, 0.0))
        self.needs[task.digest] = _needs(task)
        for need in task.inputs.values():
            self.readers.setdefault(need, set()).add(task.digest)

    def remove(self, digest: str) -> None:
        """Take out a task that no other reads."""
        for need in self.tasks[digest].inputs.values():
            self.readers[need].discard(digest)
        del self.tasks[digest], self.needs[digest], self.chain[digest]

    def downstream(self, digest: str) -> list[str]:
        """Every task that rests on a result of this one, nearest first."""
        found: dict[str, None] = {}
        front = [digest]
        while front:
            front = [reader for need in front for reader in self.readers.get(need, ()) if reader not in found]
            found |= dict.fromkeys(front)
        return list(found)

    def inputs(self, digest: str, results: Mapping[str, str]) -> dict[str, str]:
        """The results that a task reads now, by name; those that there are not are left out."""
        return {name: results[need] for name, need in self.tasks[digest].inputs.items() if need in results}


def _needs(task: Task) -> set[str]:
    """The tasks that must be done first: inputs, and for a replica its original, whose worker it must avoid."""
    return set(task.inputs.values()) | ({task.replicated(0).digest} if task.replica else set())
