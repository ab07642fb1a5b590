"""Plans of atoms computed in this process, task by task, as a node would."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from manybody.core.study import Study
from manybody.core.task import Output, Task
from manybody.store.objects import ObjectStore
from manybody.store.rows import ResultRow
from manybody.study.expand import expand
from manybody.study.measure import Measured
from manybody.testing.node import LocalNode


@pytest.fixture
def make_node() -> type[LocalNode]:
    return LocalNode


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
    output: Output = getattr(import_module(module), name)(task, inputs, LocalNode())
    return output
