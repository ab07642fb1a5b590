"""A gang: processes that compute one task together and exchange halos every step. For machines of one organisation.

A problem that is split into rounds of pure tasks may run as a gang instead, where a step takes less time than a task
costs. The parts have the same bits either way; what a gang has done is not kept until it is finished. A worker that is
given a task of a gang starts its members and waits for them: they compute in its place, a core each.
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np

from manybody.core import catalog
from manybody.core.errors import TaskError
from manybody.core.protocols import MethodSpec
from manybody.core.task import Output, Progress, Task
from manybody.network.messages import Failed, Finished, Progressed, Run, read_report
from manybody.network.process import THREAD_LIMITS
from manybody.store.objects import ObjectStore

Channel = Literal["gloo", "mpi"]

GRACE_S = 5.0  # after the first failure: the others' tell whose it really was
LOG_TAIL = 4000  # bytes of a member's output that are shown when it fails
LOOPBACK = "lo"  # the gloo channel of a gang on one Linux machine stays on it
LAUNCHER = "mpirun"
LINK_BROKE = "the link to a neighbour broke"


class LostMemberError(TaskError):
    """A member was killed, or told nothing for too long: no fault of the task, which may be tried again."""


def cores(task: Task, threads: int) -> int:
    """The cores that a task takes: the `threads` of its worker, as many as it needs, or one for each of its `members`."""
    members = task.parameters.get("members", 0)
    return max(threads, task.needs.cores, members if isinstance(members, int) else 0)


def slots(task: Task, threads: int) -> int:
    """How many workers of `threads` threads have to make room for a task."""
    return math.ceil(cores(task, threads) / threads)


def is_for_gang(task: Task) -> bool:
    """Whether a task is computed by a gang."""
    return task.stage in cast("type[MethodSpec]", catalog.load("methods", task.method)).gangs


def gang_stage(task: Task) -> str:
    """``module:function`` that members run for a task; `TaskError` where this installation has no such method or stage."""
    method = cast("type[MethodSpec]", catalog.load("methods", task.method))
    if method.version != task.version:
        expected = f"expected version {task.version} of {task.method}; this node has {method.version}"
        raise TaskError(f"{task.label}: {expected}. Install the same release of the package that brings it.")
    if task.stage not in method.gangs:
        known = ", ".join(method.gangs) or "none"
        raise TaskError(f"{task.label}: expected a stage for gangs, of {known}; got `{task.stage}`. Run it as an ordinary task.")
    return method.gangs[task.stage]


def compute_together(order: Run, objects: ObjectStore, tell: Callable[[Progress], None]) -> Output:
    """The output of a task that a gang computes, its members as many as the task says, a core each."""
    members, channel = order.task.parameters["members"], order.task.parameters["channel"]
    gang = Gang(members, objects.root, channel)
    reports = gang.reports(order.task, order.inputs, tell)
    output = join([objects.get(report.result) for report in reports])
    for report in reports:
        objects.remove(report.result)
    return output


def join(parts: Sequence[Output]) -> Output:
    """The parts of all members as one output: arrays joined along their first axis, the document of the first."""
    arrays = {name: np.concatenate([part.arrays[name] for part in parts]) for name in parts[0].arrays}
    return Output(arrays, parts[0].document)


@dataclass(frozen=True)
class Gang:
    """`size` processes on this machine, linked by `channel`; their parts are left in the object store `objects`.

    A gang that tells nothing for `timeout_s` seconds, neither progress nor its end, is given up.
    """

    size: int
    objects: Path
    channel: Channel = "gloo"
    timeout_s: float = 600.0

    def run(self, task: Task, inputs: Mapping[str, str] | None = None) -> list[Output]:
        """The parts of all members, in order. Raises `TaskError` that names the member at fault; nobody is left behind."""
        store = ObjectStore(self.objects)
        return [store.get(report.result) for report in self.reports(task, inputs)]

    def reports(
        self, task: Task, inputs: Mapping[str, str] | None = None, tell: Callable[[Progress], None] = lambda progress: None
    ) -> list[Finished]:
        """As `run`, but what each member reports: the digest of its part, its size, and the seconds from start to end.

        `inputs` maps the names of inputs to digests of results in the store; `tell` hears how far the first member is.
        Raises `LostMemberError` where a member was killed.
        """
        gang_stage(task)  # what cannot run is refused before anything is started
        order = Run(attempt="", task=task, inputs=dict(inputs or {}))
        with tempfile.TemporaryDirectory(prefix="manybody-gang-") as folder, contextlib.ExitStack() as stack:
            (Path(folder) / "order.json").write_text(order.model_dump_json(), encoding="utf-8")
            processes = [stack.enter_context(_started(*each)) for each in self._orders(Path(folder))]
            watch = _Watch(f"{task.label}, a gang of {self.size}", self.timeout_s, processes, tell)
            finished = watch.wait()
        return [finished[rank] for rank in range(self.size)]

    def _orders(self, folder: Path) -> Iterator[tuple[str, list[str], dict[str, str]]]:
        """Name, command and environment of each process to start."""
        common = [sys.executable, "-m", "manybody.network.member", "--order", str(folder / "order.json")]
        common += ["--objects", str(self.objects.absolute()), "--timeout", str(self.timeout_s)]
        environment = os.environ | dict.fromkeys(THREAD_LIMITS, "1")
        if self.channel == "mpi":
            yield LAUNCHER, [*_launcher(), "-n", str(self.size), *common], environment
            return
        if sys.platform == "linux":
            environment["GLOO_SOCKET_IFNAME"] = LOOPBACK
        for rank in range(self.size):
            place = ["--rank", str(rank), "--size", str(self.size), "--meeting", (folder / "meeting").as_uri()]
            yield f"member {rank}", [*common, *place], environment


def _launcher() -> list[str]:
    """Open MPI's launcher for processes on this machine; beside this Python, or on the path."""
    beside = Path(sys.executable).parent / LAUNCHER
    place = str(beside) if beside.exists() else shutil.which(LAUNCHER)
    if place is None:
        raise TaskError(
            "expected `mpirun` beside this Python or on the path; found none. Install Open MPI, or use the gloo channel."
        )
    options = ["--bind-to", "none", "--map-by", ":OVERSUBSCRIBE", "--mca", "btl", "self,sm"]
    return [place, *options, *(["--allow-run-as-root"] if os.geteuid() == 0 else [])]


