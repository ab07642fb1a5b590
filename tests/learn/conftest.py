"""Small liquids, learned from by three to seven institutions; plans computed in this process, task by task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from manybody.core import catalog
from manybody.core.protocols import MethodSpec, Stage
from manybody.core.study import Plan, Study
from manybody.core.task import Output, Task
from manybody.learn.potentials.configurations import Configurations, labelled
from manybody.store.objects import ObjectStore
from manybody.store.rows import ResultRow
from manybody.study.expand import expand
from manybody.study.measure import Measured
from manybody.testing.node import LocalNode

NAMES = ("bonn", "delft", "graz", "lund", "oslo", "pisa", "turin")
CUTOFF = 2.0


def frames(seed: int, count: int, jitter: float) -> Output:
    """Configurations of 64 atoms about a simple cubic lattice, as a run of molecular dynamics leaves them."""
    rng = np.random.default_rng(seed)
    sites = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * 1.1
    moved = sites + jitter * rng.uniform(-1, 1, (count, 64, 3))
    return Output({"frames": moved.astype(np.float32), "box": np.full(3, 4.4)}, {})


@pytest.fixture(scope="session")
def configurations() -> Configurations:
    """Five configurations with the energies and forces of the Lennard-Jones liquid."""
    raw = frames(5, 5, 0.12)
    return labelled(raw.arrays["frames"], raw.arrays["box"], CUTOFF)


@pytest.fixture
def federation() -> Callable[..., Study]:
    """A study of institutions that learn from a few small configurations; keywords change system, method or checks."""

    def make(
        system: Mapping[str, Any] | None = None,
        method: Mapping[str, Any] | None = None,
        checks: Any = ("pooled",),
        parties: int = 3,
    ) -> Study:
        institutions = [
            {"name": name, "temperature": 1.0 + 0.3 * at, "density": 0.7, "configurations": 8 + 4 * at, "capacity": 1.0 + at}
            for at, name in enumerate(NAMES[:parties])
        ]
        liquid = {"name": "federated-liquid", "institutions": institutions, "atoms": 64, "cutoff": CUTOFF, "configurations": 12}
        training = {"name": "federated-learning", "rounds": 4, "learning_rate": 0.3}
        document = {
            "name": "federation",
            "system": liquid | dict(system or {}),
            "method": training | dict(method or {}),
            "measures": ["potential-error", "learned-potential", "training-loss"],
            "checks": list(checks),
            "seed": 3,
        }
        return Study.model_validate(document)

    return make


def made(task: Task) -> Output:
    """In place of a run of molecular dynamics: configurations that depend on its seed and temperature."""
    count = round(task.parameters["time"] / task.parameters["frame_every"])
    return frames(task.seed % 2**32, count, 0.1 + 0.02 * task.system["temperature"])


Compute = Callable[..., dict[str, Output]]


@pytest.fixture
def compute(node: LocalNode) -> Compute:
    """Computes tasks in order; stages may be replaced by wrong ones, by name. Results by task digest."""

    def run(tasks: tuple[Task, ...], **instead: Stage) -> dict[str, Output]:
        results: dict[str, Output] = {}
        for task in tasks:
            if task.method == "molecular-dynamics":
                results[task.digest] = made(task)
                continue
            method = cast("type[MethodSpec]", catalog.load_spec("methods", task.method))
            module, _, name = method.stages[task.stage].partition(":")
            stage = instead.get(task.stage) or getattr(import_module(module), name)
            inputs = {key: results[digest] for key, digest in task.inputs.items()}
            results[task.digest] = stage(task, inputs, node)
        return results

    return run


@pytest.fixture
def evidence(tmp_path: Path, compute: Compute) -> Callable[..., Measured]:
    """The evidence of a study, computed here; stages may be replaced by wrong ones."""

    def make(study: Study, **instead: Stage) -> Measured:
        store, plan = ObjectStore(tmp_path / "objects"), expand(study)
        return Measured(plan, _rows(store, plan, compute(plan.tasks, **instead)), store)

    return make


def _rows(store: ObjectStore, plan: Plan, results: Mapping[str, Output]) -> dict[str, ResultRow]:
    stored = [(task, store.put(results[task.digest])) for task in plan.tasks]
    return {
        task.digest: ResultRow(task.digest, kept.digest, kept.nbytes, 1.0, f"worker-{task.replica}", "attempt", 0.0, {})
        for task, kept in stored
    }
