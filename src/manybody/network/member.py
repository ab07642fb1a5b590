"""A member of a gang: ``python -m manybody.network.member``. Computes its part of one task in step with its neighbours.

Members are linked in a ring by torch.distributed (gloo), or by MPI where they are launched under it. Neither link is
encrypted nor asks who is at the other end: for machines of one organisation only.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from datetime import timedelta
from importlib import import_module
from io import RawIOBase
from pathlib import Path
from typing import cast

import numpy as np

from manybody.core.errors import ManybodyError, TaskError
from manybody.core.protocols import GangStage, Ring
from manybody.core.task import Output, Progress, Task
from manybody.network.gang import LINK_BROKE, gang_stage
from manybody.network.messages import Failed, Finished, Progressed, Run, write
from manybody.network.worker import PROGRESS_INTERVAL_S, end_with_conductor, plain
from manybody.store.objects import ObjectStore

TRACEBACK_LINES = 12
WESTWARD, EASTWARD = 0, 1  # tags: in a ring of two both neighbours are the same member


class LinkError(ManybodyError):
    """A neighbour is gone, or did not answer in time: the cause lies elsewhere."""

    def __init__(self, error: Exception) -> None:
        super().__init__(f"{LINK_BROKE}: {error}")


class GlooRing:
    """A ring over torch.distributed's gloo (`core.protocols.Ring`): TCP between processes that meet at a URL."""

    def __init__(self, rank: int, size: int, meeting: str, timeout_s: float) -> None:
        # Slow to load, and not needed under MPI.
        import torch
        import torch.distributed as distributed

        self.rank, self.size = rank, size
        self._tensor, self._distributed = torch.from_numpy, distributed
        limit = timedelta(seconds=timeout_s)
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size, timeout=limit)

    def exchange(self, to_west: np.ndarray, to_east: np.ndarray, from_west: np.ndarray, from_east: np.ndarray) -> None:
        """Send to both neighbours and fill what they send here; `LinkError` where one is gone."""
        if self.size == 1:
            from_west[:], from_east[:] = to_east, to_west
            return
        west, east = (self.rank - 1) % self.size, (self.rank + 1) % self.size
        send, receive, tensor = self._distributed.isend, self._distributed.irecv, self._tensor
        try:
            under_way = [
                receive(tensor(from_west), west, tag=EASTWARD),
                receive(tensor(from_east), east, tag=WESTWARD),
                send(tensor(to_west), west, tag=WESTWARD),
                send(tensor(to_east), east, tag=EASTWARD),
            ]
            for transfer in under_way:
                transfer.wait()
        except RuntimeError as error:  # what gloo raises for every trouble with a connection
            raise LinkError(error) from error


class MpiRing:
    """A ring over MPI (`core.protocols.Ring`), for processes that an MPI launcher has started."""

    def __init__(self) -> None:
        try:
            from mpi4py import MPI
        except ImportError as error:
            raise TaskError(f"expected mpi4py in this environment; got: {error}. Install it, or use the gloo channel.") from error
        self._world = MPI.COMM_WORLD
        self.rank, self.size = self._world.rank, self._world.size

    def exchange(self, to_west: np.ndarray, to_east: np.ndarray, from_west: np.ndarray, from_east: np.ndarray) -> None:
        """Send to both neighbours and fill what they send here."""
        west, east = (self.rank - 1) % self.size, (self.rank + 1) % self.size
        self._world.Sendrecv(to_west, west, WESTWARD, from_east, east, WESTWARD)
        self._world.Sendrecv(to_east, east, EASTWARD, from_west, west, EASTWARD)

    def abort(self) -> None:
        """End all members: an MPI process that leaves alone would keep the others waiting."""
        self._world.Abort(1)


class Membership:
    """What a member is lent (`core.protocols.Context`): a core. The first one's progress stands for all."""

    device, threads = "cpu", 1

    def __init__(self, rank: int, report: RawIOBase) -> None:
        self._report = report if rank == 0 else None
        self._told = -float("inf")

    def progress(self, progress: Progress) -> None:
        """Tell whoever waits for the gang, unless it was told just now."""
        now = time.monotonic()
        if self._report is not None and now - self._told >= PROGRESS_INTERVAL_S:
            self._told = now
            self._report.write(write(Progressed(attempt="0", progress=plain(progress))))

    def resume(self) -> Output | None:
        """None: what a gang has done is kept when it is finished."""
        return None

    def keep(self, output: Output) -> None:
        """Keep nothing: a part alone is of no use."""


def load_stage(task: Task) -> GangStage:
    """The function itself."""
    module, _, name = gang_stage(task).partition(":")
    return cast("GangStage", getattr(import_module(module), name))


def serve(order: Run, ring: Ring, objects: ObjectStore, context: Membership) -> Finished | Failed:
    """Compute this member's part and leave it in the store. The time to load stage and inputs does not count."""
    start = time.perf_counter()
    try:
        stage = load_stage(order.task)
        inputs = {name: objects.get(digest) for name, digest in order.inputs.items()}
        start = time.perf_counter()
        stored = objects.put(stage(order.task, inputs, ring, context))
    except ManybodyError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - the boundary to foreign code: however a stage fails, it is told
        lines = traceback.format_exc().splitlines()[-TRACEBACK_LINES:]
        reason = "\n".join([f"{type(error).__name__}: {error}", *lines])
    else:
        seconds = time.perf_counter() - start
        return Finished(attempt=str(ring.rank), result=stored.digest, nbytes=stored.nbytes, seconds=seconds)
    return Failed(attempt=str(ring.rank), reason=reason, seconds=time.perf_counter() - start)


def main() -> None:
    """Compute one part; the report goes to standard output, whatever the stage prints to standard error."""
    parser = argparse.ArgumentParser(description="A member of a gang; started by one, or once a process by `mpirun`.")
    parser.add_argument("--order", type=Path, required=True, help="file with the order, JSON")
    parser.add_argument("--objects", type=Path, required=True, help="folder of the object store")
    parser.add_argument("--rank", type=int, help="number of this member; not under MPI")
    parser.add_argument("--size", type=int, help="number of members; not under MPI")
    parser.add_argument("--meeting", help="URL where members meet, file:// or tcp://; without it they meet by MPI")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds after which a silent neighbour is given up")
    options = parser.parse_args()
    report = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    order = Run.model_validate_json(options.order.read_bytes())
    ring: GlooRing | MpiRing
    if options.meeting is None:
        ring = MpiRing()
    else:
        end_with_conductor()
        ring = GlooRing(options.rank, options.size, options.meeting, options.timeout)
    outcome = serve(order, ring, ObjectStore(options.objects), Membership(ring.rank, report))
    report.write(write(outcome))
    if isinstance(outcome, Failed):
        if isinstance(ring, MpiRing):
            ring.abort()
        sys.exit(1)


if __name__ == "__main__":
    main()
