"""A small field, and its plans computed in this process, task by task, as a node would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

import pytest

from manybody.core.protocols import MethodSpec, Stage
from manybody.core.study import Plan, Study
from manybody.core.task import Output, Task
from manybody.engines.fields.spec import AdvectedField, Gaussian, Wave
from manybody.store.objects import ObjectStore
from manybody.store.rows import ResultRow
from manybody.study.expand import expand
from manybody.study.measure import Measured
from manybody.testing.node import LocalNode

Compute = Callable[..., dict[str, Output]]


@pytest.fixture
def dye() -> AdvectedField:
    """A field with everything in it: both velocities, diffusion, a Gaussian, waves, a background."""
    return AdvectedField(
        velocity_x=1.0,
        velocity_y=-0.6,
        diffusivity=0.003,
        background=0.3,
        gaussians=(Gaussian(x=0.3, y=0.4, width=0.12),),
        waves=(Wave(cycles_x=2, cycles_y=1, amplitude=0.4, phase=0.7), Wave(cycles_x=-1, cycles_y=1, amplitude=0.2)),
    )


@pytest.fixture
def compute(node: LocalNode) -> Compute:
    """Computes tasks in order; stages of the method may be replaced by wrong ones, by name. Results by task digest."""

    def run(method: MethodSpec, tasks: tuple[Task, ...], **instead: Stage) -> dict[str, Output]:
        results: dict[str, Output] = {}
        for task in tasks:
            module, _, name = method.stages[task.stage].partition(":")
            stage = instead.get(task.stage) or getattr(import_module(module), name)
            inputs: Mapping[str, Output] = {key: results[digest] for key, digest in task.inputs.items()}
            results[task.digest] = stage(task, inputs, node)
        return results

    return run


@pytest.fixture
def evidence(tmp_path: Path, compute: Compute) -> Callable[..., Measured]:
    """The evidence of a study, computed here; stages may be replaced by wrong ones."""

    def make(study: Study, **instead: Stage) -> Measured:
        store, plan = ObjectStore(tmp_path / "objects"), expand(study)
        return Measured(plan, dict(_rows(store, plan, compute(study.method, plan.tasks, **instead))), store)

    return make


def _rows(store: ObjectStore, plan: Plan, results: Mapping[str, Output]) -> list[tuple[str, ResultRow]]:
    stored = [(task, store.put(results[task.digest])) for task in plan.tasks]
    return [
        (task.digest, ResultRow(task.digest, kept.digest, kept.nbytes, 1.0, f"worker-{task.replica}", "attempt", 0.0, {}))
        for task, kept in stored
    ]
