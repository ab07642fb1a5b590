"""A method for the tests of federated training: least squares by gradient steps, answers on record, and wrong answers."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from manybody.core.errors import TaskError
from manybody.core.protocols import Conserved, Context, MethodSpec, SystemSpec
from manybody.core.study import Realisation
from manybody.core.task import Output, Task
from manybody.store.encoding import decode
from manybody.store.home import Home


class LeastSquares(MethodSpec):
    """Minimise |X w - y|^2 / (2 n) on data that a task gives, or that the node holds."""

    summary: ClassVar[str] = "least squares"
    version: ClassVar[str] = "1"
    systems: ClassVar[tuple[str, ...]] = ()
    extent: ClassVar[str] = "steps"
    stages: ClassVar[Mapping[str, str]] = {
        "fit": "least_squares:fit",
        "evaluate": "least_squares:evaluate",
        "replay": "least_squares:replay",
        "spoil": "least_squares:spoil",
    }
    masked: ClassVar[Mapping[str, str]] = {"private": "least_squares:fit"}

    name: Literal["least-squares"] = "least-squares"
    steps: int = 1

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        return (), ()

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        return ()

    def twin(self, realisation: Realisation, factor: float) -> Task:
        return realisation.tasks[-1]


def data_of(task: Task, inputs: Mapping[str, Output]) -> tuple[np.ndarray, np.ndarray]:
    """X [samples, features] and y [samples]: an input, or a file in the node's own folder."""
    name = task.parameters.get("held", "")
    data = decode((Home().path / "held" / f"{name}.safetensors").read_bytes()) if name else inputs["data"]
    return data.arrays["x"], data.arrays["y"]


def gradient(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """X^T (X w - y) / n."""
    return x.T @ (x @ w - y) / len(y)


def answer(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> Output:
    return Output({"w": w}, {"samples": len(y), "loss": float(np.mean((x @ w - y) ** 2) / 2)})


def fit(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """`steps` gradient steps of `rate`, pulled to where they start by `pull` (FedProx)."""
    x, y = data_of(task, inputs)
    start = inputs["model"].arrays["w"]
    w = start.copy()
    for _ in range(task.parameters["steps"]):
        w -= task.parameters["rate"] * (gradient(w, x, y) + task.parameters.get("pull", 0.0) * (w - start))
    return answer(w, x, y)


def evaluate(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """The loss of the model."""
    return answer(inputs["model"].arrays["w"], *data_of(task, inputs))


def replay(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """What the data say that this client answers in this `round`, whatever the model."""
    number = task.parameters["round"]
    arrays = {name.partition("/")[2]: values for name, values in inputs["data"].arrays.items() if name.startswith(f"{number}/")}
    return Output(arrays, {"samples": task.parameters["samples"]})


def spoil(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """An honest answer, or what `how` says."""
    honest = fit(task, inputs, context)
    match task.parameters.get("how"):
        case "fail":
            raise TaskError("the training diverged")
        case "nan":
            return Output({"w": honest.arrays["w"] * np.nan}, honest.document)
        case "shape":
            return Output({"w": honest.arrays["w"][1:]}, honest.document)
        case "type":
            return Output({"w": honest.arrays["w"].astype(np.float32)}, honest.document)
        case "name":
            return Output({"v": honest.arrays["w"]}, honest.document)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "samples":
            return Output(honest.arrays, {"loss": 0.0})
    return honest
