"""Cluster: tasks a second and one at a time, beside bare Dask on the same scheduler and workers, through the same TLS.

Ours: the cluster backend, whose tasks run in processes of their own on the nodes; each result is on the disks of node
and caller, synced, and its digest verified, before its task counts as finished. The peer: the same stage as a function in
the worker's thread, its result in the memory of the caller: nothing is kept or checked.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from itertools import count
from pathlib import Path

import numpy as np
from distributed import Client, as_completed

from benchmarks.measure import Result, compare
from manybody.core.task import Task
from manybody.network.cluster import Cluster
from manybody.network.cluster_local import LocalCluster
from manybody.testing.methods import installed, task

NODES = 2
CPU_S, NBYTES = 0.005, 1_000_000  # of a task that computes
LARGE, EMPTY, ALONE = 200, 300, 60  # tasks a round
ROUNDS = 5
TARGET = 0.5
UNIT = "tasks/s"


def run() -> list[Result]:
    """A full queue of computing tasks and of empty ones, then each one at a time."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ.update(installed(folder / "plugin"))
        os.environ["PYTHONPATH"] += os.pathsep + str(Path(__file__).parents[1])  # where workers find the peer's function
        machines = stack.enter_context(LocalCluster(folder / "cluster", nodes=NODES))
        ours = Ours(stack.enter_context(Cluster(machines.address, folder / "objects", machines.security, NODES)))
        bare = Bare(stack.enter_context(Client(machines.address, security=machines.security)))  # type: ignore[no-untyped-call]
        computing, empty = (CPU_S, NBYTES), (0.0, 0)
        kinds = {
            "cluster-1MB-results": (ours.queued, bare.queued, computing, LARGE),
            "cluster-empty-tasks": (ours.queued, bare.queued, empty, EMPTY),
            "cluster-1MB-one-at-a-time": (ours.alone, bare.alone, computing, ALONE),
            "cluster-empty-one-at-a-time": (ours.alone, bare.alone, empty, ALONE),
        }
        return [
            compare(
                name, UNIT, TARGET, rate(mine, *task, number), rate(theirs, *task, number), f"Dask {version('distributed')}",
                ROUNDS,
            )
            for name, (mine, theirs, task, number) in kinds.items()
        ]  # fmt: skip


def rate(compute: Callable[[float, int, int], int], cpu_s: float, nbytes: int, number: int) -> Callable[[], float]:
    """A function that computes `number` tasks and gives their rate, per second."""

    def once() -> float:
        start = time.perf_counter()
        received = compute(cpu_s, nbytes, number)
        seconds = time.perf_counter() - start
        if received != number:
            raise RuntimeError(f"expected {number} results; got {received}")
        return number / seconds

    return once


class Ours:
    """The cluster backend. Both methods compute `number` tasks and return how many results came."""

    def __init__(self, backend: Cluster) -> None:
        self._backend, self._seeds = backend, count()

    def queued(self, cpu_s: float, nbytes: int, number: int) -> int:
        """All at once."""
        for _ in range(number):
            self._submit(cpu_s, nbytes)
        return sum(event.kind == "finished" for event in self._backend.events())

    def alone(self, cpu_s: float, nbytes: int, number: int) -> int:
        """One after the other."""
        return sum(self.queued(cpu_s, nbytes, 1) for _ in range(number))

    def _submit(self, cpu_s: float, nbytes: int) -> None:
        seed = next(self._seeds)
        self._backend.submit(f"attempt-{seed}", filling(cpu_s, nbytes, seed), {})


class Bare:
    """A client of Dask, and nothing else."""

    def __init__(self, client: Client) -> None:
        self._client, self._seeds = client, count()

    def queued(self, cpu_s: float, nbytes: int, number: int) -> int:
        """All at once."""
        wanted = [filling(cpu_s, nbytes, next(self._seeds)).model_dump_json() for _ in range(number)]
        futures = self._client.map(fill, wanted, pure=False)
        return sum(result.nbytes == nbytes for _, result in as_completed(futures, with_results=True))  # type: ignore[no-untyped-call]

    def alone(self, cpu_s: float, nbytes: int, number: int) -> int:
        """One after the other."""
        return sum(self.queued(cpu_s, nbytes, 1) for _ in range(number))


def filling(cpu_s: float, nbytes: int, seed: int) -> Task:
    """A task that computes for `cpu_s` and returns `nbytes`."""
    return task("fill", cpu_s=cpu_s, nbytes=nbytes).model_copy(update={"seed": seed})


def fill(document: str) -> np.ndarray:
    """The same in a worker of bare Dask: the array itself."""
    from manybody.testing import methods

    found: np.ndarray = methods.fill(Task.model_validate_json(document), {}, None).arrays["bytes"]  # type: ignore[arg-type]
    return found
