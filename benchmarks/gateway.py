"""Gateway: tasks a second through a federation of two nodes, and one at a time, beside a queue behind bare FastAPI.

Everything is a process of its own on this machine and goes through mutual TLS 1.3. Ours: the gateway over the ledger, with
a sync on every commit (`synchronous=FULL`), leases, processes for tasks, results verified, signed, and synced to disk. The
peer is `benchmarks.bare_queue`, which says what it leaves out. Empty tasks are measured beside their limit too.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.bare_queue import BareQueue
from benchmarks.filling import KINDS, UNIT, rate
from benchmarks.measure import Result, beside_limit, compare
from manybody.core.task import Task
from manybody.network.federation.backend import Federation
from manybody.testing.federation import Town
from manybody.testing.methods import installed

NODES = 2
ROUNDS = 5
LEAST = 100.0  # empty tasks a second


def run() -> list[Result]:
    """A full queue of computing tasks and of empty ones, then each one at a time."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ.update(installed(folder / "plugin"))
        town = stack.enter_context(Town(folder))
        town.add_nodes(*(f"node-{number}" for number in range(NODES)))
        ours = Ours(stack.enter_context(town.backend()))
        bare = stack.enter_context(BareQueue(folder / "bare", NODES))
        results = {
            name: compare(
                f"gateway-{name}", UNIT, kind.target, partial(rate, ours.compute, kind), partial(rate, bare.compute, kind),
                bare.version, ROUNDS,
            )
            for name, kind in KINDS.items()
        }  # fmt: skip
        return [*results.values(), beside_limit(results["empty-tasks"], "gateway-empty-tasks-a-second", LEAST)]


class Ours:
    """The federation's backend."""

    def __init__(self, backend: Federation) -> None:
        self._backend, self._numbers = backend, count()

    def compute(self, tasks: list[Task]) -> int:
        """Queue tasks and wait for all of them; returns how many have finished."""
        for each in tasks:
            self._backend.submit(f"attempt-{next(self._numbers)}", each, {})
        return sum(event.kind == "finished" for event in self._backend.events())
