"""A cluster whose workers are jobs of a batch system, Slurm or PBS, written and submitted by dask-jobqueue.

The scheduler runs in this process, on the login node or in a job of its own; the jobs come when the batch system starts
them, and whoever runs a study takes them in as they come.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Literal

import yaml
from dask_jobqueue.core import Job, JobQueueCluster
from dask_jobqueue.pbs import PBSCluster, PBSJob
from dask_jobqueue.slurm import SLURMCluster, SLURMJob
from pydantic import Field, ValidationError

from manybody.core.errors import InputError, Problem
from manybody.core.spec import Frozen
from manybody.network.cluster_security import security_of, write_certificates

System = Literal["slurm", "pbs"]
CLUSTERS: dict[System, type[JobQueueCluster]] = {"slurm": SLURMCluster, "pbs": PBSCluster}
JOBS: dict[System, type[Job]] = {"slurm": SLURMJob, "pbs": PBSJob}
GIB = 1 << 30


class Jobs(Frozen):
    """What to ask a batch system for: `count` jobs, each with one Dask worker. As a file it is YAML, read by `read_jobs`."""

    system: System = Field("slurm", description="the batch system")
    count: int = Field(1, ge=1, description="how many jobs")
    cores: int = Field(1, ge=1, description="cores of each job")
    memory_gib: float = Field(4.0, gt=0, description="memory of each job, GiB")
    gpus: int = Field(0, ge=0, description="GPUs of each job")
    walltime: str = Field("01:00:00", pattern=r"^(\d+-)?\d+:\d\d:\d\d$", description="longest time of a job, HH:MM:SS")
    queue: str | None = Field(None, description="partition or queue")
    account: str | None = Field(None, description="whose allocation")
    interface: str | None = Field(None, description="network that nodes and scheduler share, such as ib0")
    setup: tuple[str, ...] = Field((), description="lines of shell before the worker starts: modules, environment")
    extra: tuple[str, ...] = Field((), description="directives for the batch system, as they are")
    python: str = Field("python", min_length=1, description="Python of the environment that has manybody, on the nodes")

    @property
    def resources(self) -> str:
        """What each worker declares to Dask, so that tasks are placed by it."""
        found = {"cores": self.cores, "gpu": self.gpus, "memory": int(self.memory_gib * GIB)}
        return ",".join(f"{name}={amount}" for name, amount in found.items() if amount)


def read_jobs(path: Path) -> Jobs:
    """Jobs from a YAML file; `InputError` names everything that is wrong with it."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Jobs.model_validate(document or {})
    except ValidationError as error:
        fields = ", ".join(Jobs.model_fields)
        problems = [
            Problem(f"{path}: {'.'.join(map(str, fault['loc']))}", fault["msg"], repr(fault["input"]), f"Fields: {fields}.")
            for fault in error.errors()
        ]
        raise InputError(*problems) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(Problem(str(path), "a YAML file of jobs", str(error), "See docs/slurm.md for one.")) from error


def job_script(jobs: Jobs, address: str, tls: Path) -> str:
    """The script of one job: what the batch system is asked for, and the Dask worker that connects to `address`."""
    job = JOBS[jobs.system](scheduler=address, name="manybody-worker", **_options(jobs, tls))
    return str(job.job_script())  # type: ignore[no-untyped-call]  # the package's types end here


def start(jobs: Jobs, tls: Path, port: int = 0) -> JobQueueCluster:
    """Start a scheduler in this process and submit the jobs; both end when it is closed. Its address: `scheduler_address`.

    `tls` is a folder that the machines of the jobs see, under the same path; certificates are made there if there are none.
    """
    write_certificates(tls)
    # Without a dashboard's port of its own, so that several people can share a login node.
    scheduler = {"protocol": "tls://", "dashboard_address": "127.0.0.1:0", "port": port}
    cluster = CLUSTERS[jobs.system](scheduler_options=scheduler, **_options(jobs, tls))
    cluster.scale(jobs=jobs.count)  # type: ignore[no-untyped-call]  # as above
    return cluster


def _options(jobs: Jobs, tls: Path) -> dict[str, Any]:
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
        "job_extra_directives": [*_gpus(jobs), *jobs.extra],
        "worker_extra_args": ["--resources", jobs.resources],
        "death_timeout": 300,
    } | ({"resource_spec": _pbs_resources(jobs)} if jobs.system == "pbs" else {})


def _gpus(jobs: Jobs) -> list[str]:
    return [f"--gres=gpu:{jobs.gpus}"] if jobs.gpus and jobs.system == "slurm" else []


def _pbs_resources(jobs: Jobs) -> str:
    gpus = f":ngpus={jobs.gpus}" if jobs.gpus else ""
    return f"select=1:ncpus={jobs.cores}{gpus}:mem={int(jobs.memory_gib * 1024)}MB"
