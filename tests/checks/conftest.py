"""Evidence with known answers: real tasks of a real study, whose stored results are series that we know all about."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from manybody.core.random import Key
from manybody.core.study import Study
from manybody.core.task import Output, Task
from manybody.store.objects import ObjectStore
from manybody.store.rows import ResultRow
from manybody.study.expand import expand
from manybody.study.measure import Measured

PUBLISHED = {0.776: (-5.5121, 6.7714e-3), 0.82: (-5.7947, 5.5355e-1)}  # NIST SRD 173 at T = 0.85: U, p
SAMPLES = 2500  # a segment of 200 sampled every 0.08


@dataclass(frozen=True)
class Wrong:
    """What is wrong with the evidence; nothing by default."""

    energy_offset: float = 0.0
    pressure_offset: float = 0.0
    drift: float = 0.0
    momentum: float = 0.0
    trend: float = 0.0
    order: float = 2.0
    run_scatter: float = 0.0
    noise: float = 1.0
    replica_differs: bool = False
    same_worker: bool = False


def synthetic_output(task: Task, wrong: Wrong) -> Output:
    """What a flawless engine might have given for `task`, changed by what is `wrong`."""
    rng = task.key.generator()
    density, temperature = task.system["density"], task.system["temperature"]
    atoms, cutoff = task.system["atoms"], task.system["cutoff"]
    volume = atoms / density
    at_cutoff = 4 * (cutoff**-12 - cutoff**-6)
    tail_u = 8 / 3 * math.pi * density * (cutoff**-9 / 3 - cutoff**-3)
    tail_p = 16 / 3 * math.pi * density**2 * (2 / 3 * cutoff**-9 - cutoff**-3)
    energy, pressure = PUBLISHED[density]
    pairs = 40.0 * atoms
    step = task.parameters["time_step"]
    run = wrong.run_scatter * Key.from_seed(task.repeat, str(density)).generator().standard_normal()
    ramp = wrong.trend * np.linspace(-0.5, 0.5, SAMPLES)
    u = energy + wrong.energy_offset + 0.04 * wrong.noise * rng.standard_normal(SAMPLES) + ramp + run
    p = pressure + wrong.pressure_offset + 0.1 * wrong.noise * rng.standard_normal(SAMPLES) + ramp + run
    time = np.arange(SAMPLES) * 0.08
    arrays = {
        "time": time,
        "potential_energy": atoms * (u - tail_u) - at_cutoff * pairs,
        "pairs": np.full(SAMPLES, pairs),
        "virial": 3 * volume * (p - tail_p - density * temperature),
        "kinetic_energy": np.full(SAMPLES, 1.5 * temperature * atoms),
        "effective_energy": wrong.drift * time + 1e-5 * rng.standard_normal(SAMPLES),
        "momentum": wrong.momentum * rng.standard_normal(SAMPLES),
    }
    fluctuation = step**wrong.order * (1 + 0.005 * rng.standard_normal())
    return Output(arrays, {"energy_fluctuation": fluctuation, "replica": task.replica * wrong.replica_differs})


@pytest.fixture
def evidence(tmp_path: Path) -> Callable[..., Measured]:
    """Makes evidence for a study with one check, `wrong` in the ways named."""
    densities = ({"system.density": 0.776}, {"system.density": 0.82})

    def make(check: dict[str, object] | str, sweep: tuple[dict[str, float], ...] = densities, **ways: float | bool) -> Measured:
        study = Study.model_validate(
            {
                "name": "synthetic",
                "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
                "method": {"name": "molecular-dynamics", "duration": 400.0, "segment": 200.0},
                "sweep": sweep,
                "repeats": 2,
                "measures": ["potential-energy", "pressure"],
                "checks": [check],
            }
        )
        wrong = replace(Wrong(), **ways)
        store = ObjectStore(tmp_path / "objects")
        plan = expand(study)
        rows = {}
        for task in plan.tasks:
            stored = store.put(synthetic_output(task, wrong))
            worker = f"worker-{0 if wrong.same_worker else task.replica}"
            rows[task.digest] = ResultRow(task.digest, stored.digest, stored.nbytes, 1.0, worker, "attempt", 0.0, {})
        return Measured(plan, rows, store)

    return make
