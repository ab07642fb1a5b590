"""Flower: rounds of its FedAvg over the bridge, beside the same tasks aggregated by our own rule; open and secure.

Two clients whose task gives back a model of 8 kB or 10 MB, on two worker processes of this machine (embedded) and on a
federation of two nodes, each a process, through mutual TLS with durable settings. The peer sends the very same tasks over
the same backend and takes `WeightedMean`: the ratio shows what Flower's layer costs. Rounds of secure aggregation (three
clients, four tasks each) stand beside open ones of the same clients. Needs the environment of `make flower`.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from benchmarks.measure import Result, compare
from manybody.core.protocols import Backend, Conserved, Context, MethodSpec, SystemSpec
from manybody.core.study import Realisation
from manybody.core.task import Output, Task
from manybody.store.objects import ObjectStore

SIZES = {"8kB": 1_000, "10MB": 1_250_000}  # values, float64
ROUNDS = {"8kB": 20, "10MB": 3}
TURNS = 3
TARGET = 0.5  # of the rate of rounds without Flower
SECURE_TARGET = 0.05  # of the rate of open rounds: four tasks one after the other instead of one, each synced to the node's disk


class Drift(MethodSpec):
    """A training that takes no time: the model, moved by a constant."""

    version: ClassVar[str] = "1"
    systems: ClassVar[tuple[str, ...]] = ()
    extent: ClassVar[str] = "steps"
    stages: ClassVar[Mapping[str, str]] = {"fit": "benchmarks.flower_bridge:drift"}

    name: Literal["benchmark-drift"] = "benchmark-drift"
    steps: int = 1

    def plan(self, system: SystemSpec, seed: int, repeat: int) -> tuple[tuple[Task, ...], tuple[Task, ...]]:
        """Nothing: no study runs it."""
        return (), ()

    def conserves(self, system: SystemSpec) -> tuple[Conserved, ...]:
        """Nothing."""
        return ()

    def twin(self, realisation: Realisation, factor: float) -> Task:
        """The same."""
        return realisation.tasks[-1]


def drift(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """The model, `by` further."""
    return Output({"w": inputs["model"].arrays["w"] + task.parameters["by"]}, {"samples": 1})


def run() -> list[Result]:
    """Rounds a second for every backend and size, measured by an interpreter that has Flower."""
    from manybody.testing.flower import REMEDY, interpreter

    python = interpreter()
    if python is None:
        raise RuntimeError(REMEDY)
    done = subprocess.run([python, "-m", "benchmarks.flower_bridge"], stdout=subprocess.PIPE, text=True, check=True)
    return [Result(**document) for document in json.loads(done.stdout.splitlines()[-1])]


def measure() -> list[Result]:
    """The same, in this interpreter."""
    from manybody.network.local import Embedded
    from manybody.testing.federation import Town

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        install(folder / "plugin", folder / "home")
        store = ObjectStore(folder / "objects")
        results = figures("embedded", stack.enter_context(Embedded(store.root, 2)), store, ())
        town = stack.enter_context(Town(folder / "town"))
        town.add_nodes("anna", "bert")
        return results + figures("federation", stack.enter_context(town.backend()), town.home.objects, ("anna", "bert"))


def install(plugin: Path, home: Path) -> None:
    """Make the method one of this process's catalog, and of those that it starts."""
    info = plugin / "benchmark_drift-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: benchmark-drift\nVersion: 1\n", encoding="utf-8")
    entry = "benchmark-drift = benchmarks.flower_bridge:Drift"
    (info / "entry_points.txt").write_text(f"[manybody.methods]\n{entry}\n", encoding="utf-8")
    paths = [str(plugin), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    os.environ |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "MANYBODY_HOME": str(home)}
    sys.path.insert(0, str(plugin))


def figures(network: str, backend: Backend, store: ObjectStore, nodes: tuple[str, ...]) -> list[Result]:
    """Open rounds beside our own rule, and secure rounds beside open ones, at each size."""
    from importlib.metadata import version

    from manybody.federate.flower import Client, SecureTraining, Training

    logging.getLogger("flwr").setLevel(logging.CRITICAL)  # it has set its own when it was imported
    flower = f"flwr {version('flwr')}"
    placed = [nodes[number % len(nodes)] if nodes else "" for number in range(3)]
    clients = [Client(f"client-{n}", parameters={"by": float(n)}, node=node) for n, node in enumerate(placed)]
    training = Training("benchmark-drift", stages={"train": "fit"})
    secure = SecureTraining(training, threshold=2)
    found = []
    for size, values in SIZES.items():
        two, three = (
            {"backend": backend, "store": store, "clients": clients[:n], "values": values, "count": ROUNDS[size]} for n in (2, 3)
        )
        ours, peer = partial(by_flower, training, **two), partial(by_rule, training, **two)
        found.append(compare(f"flower-{network}-{size}", "rounds/s", TARGET, ours, peer, f"own rule, {flower}", TURNS))
        ours, peer = partial(by_flower, secure, **three), partial(by_flower, training, **three)
        name = f"flower-secure-{network}-{size}"
        found.append(compare(name, "rounds/s", SECURE_TARGET, ours, peer, f"open rounds, {flower}", TURNS))
    return found


def by_flower(answering, backend: Backend, store: ObjectStore, clients, values: int, count: int) -> float:
    """Rounds a second of Flower's FedAvg."""
    from flwr.serverapp.strategy import FedAvg

    from manybody.federate.flower import FlowerGrid, record, tensors

    with FlowerGrid(backend, store, answering, clients) as grid:
        begin = time.perf_counter()
        result = FedAvg(fraction_evaluate=0.0).start(grid, record({"w": np.zeros(values)}), num_rounds=count)
        took = time.perf_counter() - begin
    mean = float(np.mean([client.parameters["by"] for client in clients]))
    assert np.allclose(tensors(result.arrays)["w"], count * mean)
    return count / took


def by_rule(training, backend: Backend, store: ObjectStore, clients, values: int, count: int) -> float:
    """Rounds a second of our weighted mean on the same tasks."""
    from manybody.federate.errands import Errands
    from manybody.federate.mean import WeightedMean
    from manybody.federate.tensors import Contribution, Round

    rule, errands = WeightedMean(weighting="equal"), Errands(backend)
    begin = time.perf_counter()
    state = rule.start({"w": np.zeros(values)})
    for _ in range(count):
        model = store.put(Output(state.parameters)).digest
        names = [uuid.uuid4().hex for _ in clients]
        for name, client in zip(names, clients, strict=True):
            task = Task(
                method=training.method, stage="fit", version=training.version, system={}, parameters=dict(client.parameters),
                inputs={"model": model},
            )  # fmt: skip
            errands.give(name, task, client.node)
        ended = errands.gather(names)
        sent = [Contribution.of(c.name, store.get(e.result).arrays) for c, e in zip(clients, ended, strict=True) if e is not None]
        state = rule.step(state, Round.of(sent, state.parameters))
    return count / (time.perf_counter() - begin)


if __name__ == "__main__":
    print(json.dumps([asdict(result) for result in measure()]))
