"""A tiny method for the contract suites: arithmetic that can be checked, and tasks that fail in every way.

It is no part of the catalog of an installation: `installed` makes it one for the processes of a test.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np

from manybody.core.errors import TaskError
from manybody.core.protocols import Conserved, Context, MethodSpec, SystemSpec
from manybody.core.study import Realisation
from manybody.core.task import Output, Progress, Task

LOOK_S = 0.02  # between two looks at a gate
Stage = Literal["add", "iterate", "refuse", "divide", "print", "crash", "describe", "fork", "hold", "fill", "misbehave"]


class TestingArithmetic(MethodSpec):
    """Numbers added, iterated, and mishandled."""

    __test__ = False  # pytest collects classes by their names

    summary: ClassVar[str] = "arithmetic for contract suites"
    version: ClassVar[str] = "1"
    systems: ClassVar[tuple[str, ...]] = ()
    extent: ClassVar[str] = "steps"
    stages: ClassVar[Mapping[str, str]] = {
        "add": "manybody.testing.methods:add",
        "iterate": "manybody.testing.methods:iterate",
        "refuse": "manybody.testing.methods:refuse",
        "divide": "manybody.testing.methods:divide",
        "print": "manybody.testing.methods:print_and_fail",
        "crash": "manybody.testing.methods:crash",
        "describe": "manybody.testing.methods:describe",
        "fork": "manybody.testing.methods:fork_and_iterate",
        "hold": "manybody.testing.methods:hold_interpreter",
        "fill": "manybody.testing.methods:fill",
        "misbehave": "manybody.testing.methods:misbehave",
    }

    name: Literal["testing-arithmetic"] = "testing-arithmetic"
    steps: int = 1

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """One iteration."""
        only = (task("iterate", steps=self.steps).model_copy(update={"seed": seed, "repeat": repeat}),)
        return only, only

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """Nothing."""
        return ()

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """The same iteration: arithmetic has no step to refine."""
        return realisation.tasks[-1]


def task(stage: Stage, inputs: Mapping[str, str] | None = None, **parameters: Any) -> Task:
    """A task of this method; `inputs` maps names to the digests of the tasks that are read."""
    method, version = TestingArithmetic.model_fields["name"].default, TestingArithmetic.version
    return Task(method=method, stage=stage, version=version, system={}, parameters=parameters, inputs=dict(inputs or {}))


def let_through(tasks: Iterable[Task]) -> None:
    """Open the gates of tasks; fine for those that have none."""
    for each in tasks:
        if "gate" in each.parameters:
            Path(each.parameters["gate"]).touch()


def installed(folder: Path) -> dict[str, str]:
    """Environment for processes that shall find this method in their catalog; writes what makes it so into `folder`."""
    package = folder / "manybody_testing-1.dist-info"
    package.mkdir(parents=True, exist_ok=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: manybody-testing\nVersion: 1\n", encoding="utf-8")
    entry = f"testing-arithmetic = {__name__}:{TestingArithmetic.__name__}"
    (package / "entry_points.txt").write_text(f"[manybody.methods]\n{entry}\n", encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))}


# --- stages ----------------------------------------------------------------------------------------------------


def add(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """The sum of `terms` and of the totals of all inputs."""
    total = np.sum(task.parameters["terms"]) + sum(output.arrays["total"] for output in inputs.values())
    return Output({"total": np.asarray(total, dtype=np.float64)}, {"inputs": sorted(inputs)})


def iterate(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """`steps` steps of the logistic map x -> 4 x (1 - x) from the task's key, with progress every thousand.

    Each thousand is a checkpoint. With `fail_at`, it gives up at that step. With `gate`, a file's path, it stays halfway,
    at a whole thousand, until that file is there, and goes on telling how far it is.
    """
    steps, fail_at, gate = int(task.parameters["steps"]), task.parameters.get("fail_at"), task.parameters.get("gate")
    halfway = steps // 2000 * 1000
    left = context.resume() or Output({"x": np.asarray(task.key.generator().random())}, {"step": 0})
    x, first, looks = float(left.arrays["x"]), int(left.document["step"]), 0
    for step in range(first, steps):
        if step == fail_at:
            raise TaskError(f"the iteration diverged at step {step}")
        while step % 1000 == 0:
            context.progress(Progress(step / steps, simulated=float(step + looks), unit="steps"))
            if step > first:
                context.keep(Output({"x": np.asarray(x)}, {"step": step}))
            if gate is None or step != halfway or Path(gate).exists():
                break
            looks += 1  # so that each report differs, or it would not be passed on
            time.sleep(LOOK_S)
        x = 4 * x * (1 - x)
    return Output({"total": np.asarray(x)}, {"steps": steps})


def refuse(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Give no result, for a reason of its own."""
    raise TaskError(f"the iteration diverged at step {task.parameters['step']}")


def divide(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Fail by a mistake in the stage's code."""
    return Output(document={"quotient": 1 / task.parameters["divisor"]})


def print_and_fail(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Print `text`, then fail."""
    print(task.parameters["text"], flush=True)
    raise TaskError("failed after printing")


def crash(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Be killed, as by a system that is out of memory, after a last word."""
    print("about to be killed", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable: SIGKILL cannot be ignored")


def describe(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Where the task runs: host, process, and what it was lent."""
    where = {"host": platform.node(), "pid": os.getpid(), "threads": context.threads, "device": context.device}
    return Output(document=where | {"omp": os.environ.get("OMP_NUM_THREADS", "")})


def fork_and_iterate(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Start a process that ends by itself never, tell its number as progress, and iterate."""
    child = os.fork()
    while child == 0:
        signal.pause()
    context.progress(Progress(0.0, simulated=float(child), unit="process"))
    return iterate(task, inputs, context)


def hold_interpreter(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Compute for ever inside one call that lets no other Python thread run, as a compiled kernel may."""
    context.progress(Progress(0.0, simulated=float(os.getpid()), unit="process"))
    return Output(document={"largest": max(iter(int, 1))})  # int() is 0, always


def fill(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """A result of `nbytes` bytes from the task's key, after `cpu_s` seconds of computing in all."""
    until = time.thread_time() + float(task.parameters.get("cpu_s", 0.0))
    data = task.key.generator().integers(0, 256, int(task.parameters["nbytes"]), dtype=np.uint8)
    while time.thread_time() < until:
        pass
    return Output({"bytes": data})


def misbehave(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Do what no stage should, as `how` says."""
    context.progress(Progress(cast("float", np.float32(0.5)), conserved=float("nan"), tolerance=float("inf")))
    match task.parameters["how"]:
        case "exit":
            sys.exit(3)
        case "garble":
            raise OSError("cannot read \udcff.xyz")  # as Python writes a file's name that is no valid text
        case "not a number":
            return Output(document={"energy": float("nan")})
        case "objects":
            return Output({"x": np.array([None])})
        case _:
            return cast("Output", task.parameters["how"])  # which is text
