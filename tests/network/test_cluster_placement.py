"""Where tasks go, what differs between nodes, what a node keeps: without any process."""

from __future__ import annotations

import os
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manybody.core.errors import InputError
from manybody.core.task import Output, Task
from manybody.network.cluster_agent import Cache
from manybody.network.cluster_batch import Jobs, System, job_script, read_jobs
from manybody.network.cluster_placement import Demand, Node, demand, mismatches, place
from manybody.network.cluster_security import write_certificates
from manybody.network.federation.blobs import RefusedBlobError, keep
from manybody.network.federation.protocol import Installed, Report
from manybody.store.objects import ObjectStore
from manybody.testing.methods import task

ONE = Demand({"cores": 1.0})
NOWHERE: frozenset[str] = frozenset()


def report(**provenance: str) -> Report:
    versions = {"manybody": "1", "python": "3.11.7", "numpy": "2.0", "numba": "0.60", "torch": "2.13"} | provenance
    methods = {"molecular-dynamics": Installed(version="1", stages=("produce",))}
    return Report(workers=1, threads=1, memory_bytes=1 << 30, methods=methods, provenance=dict(versions))


def node(name: str, cores: int = 1, **declared: float) -> Node:
    return Node(name, f"tls://{name}:1", name, cores, 0, declared, report())


def asked(**parameters: Any) -> Task:
    return task("add", terms=[1.0]).model_copy(update={"parameters": parameters})


def test_demand_follows_from_the_task() -> None:
    assert demand(asked(), 2) == Demand({"cores": 2.0})
    assert demand(asked(device="cpu"), 1) == ONE
    assert demand(asked(device="cuda:0", memory_bytes=5 << 30), 1) == Demand({"cores": 1.0, "gpu": 1.0, "memory": float(5 << 30)})


def test_tasks_go_where_there_is_room() -> None:
    """As many as there are cores, the emptiest node first; then they wait."""
    nodes = [node("a", cores=1), node("b", cores=2)]
    placed = []
    for number in range(4):
        chosen = place(ONE, (), NOWHERE, nodes)
        placed.append(chosen and chosen.name)
        if chosen:
            chosen.taken[f"attempt-{number}"] = ONE
    assert placed == ["a", "b", "b", None]
    del nodes[0].taken["attempt-0"]
    assert place(ONE, (), NOWHERE, nodes) is nodes[0]


def test_short_tasks_are_sent_ahead() -> None:
    """For 0.1 s, once the node's tasks are known to be shorter; a long one ends that."""
    only = node("a")
    only.taken["running"] = ONE
    assert place(ONE, (), NOWHERE, [only]) is None
    only.note(0.04)
    for number in range(2):
        assert place(ONE, (), NOWHERE, [only]) is only
        only.taken[f"ahead-{number}"] = ONE
    assert place(ONE, (), NOWHERE, [only]) is None
    only.taken.popitem()
    only.note(60.0)
    assert place(ONE, (), NOWHERE, [only]) is None


def test_gpu_and_memory_must_be_declared_and_free() -> None:
    plain, large = node("plain", cores=8), node("large", cores=8, gpu=1, memory=16e9)
    wanted = Demand({"cores": 1.0, "gpu": 1.0, "memory": 10e9})
    assert not plain.could_run(wanted)
    assert place(wanted, (), NOWHERE, [plain, large]) is large
    large.taken["other"] = wanted
    assert place(wanted, (), NOWHERE, [plain, large]) is None
    assert place(ONE, (), NOWHERE, [plain, large]) is plain
    assert large.resources(wanted) == {"gpu": 1.0, "memory": 10e9}  # Dask refuses what a worker has not declared
    assert plain.resources(wanted) == {}


def test_tasks_follow_their_inputs() -> None:
    near, far = node("z-near"), node("a-far")
    near.holds = {"x", "y"}
    assert place(ONE, ["x", "y"], NOWHERE, [far, near]) is near
    assert place(ONE, ["q"], NOWHERE, [far, near]) is far


def test_replicas_keep_off_whole_nodes_while_there_are_others() -> None:
    """They wait for another node rather than share one; only where there is none does a fresh process have to do."""
    first, second = node("tls://one:1"), node("tls://two:2")
    avoid = frozenset({"tls://one:1/1:local-7-1"})
    assert place(ONE, (), avoid, [first, second]) is second
    second.taken["other"] = ONE
    assert place(ONE, (), avoid, [first, second]) is None
    assert place(ONE, (), avoid, [first]) is first
    assert place(ONE, (), avoid | {"tls://one:1"}, [first]) is None, "named itself, it never gets it"


