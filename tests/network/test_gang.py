"""Gangs of real processes: the same bits as alone, and what becomes of one that loses a member."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.core.task import Progress, Task
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
        ("gloo", 2, "float64"),
        ("gloo", 3, "float32"),
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


class Strike:
    """Does something to the members of a gang of this process when the first one tells that it computes."""

    def __init__(self, what: Callable[[list[psutil.Process]], None]) -> None:
        self.what, self.members = what, list[psutil.Process]()

    def __call__(self, progress: Progress) -> None:
        if not self.members:
            found = [each for each in psutil.Process().children() if "--rank" in each.cmdline()]
            self.members = sorted(found, key=lambda each: each.cmdline()[each.cmdline().index("--rank") + 1])
            self.what(self.members)


def test_a_killed_member_is_named_and_nobody_stays(tmp_path: Path) -> None:
    strike = Strike(lambda members: members[1].kill())
    with pytest.raises(LostMemberError, match="member 1 was killed by SIGKILL"):
        Gang(2, tmp_path, timeout_s=120).reports(together(METHOD, ENDLESS), tell=strike)
    assert len(strike.members) == 2
    assert not any(process.is_running() for process in strike.members)


def test_a_silent_gang_is_given_up(tmp_path: Path) -> None:
    """The only member is frozen, if it has got as far: nothing is told any more."""
    with pytest.raises(LostMemberError, match="member 0 told nothing for 5 s"):
        Gang(1, tmp_path, timeout_s=5.0).reports(together(METHOD, ENDLESS), tell=Strike(lambda members: members[0].suspend()))


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