@dataclass(frozen=True)
class _Process:
    """A process of a gang: a member, or the launcher of all of them."""

    name: str
    handle: subprocess.Popen[bytes]
    reports: BinaryIO
    log: BinaryIO
    unread: bytearray = field(default_factory=bytearray)

    def ending(self) -> str | None:
        """How it ended, and the last that it said; None where it ended well."""
        status = self.handle.wait()
        if status == 0:
            return None
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        size = os.fstat(self.log.fileno()).st_size
        said = os.pread(self.log.fileno(), LOG_TAIL, max(0, size - LOG_TAIL)).decode(errors="replace").strip()
        return f"{self.name} {how}" + (f"; it last said:\n{said}" if said else "")


@contextlib.contextmanager
def _started(name: str, command: list[str], environment: dict[str, str]) -> Iterator[_Process]:
    """A process that is killed in the end, and ends when we do.

    A gloo member leads a group of its own and watches its standard input. MPI's launcher does not; it stays in our group,
    which whoever kills a worker kills, and its members end when they lose it.
    """
    leads = name != LAUNCHER
    with tempfile.TemporaryFile() as log:
        handle = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            process_group=0 if leads else None,
        )
        assert handle.stdin is not None
        assert handle.stdout is not None
        try:
            yield _Process(name, handle, cast("BinaryIO", handle.stdout), log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(handle.pid, signal.SIGKILL) if leads else handle.kill()
            handle.wait()
            handle.stdin.close()
            handle.stdout.close()


class _Watch:
    """Waits for the reports of a gang, by rank."""

    def __init__(self, label: str, timeout_s: float, processes: list[_Process], tell: Callable[[Progress], None]) -> None:
        self.label, self.timeout_s, self.processes, self.tell = label, timeout_s, processes, tell
        self.finished: dict[int, Finished] = {}
        self.told: list[str] = []
        self.ended: list[str] = []
        self.deadline = time.monotonic() + timeout_s

    def wait(self) -> dict[int, Finished]:
        """Every member's report. Raises `TaskError` with the likeliest cause where one fails."""
        with selectors.DefaultSelector() as selector:
            for process in self.processes:
                selector.register(process.reports, selectors.EVENT_READ, process)
            while selector.get_map() and (left := self.deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    if not self._hear(key.data):
                        selector.unregister(key.fileobj)
            silent = [key.data.name for key in selector.get_map().values()]
        own = [reason for reason in self.told if LINK_BROKE not in reason]
        if own:
            raise TaskError(f"{self.label}: {own[0]}")
        if self.ended or self.told:
            raise LostMemberError(f"{self.label}: {(self.ended or self.told)[0]}")
        if silent:
            quiet = f"{', '.join(silent)} told nothing for {self.timeout_s:g} s"
            raise LostMemberError(f"{self.label}: {quiet}. Raise `timeout_s`, or look at the machine.")
        return self.finished

    def _hear(self, process: _Process) -> bool:
        """Take what a process says, a line each; False when there will be no more."""
        data = os.read(process.reports.fileno(), 65536)
        *lines, rest = (process.unread + data).split(b"\n")
        process.unread[:] = rest
        for line in lines:
            self._take(bytes(line))
        if not data:
            ending = process.ending()
            if ending is not None and not self._explained(process):
                self.ended.append(ending)
                self._hurry()
        return bool(data)

    def _take(self, line: bytes) -> None:
        report = read_report(line)
        if not (self.told or self.ended):
            self.deadline = time.monotonic() + self.timeout_s
        if isinstance(report, Progressed):
            self.tell(report.progress)
        elif isinstance(report, Finished):
            self.finished[int(report.attempt)] = report
        elif isinstance(report, Failed):
            self.told.append(f"member {report.attempt}: {report.reason}")
            self._hurry()

    def _hurry(self) -> None:
        self.deadline = min(self.deadline, time.monotonic() + GRACE_S)

    def _explained(self, process: _Process) -> bool:
        """Whether a process that ended badly has said why; MPI's launcher fails with its members."""
        return any(len(self.processes) == 1 or reason.startswith(f"{process.name}:") for reason in self.told)
