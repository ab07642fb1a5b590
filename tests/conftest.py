"""Plans computed in this process, task by task, as a node would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

import pytest

from manybody.core.protocols import Stage
from manybody.core.study import Study
from manybody.core.task import Output, Task
from manybody.store.objects import ObjectStore
from manybody.store.rows import ResultRow
from manybody.study.expand import expand
from manybody.study.measure import Measured
from manybody.testing.node import LocalNode


@pytest.fixture
def node() -> LocalNode:
    return LocalNode()


@pytest.fixture
def compute(node: LocalNode) -> Callable[..., dict[str, Output]]:
    """Computes a study's tasks in order; stages may be replaced by wrong ones, by name. Results by task digest."""

    def run(study: Study, tasks: tuple[Task, ...], **instead: Stage) -> dict[str, Output]:
        results: dict[str, Output] = {}
        for task in tasks:
            module, _, name = study.method.stages[task.stage].partition(":")
            stage = instead.get(task.stage) or getattr(import_module(module), name)
            inputs: Mapping[str, Output] = {key: results[digest] for key, digest in task.inputs.items()}
            results[task.digest] = stage(task, inputs, node)
        return results

    return run


@pytest.fixture
def evidence(tmp_path: Path, compute: Callable[..., dict[str, Output]]) -> Callable[..., Measured]:
    """The evidence of a study, computed here; stages may be replaced by wrong ones."""

    def make(study: Study, **instead: Stage) -> Measured:
        store, plan = ObjectStore(tmp_path / "objects"), expand(study)
        results = compute(study, plan.tasks, **instead)
        kept = {task.digest: (task, store.put(results[task.digest])) for task in plan.tasks}
        rows = {
            digest: ResultRow(digest, stored.digest, stored.nbytes, 1.0, f"worker-{task.replica}", "attempt", 0.0, {})
            for digest, (task, stored) in kept.items()
        }
        return Measured(plan, rows, store)

    return make
