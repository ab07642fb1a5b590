"""Cluster: tasks a second and one at a time, beside bare Dask on the same scheduler and workers, through the same TLS.

Ours: the cluster backend, whose tasks run in processes of their own on the nodes; each result is on the disks of node
and caller, synced, and its digest verified, before its task counts as finished. The peer: the same stage as a function in
the worker's thread, its result in the memory of the caller: nothing is kept or checked.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path

from distributed import Client, as_completed

from benchmarks.filling import KINDS, UNIT, fill, rate
from benchmarks.measure import Result, compare
from manybody.core.task import Task
from manybody.network.cluster import Cluster
from manybody.network.cluster_local import LocalCluster
from manybody.testing.methods import installed

NODES = 2
ROUNDS = 5


def run() -> list[Result]:
    """A full queue of computing tasks and of empty ones, then each one at a time."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ.update(installed(folder / "plugin"))
        os.environ["PYTHONPATH"] += os.pathsep + str(Path(__file__).parents[1])  # where workers find the peer's function
        machines = stack.enter_context(LocalCluster(folder / "cluster", nodes=NODES))
        ours = Ours(stack.enter_context(Cluster(machines.address, folder / "objects", machines.security, NODES)))
        bare = Bare(stack.enter_context(Client(machines.address, security=machines.security)))  # type: ignore[no-untyped-call]
        return [
            compare(
                f"cluster-{name}", UNIT, kind.target, partial(rate, ours.compute, kind), partial(rate, bare.compute, kind),
                f"Dask {version('distributed')}", ROUNDS,
            )
            for name, kind in KINDS.items()
        ]  # fmt: skip


class Ours:
    """The cluster backend."""

    def __init__(self, backend: Cluster) -> None:
        self._backend, self._numbers = backend, count()

    def compute(self, tasks: list[Task]) -> int:
        """Queue tasks and wait for all of them; returns how many have finished."""
        for each in tasks:
            self._backend.submit(f"attempt-{next(self._numbers)}", each, {})
        return sum(event.kind == "finished" for event in self._backend.events())


class Bare:
    """A client of Dask, and nothing else."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def compute(self, tasks: list[Task]) -> int:
        """Map the stage over tasks and gather all results; returns how many have come."""
        futures = self._client.map(fill, tasks, pure=False)
        return len(list(as_completed(futures, with_results=True)))  # type: ignore[no-untyped-call]
