"""A cluster whose workers are jobs of a batch system, Slurm or PBS, written and submitted by dask-jobqueue.

The scheduler runs in this process, on the login node or in a job of its own; the jobs come when the batch system starts
them, and whoever runs a study takes them in as they come.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dask_jobqueue.core import Job, JobQueueCluster
from dask_jobqueue.pbs import PBSCluster, PBSJob
from dask_jobqueue.slurm import SLURMCluster, SLURMJob

from manybody.core.errors import InputError, Problem
from manybody.network.cluster_security import security_of, write_certificates

System = Literal["slurm", "pbs"]
CLUSTERS: dict[System, type[JobQueueCluster]] = {"slurm": SLURMCluster, "pbs": PBSCluster}
JOBS: dict[System, type[Job]] = {"slurm": SLURMJob, "pbs": PBSJob}
GIB = 1 << 30


@dataclass(frozen=True)
class Jobs:
    """What to ask a batch system for: `count` jobs, each of `cores`, `memory_gib` and `gpus`, for `walltime` (HH:MM:SS).

    `setup` are lines of shell before the worker starts (modules to load, an environment to activate); `extra` goes to
    the batch system as it is; `interface` is the network that nodes and scheduler share, such as ``ib0``.
    """

    count: int = 1
    cores: int = 1
    memory_gib: float = 4.0
    gpus: int = 0
    walltime: str = "01:00:00"
    queue: str | None = None
    account: str | None = None
    interface: str | None = None
    setup: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    python: str = "python"

    def __post_init__(self) -> None:
        """Refuse what no batch system grants, before one is asked."""
        for name, least in (("count", 1), ("cores", 1), ("gpus", 0)):
            if getattr(self, name) < least:
                raise InputError(Problem(f"jobs.{name}", f"at least {least}", str(getattr(self, name)), "Raise it."))
        if not self.memory_gib > 0:
            raise InputError(Problem("jobs.memory_gib", "a size above 0", str(self.memory_gib), "Give it in GiB."))

    @property
    def resources(self) -> str:
        """What each worker declares to Dask, so that tasks are placed by it."""
        found = {"cores": self.cores, "gpu": self.gpus, "memory": int(self.memory_gib * GIB)}
        return ",".join(f"{name}={amount}" for name, amount in found.items() if amount)


def job_script(jobs: Jobs, address: str, tls: Path, system: System = "slurm") -> str:
    """The script of one job: what the batch system is asked for, and the Dask worker that connects to `address`."""
    job = JOBS[system](scheduler=address, name="manybody-worker", **_options(jobs, tls, system))
    return str(job.job_script())  # type: ignore[no-untyped-call]  # the package's types end here


def start(jobs: Jobs, tls: Path, system: System = "slurm") -> JobQueueCluster:
    """Start a scheduler in this process and submit the jobs; both end when it is closed. Its address: `scheduler_address`.

    `tls` is a folder that the machines of the jobs see, under the same path; certificates are made there if there are none.
    """
    write_certificates(tls)
    # Without a dashboard's port of its own, so that several people can share a login node.
    scheduler = {"protocol": "tls://", "dashboard_address": "127.0.0.1:0"}
    cluster = CLUSTERS[system](scheduler_options=scheduler, **_options(jobs, tls, system))
    cluster.scale(jobs=jobs.count)  # type: ignore[no-untyped-call]  # as above
    return cluster


def _options(jobs: Jobs, tls: Path, system: System) -> dict[str, Any]:
    """The same wishes in the words of dask-jobqueue: one Dask worker a job, which has all of its cores."""
    return {
        "cores": jobs.cores,
        "processes": 1,
        "memory": f"{jobs.memory_gib:g} GiB",
        "walltime": jobs.walltime,
        "queue": jobs.queue,
        "account": jobs.account,
        "interface": jobs.interface,
        "protocol": "tls://",
        "security": security_of(tls),
        "python": shlex.quote(jobs.python),
        "job_name": "manybody",
        "job_script_prologue": list(jobs.setup),
        "job_extra_directives": [*_gpus(jobs, system), *jobs.extra],
        "worker_extra_args": ["--resources", jobs.resources],
        "death_timeout": 300,
    } | ({"resource_spec": _pbs_resources(jobs)} if system == "pbs" else {})


def _gpus(jobs: Jobs, system: System) -> list[str]:
    return [f"--gres=gpu:{jobs.gpus}"] if jobs.gpus and system == "slurm" else []


def _pbs_resources(jobs: Jobs) -> str:
    gpus = f":ngpus={jobs.gpus}" if jobs.gpus else ""
    return f"select=1:ncpus={jobs.cores}{gpus}:mem={int(jobs.memory_gib * 1024)}MB"
