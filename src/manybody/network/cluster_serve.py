"""Keep a cluster up until interrupted: here, or with workers from a batch system."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

from manybody.network.addresses import TLS_FOLDER
from manybody.network.cluster_local import LocalCluster
from manybody.network.messages import BackendError
from manybody.store.home import Home
from manybody.store.provenance import usable_cores

LOOK_S = 1.0  # between looks whether the scheduler still runs


def serve(home: Home, host: str, port: int, workers: int | None, jobs: Path | None, announce: Callable[[str], None]) -> None:
    """Start a scheduler with one Dask worker on this machine, of as many `workers` as it has cores; or with `jobs`.

    Certificates lie in the home's folder `tls`: machines that have a copy of it belong to the cluster. `announce` is
    told the address. Returns when interrupted, after ending all.
    """
    tls = home.path / TLS_FOLDER
    if jobs is not None:
        from manybody.network.cluster_batch import read_jobs, start

        with start(read_jobs(jobs), tls, port) as batch:
            announce(str(batch.scheduler_address))
            _wait(lambda: False)  # it lives in this process
    else:
        with LocalCluster(home.path / "cluster", 1, workers or usable_cores(), tls, host, port) as cluster:
            announce(cluster.address)
            _wait(lambda: cluster.processes["scheduler"].poll() is not None)


def _wait(fails: Callable[[], bool]) -> None:
    """Until somebody wants an end, or the scheduler has failed."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not stop.wait(LOOK_S):
            if fails():
                raise BackendError("The scheduler has ended. Its log lies in the folder `cluster` of the home; start it again.")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