def test_mismatches_are_named() -> None:
    assert mismatches("n", report(host="elsewhere"), report(host="here")) == []
    assert mismatches("n", report(numpy="1.26"), report()) == ["n has numpy 1.26, here 2.0"]
    older = report().model_copy(update={"methods": {"molecular-dynamics": Installed(version="0", stages=())}})
    assert mismatches("n", older, report()) == ["n has method molecular-dynamics 0, here 1"]
    fewer = report().model_copy(update={"methods": {}})
    assert mismatches("n", fewer, report()) == []  # a task of a method that is missing fails there, and says so


def test_cache_forgets_what_was_used_least_lately_but_nothing_in_use(tmp_path: Path) -> None:
    size = ObjectStore(tmp_path / "other").put(Output({"x": np.zeros(1000)})).nbytes
    cache = Cache(tmp_path / "cache", limit=2 * size)
    stored = [cache.objects.put(Output({"x": np.full(1000, float(value))})).digest for value in range(4)]
    for age, digest in enumerate(stored):
        os.utime(cache.objects.path(digest), (age, age))
    with cache.holding([stored[0], "f" * 64]) as missing:
        assert missing == ("f" * 64,)
        os.utime(cache.objects.path(stored[0]), (0, 0))
        cache.trim(4 * size)
    assert [cache.objects.has(digest) for digest in stored] == [True, False, False, True]
    cache.trim(0)
    assert [cache.objects.has(digest) for digest in stored] == [True, False, False, True]


def test_bytes_that_are_not_the_result_they_are_called_are_refused(tmp_path: Path) -> None:
    source, target = ObjectStore(tmp_path / "source"), ObjectStore(tmp_path / "target")
    stored = source.put(Output({"x": np.arange(100.0)}))
    data = source.path(stored.digest).read_bytes()
    with pytest.raises(RefusedBlobError, match=stored.digest):
        keep(target, stored.digest, data[:-1] + b"?")
    assert not target.has(stored.digest)
    assert keep(target, stored.digest, data) == stored.nbytes
    assert np.array_equal(target.get(stored.digest).arrays["x"], np.arange(100.0))


JOBS = Jobs(
    count=4, cores=16, memory_gib=64, gpus=2, walltime="02:30:00", queue="gpu", account="physics",
    setup=("module load python",), extra=("--constraint=a100",), python="/opt/my env/bin/python",
)  # fmt: skip


@pytest.mark.parametrize(
    ("system", "directives"),
    [
        (
            "slurm",
            ["-J manybody", "-p gpu", "-A physics", "-n 1", "--cpus-per-task=16", "--mem=64G", "-t 02:30:00", "--gres=gpu:2",
             "--constraint=a100"],
        ),
        ("pbs", ["-N manybody", "-q gpu", "-A physics", "-l select=1:ncpus=16:ngpus=2:mem=65536MB", "-l walltime=02:30:00",
                 "--constraint=a100"]),
    ],
)  # fmt: skip
def test_job_script_asks_for_what_was_wished(system: System, directives: list[str], tmp_path: Path) -> None:
    """One worker a job with all of its cores, declared to Dask, through TLS."""
    tls = tmp_path / "tls"
    write_certificates(tls)
    lines = job_script(JOBS.model_copy(update={"system": system}), "tls://10.0.0.1:8786", tls).splitlines()
    mark = {"slurm": "#SBATCH ", "pbs": "#PBS "}[system]
    assert [line.removeprefix(mark) for line in lines if line.startswith(mark)] == directives
    assert "module load python" in lines
    command = shlex.split(next(line for line in lines if "dask_worker" in line))
    assert command[:4] == ["/opt/my env/bin/python", "-m", "distributed.cli.dask_worker", "tls://10.0.0.1:8786"]
    options = dict(pairwise(command))
    assert options["--nthreads"] == "16"
    assert options["--resources"] == f"cores=16,gpu=2,memory={64 << 30}"
    assert [options[f"--tls-{name}"] for name in ("ca-file", "cert", "key")] == [
        str(tls / name) for name in ("ca.pem", "cert.pem", "key.pem")
    ]


@pytest.mark.parametrize("wish", ["count: 0", "cores: 0", "gpus: -1", "memory_gib: 0", "walltime: soon", "walls: 1"])
def test_impossible_jobs_are_refused(wish: str, tmp_path: Path) -> None:
    """The file, the field, what was expected and what came are named."""
    path = tmp_path / "jobs.yaml"
    path.write_text(wish, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_jobs(path)
    [problem] = caught.value.problems
    assert problem.where == f"{path}: {wish.partition(':')[0]}"


def test_jobs_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "jobs.yaml"
    path.write_text(JOBS.model_dump_json(), encoding="utf-8")  # JSON is YAML
    assert read_jobs(path) == JOBS
    with pytest.raises(InputError, match="a YAML file of jobs"):
        read_jobs(tmp_path / "absent.yaml")
