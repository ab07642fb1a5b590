"""Measure: from the outputs of tasks to values with standard errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from manybody.core.protocols import Estimate, Samples
from manybody.core.study import Plan, Point, Realisation
from manybody.core.task import Output, Task
from manybody.numerics.statistics import block_error
from manybody.store.objects import ObjectStore
from manybody.store.rows import ResultRow


def weighted_mean(samples: Sequence[Samples]) -> np.ndarray:
    """The mean over all runs of values [samples, ...] with weights [samples]."""
    total = sum(float(run.weights.sum()) for run in samples)
    return np.asarray(sum(np.tensordot(run.weights, run.values, axes=(0, 0)) for run in samples) / total)


def residuals(samples: Sequence[Samples], mean: np.ndarray) -> list[np.ndarray]:
    """What each sample adds to the weighted mean's deviation: w (x - mean) / <w>, one array a run.

    Linearised, so right to first order in 1/N also where weights and values are correlated.
    """
    weight = sum(float(run.weights.sum()) for run in samples) / sum(len(run.weights) for run in samples)
    return [run.weights.reshape(-1, *[1] * (run.values.ndim - 1)) * (run.values - mean) / weight for run in samples]


def estimate(samples: Sequence[Samples]) -> Estimate:
    """Value and blocked standard error over independent runs of one point."""
    mean = weighted_mean(samples)
    rests = residuals(samples, mean)
    blocked = block_error(rests)
    count = sum(len(run.values) for run in samples)
    runs: list[float] = []
    errors: list[float] = []
    if mean.ndim == 0:
        for run in samples:
            own = weighted_mean([run])
            runs.append(float(own))
            errors.append(float(block_error(residuals([run], own)).error))
    return Estimate(
        value=float(mean) if mean.ndim == 0 else mean,
        error=float(blocked.error) if mean.ndim == 0 else blocked.error,
        samples=count,
        samples_effective=count / blocked.inefficiency,
        correlation_time=0.5 * (blocked.inefficiency - 1) * samples[0].interval,
        runs=tuple(runs),
        run_errors=tuple(errors),
        axis=samples[0].axis,
    )


class Measured:
    """The evidence of a finished plan, read from the store and kept while the certificate is made."""

    def __init__(self, plan: Plan, results: Mapping[str, ResultRow], objects: ObjectStore) -> None:
        self.plan = plan
        self._results = results
        self._objects = objects
        self._outputs: dict[str, Output] = {}
        self._samples: dict[tuple[int, int, str], Samples] = {}
        self._estimates: dict[tuple[int, str], Estimate] = {}

    def output(self, task: Task) -> Output:
        """The result of a task, verified against its digest on first reading."""
        digest = self.result_digest(task)
        if digest not in self._outputs:
            self._outputs[digest] = self._objects.get(digest)
        return self._outputs[digest]

    def computed_by(self, task: Task) -> str:
        """The worker that computed a task's result."""
        return self._results[task.digest].worker

    def result_digest(self, task: Task) -> str:
        """The digest of a task's result."""
        return self._results[task.digest].result

    def samples(self, realisation: Realisation, measure: str) -> Samples:
        """What a measure read from one realisation."""
        identity = (realisation.point.index, realisation.repeat, measure)
        if identity not in self._samples:
            spec = next(spec for spec in self.plan.study.measures if spec.name == measure)
            outputs = [self.output(task) for task in realisation.measured]
            self._samples[identity] = spec.samples(realisation.point, outputs)
        return self._samples[identity]

    def estimate(self, point: Point, measure: str) -> Estimate:
        """A measured value at a point, over all its realisations."""
        identity = (point.index, measure)
        if identity not in self._estimates:
            runs = [run for run in self.plan.realisations if run.point.index == point.index]
            self._estimates[identity] = estimate([self.samples(run, measure) for run in runs])
        return self._estimates[identity]
