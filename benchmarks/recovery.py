"""Recovery: seconds from the kill of what runs a task until the task runs elsewhere, on each backend and on bare Dask.

Two nodes with one process each; the one that has told progress of the task is killed without warning (kill -9), and whoever
asked submits the task again once it hears of the loss, as a run does. Measured until the first progress of the new attempt;
the other node is idle meanwhile and warm. Embedded: the worker process is killed. Cluster: the Dask worker. Federation: the
node, whose lease has to run out first, because a node that cannot be heard may just as well be cut off for a moment: 15 s,
unless `manybody network up --lease` says otherwise. The peer redoes a task by itself, on the same scheduler and workers as
the cluster's. No target is set.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path

from distributed import Client, get_worker

from benchmarks.measure import Result, compare
from manybody.core.protocols import Backend, Event
from manybody.core.task import Task
from manybody.network.cluster import Cluster
from manybody.network.cluster_local import LocalCluster
from manybody.network.federation.gateway import Settings
from manybody.network.local import Embedded
from manybody.testing.federation import Town
from manybody.testing.methods import installed, task

NODES = 2
LOOK_S = 0.002
ROUNDS = 2  # after one to warm up


def run() -> list[Result]:
    """Each backend beside bare Dask."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ.update(installed(folder / "plugin"))
        os.environ["PYTHONPATH"] += os.pathsep + str(Path(__file__).parents[1])  # where workers find the peer's function
        machines = stack.enter_context(LocalCluster(folder / "cluster", nodes=NODES))
        bare = Bare(machines, stack.enter_context(Client(machines.address, security=machines.security)), folder)  # type: ignore[no-untyped-call]
        cluster = stack.enter_context(Cluster(machines.address, folder / "objects", machines.security, NODES))
        embedded = stack.enter_context(Embedded(folder / "objects", NODES))
        town = stack.enter_context(Town(folder / "federation", Settings().lease_s))
        town.add_nodes("node-1", "node-2")
        federation = stack.enter_context(town.backend())
        ours: dict[str, Callable[[], float]] = {
            "embedded": partial(recovery, embedded, kill_process),
            "cluster": partial(on_cluster, machines, partial(recovery, cluster, partial(kill_machine, machines))),
            "federation": partial(on_federation, town, partial(recovery, federation, partial(kill_node, town))),
        }
        return [
            compare(f"recovery-{name}", "s", 0.0, once, bare.recovery, f"Dask {version('distributed')}", ROUNDS, True)
            for name, once in ours.items()
        ]


_NUMBERS = count()


def recovery(backend: Backend, kill: Callable[[Event], None]) -> float:
    """Seconds from the kill of a task's worker to the first progress of the next attempt."""
    warm(backend)
    wanted = task("hold").model_copy(update={"seed": next(_NUMBERS)})
    attempt, killed = submit(backend, wanted), 0.0
    while True:
        for event in backend.events():
            if event.kind == "progress" and not killed:
                killed = time.perf_counter()
                kill(event)
            elif event.kind == "lost":
                attempt = submit(backend, wanted)
            elif event.kind == "progress" and event.attempt == attempt:
                seconds = time.perf_counter() - killed
                backend.cancel(attempt)
                return seconds


def warm(backend: Backend) -> None:
    """Wait until there are as many nodes as there should be, and all have computed something."""
    while sum(node.workers for node in backend.nodes()) < NODES:
        time.sleep(LOOK_S)
    seen: set[str] = set()
    while len(seen) < NODES:
        for _ in range(NODES):
            submit(backend, task("fill", cpu_s=0.2, nbytes=0).model_copy(update={"seed": next(_NUMBERS)}))
        seen |= {event.worker for event in backend.events() if event.kind == "finished"}


def submit(backend: Backend, wanted: Task) -> str:
    """Queue a new attempt; its name."""
    attempt = f"attempt-{next(_NUMBERS)}"
    backend.submit(attempt, wanted, {})
    return attempt


def kill_process(event: Event) -> None:
    """Kill the process that tells its number as progress."""
    assert event.progress is not None
    os.kill(int(event.progress.simulated), signal.SIGKILL)


def kill_machine(machines: LocalCluster, event: Event) -> None:
    """Kill a Dask worker."""
    machines.send(event.worker.partition("/")[0], signal.SIGKILL)


def kill_node(town: Town, event: Event) -> None:
    """Kill a node of a federation."""
    town.nodes[event.worker.partition("/")[0]].kill()


def on_cluster(machines: LocalCluster, once: Callable[[], float]) -> float:
    """Measure, then start another Dask worker in place of the one that was killed."""
    seconds = once()
    for name in [name for name, process in machines.processes.items() if process.poll() is not None]:
        machines.start_node(name)
    return seconds


def on_federation(town: Town, once: Callable[[], float]) -> float:
    """Measure, then start the node that was killed again."""
    seconds = once()
    for name in [name for name, process in town.nodes.items() if process.status is not None]:
        town.start_node(name).wait_for("is ready")
    return seconds


class Bare:
    """Dask alone: a killed worker's task runs again on another, without anybody's doing."""

    def __init__(self, machines: LocalCluster, client: Client, folder: Path) -> None:
        self._machines, self._client, self._folder = machines, client, folder

    def recovery(self) -> float:
        """Seconds from the kill of a task's worker to the task's next start."""
        self._client.wait_for_workers(NODES)
        diary = self._folder / f"diary-{next(_NUMBERS)}"
        diary.touch()
        future = self._client.submit(hold, str(diary), pure=False)
        [first] = self._starts(diary, 1)
        killed = time.perf_counter()
        self._machines.send(first, signal.SIGKILL)
        self._starts(diary, 2)
        seconds = time.perf_counter() - killed
        diary.unlink()
        future.result()
        self._machines.start_node(first)
        return seconds

    def _starts(self, diary: Path, number: int) -> list[str]:
        """The workers that have started the task, once there are so many."""
        while len(found := diary.read_text(encoding="utf-8").splitlines()) < number:
            time.sleep(LOOK_S)
        return found


def hold(diary: str) -> None:
    """Enter the worker's name into a file; go on until it is removed."""
    path = Path(diary)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{get_worker().name}\n")
    while path.exists():
        time.sleep(LOOK_S)
