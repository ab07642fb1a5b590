"""Plans of atoms computed in this process, task by task, as a node would."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from manybody.core.study import Study
from manybody.core.task import Output, Progress, Task
from manybody.store.objects import ObjectStore
from manybody.store.rows import ResultRow
from manybody.study.expand import expand
from manybody.study.measure import Measured


class Node:
    """What a node lends a task (`core.protocols.Context`); it stops, as if killed, after `patience` checkpoints."""

    device = "cpu"
    threads = 1

    def __init__(self, left: Output | None = None, patience: int = 1_000_000) -> None:
        self.told: list[Progress] = []
        self.left, self.patience = left, patience

    def progress(self, progress: Progress) -> None:
        self.told.append(progress)

    def resume(self) -> Output | None:
        return self.left

    def keep(self, output: Output) -> None:
        self.left, self.patience = output, self.patience - 1
        if self.patience == 0:
            raise InterruptedError


@pytest.fixture
def make_node() -> type[Node]:
    return Node


@pytest.fixture(scope="session")
def computed() -> dict[str, Output]:
    """What tasks gave, by their digest: they are pure, and several tests look at the same ones."""
    return {}


@pytest.fixture
def evidence(tmp_path: Path, computed: dict[str, Output]) -> Callable[..., Measured]:
    """The evidence of a study, every task computed here, its output as `tamper` makes it."""

    def make(study: Study, tamper: Callable[[Output], Output] = lambda output: output) -> Measured:
        store, plan = ObjectStore(tmp_path / "objects"), expand(study)
        results: dict[str, Output] = {}
        rows: dict[str, ResultRow] = {}
        for task in plan.tasks:
            results[task.digest] = computed.get(task.digest) or run(study, task, results)
            computed[task.digest] = results[task.digest]
            stored = store.put(tamper(results[task.digest]))
            worker = f"worker-{task.replica}"
            rows[task.digest] = ResultRow(task.digest, stored.digest, stored.nbytes, 1.0, worker, "attempt", 0.0, {})
        return Measured(plan, rows, store)

    return make


def run(study: Study, task: Task, results: dict[str, Output]) -> Output:
    module, _, name = study.method.stages[task.stage].partition(":")
    inputs = {key: results[digest] for key, digest in task.inputs.items()}
    output: Output = getattr(import_module(module), name)(task, inputs, Node())
    return output
