"""Gangs of real processes: the same bits as alone, and what becomes of one that loses a member."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.core.task import Task
from manybody.engines.fields.engine import FieldEngine
from manybody.engines.fields.spec import AdvectedField, FiniteVolume, Gaussian
from manybody.network.gang import Channel, Gang, LostMemberError, join
from manybody.network.local import Embedded

SYSTEM = AdvectedField(velocity_x=1.0, velocity_y=0.4, diffusivity=0.002, gaussians=(Gaussian(x=0.2),))
METHOD = FiniteVolume(rows=50, columns=36, time_step=0.01)
STEPS = 12
ENDLESS = 10**9
HAS_MPI = importlib.util.find_spec("mpi4py") is not None and (
    shutil.which("mpirun") is not None or (Path(sys.executable).parent / "mpirun").exists()
)
needs_mpi = pytest.mark.skipif(not HAS_MPI, reason="mpi4py and an MPI launcher are not installed here")


def together(method: FiniteVolume, steps: int) -> Task:
    """The task of a gang that advances the field by some steps, in two samples."""
    half = steps // 2 * method.time_step
    changes = {"run": "gang", "sample_every": half, "duration": 2 * half}
    return method.model_validate(method.document() | changes).plan(SYSTEM, 0, 0)[0][0]


def alone(method: FiniteVolume) -> np.ndarray:
    engine = FieldEngine(SYSTEM, method.grid)
    return engine.step(engine.init(Key.from_seed(0)), STEPS).field


@pytest.mark.parametrize(
    ("channel", "size", "precision"),
    [
        ("gloo", 1, "float64"),
        ("gloo", 2, "float64"),
        ("gloo", 3, "float32"),
        pytest.param("mpi", 1, "float64", marks=needs_mpi),
        pytest.param("mpi", 2, "float32", marks=needs_mpi),
        pytest.param("mpi", 3, "float64", marks=needs_mpi),
    ],
)
def test_a_gang_gives_the_bits_of_one_part_alone(tmp_path: Path, channel: Channel, size: int, precision: str) -> None:
    method = METHOD.model_validate(METHOD.document() | {"precision": precision})
    parts = Gang(size, tmp_path, channel, timeout_s=120).run(together(method, STEPS))
    assert [len(part.arrays["step 0"]) for part in parts] == [50 * (rank + 1) // size - 50 * rank // size for rank in range(size)]
    field = join(parts).arrays[f"step {STEPS}"]
    assert field.dtype == precision
    np.testing.assert_array_equal(field, alone(method))


@pytest.mark.parametrize("channel", ["gloo", pytest.param("mpi", marks=needs_mpi)])
def test_a_refusal_of_the_stage_reaches_the_caller(tmp_path: Path, channel: Channel) -> None:
    small = together(FiniteVolume(rows=16, columns=16, time_step=0.01), 2)
    with pytest.raises(TaskError, match=r"member \d: .*expected at least 8 rows a member; got 16 rows for 3 members"):
        Gang(3, tmp_path, channel, timeout_s=120).run(small)


def test_only_stages_for_gangs_are_run(tmp_path: Path) -> None:
    ordinary = together(METHOD, 2).model_copy(update={"stage": "advance"})
    with pytest.raises(TaskError, match="expected a stage for gangs, of together; got `advance`"):
        Gang(1, tmp_path).run(ordinary)
    other = together(METHOD, 2).model_copy(update={"version": "0"})
    with pytest.raises(TaskError, match="expected version 0 of finite-volume; this node has 2"):
        Gang(1, tmp_path).run(other)


def members(parent: psutil.Process) -> dict[int, psutil.Process]:
    """The members among the descendants of a process, by rank, that have got as far as computing."""
    found = {}
    for process in parent.children(recursive=True):
        line = process.cmdline()
        if "manybody.network.member" in line and process.cpu_times().user > 3.0:  # loading takes less
            found[int(line[line.index("--rank") + 1])] = process
    return found


def until(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    """Wait for a condition of other processes, which cannot be waited on."""
    pause, end = threading.Event(), time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come about in time"
        pause.wait(0.05)


@pytest.fixture
def background() -> Iterator[Callable[[Callable[[], object]], list[BaseException]]]:
    """Runs something in a thread; the errors that it ends with appear in the list."""
    threads = []

    def start(work: Callable[[], object]) -> list[BaseException]:
        errors: list[BaseException] = []

        def run() -> None:
            try:
                work()
            except TaskError as error:
                errors.append(error)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return errors

    yield start
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_a_killed_member_is_named_and_nobody_stays(tmp_path: Path, background: Callable[..., list[BaseException]]) -> None:
    gang, endless = Gang(2, tmp_path, timeout_s=120), together(METHOD, ENDLESS)
    errors = background(lambda: gang.run(endless))
    here = psutil.Process()
    until(lambda: len(members(here)) == 2)
    both = members(here)
    both[1].kill()
    until(lambda: bool(errors))
    assert isinstance(errors[0], LostMemberError)
    assert "member 1 was killed by SIGKILL" in str(errors[0])
    assert not any(process.is_running() for process in both.values())


def test_a_silent_gang_is_given_up(tmp_path: Path, background: Callable[..., list[BaseException]]) -> None:
    """The first member is frozen: nothing is told any more."""
    gang = Gang(1, tmp_path, timeout_s=10.0)
    errors = background(lambda: gang.run(together(METHOD, ENDLESS)))
    here = psutil.Process()
    until(lambda: len(members(here)) == 1)
    members(here)[0].suspend()
    until(lambda: bool(errors))
    assert isinstance(errors[0], LostMemberError)
    assert "member 0 told nothing for 10 s" in str(errors[0])


def test_members_end_with_whoever_started_them(tmp_path: Path) -> None:
    task: Task = together(METHOD, ENDLESS)
    (tmp_path / "task.json").write_text(task.model_dump_json(), encoding="utf-8")
    program = (
        "import sys; from pathlib import Path; from manybody.core.task import Task; from manybody.network.gang import Gang\n"
        "folder = Path(sys.argv[1]); Gang(2, folder).run(Task.model_validate_json((folder / 'task.json').read_bytes()))"
    )
    starter = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    try:
        parent = psutil.Process(starter.pid)
        until(lambda: len(members(parent)) == 2)
        orphans = list(members(parent).values())
    finally:
        os.kill(starter.pid, signal.SIGKILL)
        starter.wait()
    _, alive = psutil.wait_procs(orphans, timeout=20)
    assert not alive


@pytest.mark.parametrize("channel", ["gloo", pytest.param("mpi", marks=needs_mpi)])
def test_a_gang_ends_with_its_worker(tmp_path: Path, channel: str) -> None:
    """kill -9 of the worker that waits for a gang: its attempt is lost, and no member stays."""
    endless = together(METHOD.model_validate(METHOD.document() | {"channel": channel}), ENDLESS)
    with Embedded(tmp_path, workers=2) as backend:
        backend.submit("only", endless, {})
        next(event for event in backend.events() if event.kind == "progress")
        (worker,) = (each for each in psutil.Process().children() if each.children())
        orphans = worker.children(recursive=True)
        worker.kill()
        lost = next(event for event in backend.events() if event.kind in ("finished", "failed", "lost"))
        assert lost.kind == "lost"
        _, alive = psutil.wait_procs(orphans, timeout=30)
        assert not alive
