"""What a party trains with before it masks: a stage of another installed method, run inside a task of this one."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

import numpy as np

from manybody.core import catalog
from manybody.core.errors import TaskError
from manybody.core.protocols import Context, MethodSpec, Stage
from manybody.core.spec import Spec
from manybody.core.task import Output, Task


class Work(Spec):
    """A stage of an installed method, with its parameters: what a task of its own would say."""

    method: str
    stage: str
    version: str
    system: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    seed: int = 0

    def run(self, within: Task, inputs: Mapping[str, Output], context: Context) -> Output:
        """What the stage gives as part of the task `within`, whose inputs make its randomness its own.

        Raises `TaskError` where this node has no such method, version or stage.
        """
        method = cast("type[MethodSpec]", catalog.load("methods", self.method))
        stages = {**method.stages, **method.masked}
        if method.version != self.version or self.stage not in stages:
            expected = f"expected {self.method} {self.version} with a stage `{self.stage}`"
            raise TaskError(f"{expected}; this node has {method.version} with {', '.join(stages)}.")
        module, _, name = stages[self.stage].partition(":")
        return cast("Stage", getattr(import_module(module), name))(self.task(within.inputs), inputs, context)

    def weight(self, given: Output) -> float:
        """How much an answer weighs, its `samples`. Raises `TaskError` where it does not say."""
        samples = given.document.get("samples")
        if isinstance(samples, bool) or not isinstance(samples, int | float) or not samples > 0:
            raise TaskError(f"{self.method}/{self.stage}: expected `samples`, a positive number; got {samples!r}.")
        return samples

    def tensors(self, given: Output, model: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The tensors of an answer in the order of the model's. Raises `TaskError` where one is missing or of another shape."""
        for name, array in model.items():
            if name not in given.arrays or given.arrays[name].shape != array.shape:
                came = list(given.arrays[name].shape) if name in given.arrays else "nothing"
                raise TaskError(f"{self.method}/{self.stage}: expected `{name}` of shape {list(array.shape)}; got {came}.")
        return [given.arrays[name] for name in model]

    def task(self, inputs: Mapping[str, str]) -> Task:
        """The task that it would be by itself."""
        return Task(**self.document(), inputs=dict(inputs))
