"""A gang: processes that compute one task together and exchange halos every step. For machines of one organisation.

A problem that is split into rounds of pure tasks may run as a gang instead, where a step takes less time than a task
costs. The parts have the same bits either way; what a gang has done is not kept until it is finished.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

from manybody.core.errors import TaskError
from manybody.core.task import Output, Task
from manybody.network.member import LINK_BROKE, gang_stage
from manybody.network.messages import Failed, Finished, read_report
from manybody.network.process import THREAD_LIMITS
from manybody.store.objects import ObjectStore

Channel = Literal["gloo", "mpi"]

GRACE_S = 5.0  # after the first failure: the others' tell whose it really was
LOG_TAIL = 4000  # bytes of a member's output that are shown when it fails
LOOPBACK = "lo"  # the gloo channel of a gang on one Linux machine stays on it


@dataclass(frozen=True)
class Gang:
    """`size` processes on this machine, linked by `channel`; their parts are left in the object store `objects`."""

    size: int
    objects: Path
    channel: Channel = "gloo"
    timeout_s: float = 600.0

    def run(self, task: Task) -> list[Output]:
        """The parts of all members, in order. Raises `TaskError` that names the member at fault; nobody is left behind."""
        store = ObjectStore(self.objects)
        return [store.get(report.result) for report in self.reports(task)]

    def reports(self, task: Task) -> list[Finished]:
        """As `run`, but what each member reports: the digest of its part, its size, and the seconds from start to end."""
        gang_stage(task)  # what cannot run is refused before anything is started
        with tempfile.TemporaryDirectory(prefix="manybody-gang-") as folder, contextlib.ExitStack() as stack:
            (Path(folder) / "task.json").write_text(task.model_dump_json(), encoding="utf-8")
            processes = [stack.enter_context(_started(*order)) for order in self._orders(Path(folder))]
            finished = _Watch(f"{task.label}, a gang of {self.size}", self.timeout_s, processes).wait()
        return [finished[rank] for rank in range(self.size)]

    def _orders(self, folder: Path) -> Iterator[tuple[str, list[str], dict[str, str]]]:
        """Name, command and environment of each process to start."""
        common = [sys.executable, "-m", "manybody.network.member", "--task", str(folder / "task.json")]
        common += ["--objects", str(self.objects.absolute()), "--timeout", str(self.timeout_s)]
        environment = os.environ | dict.fromkeys(THREAD_LIMITS, "1")
        if self.channel == "mpi":
            yield "mpirun", [*_launcher(), "-n", str(self.size), *common], environment
            return
        if sys.platform == "linux":
            environment["GLOO_SOCKET_IFNAME"] = LOOPBACK
        for rank in range(self.size):
            place = ["--rank", str(rank), "--size", str(self.size), "--meeting", (folder / "meeting").as_uri()]
            yield f"member {rank}", [*common, *place], environment


def _launcher() -> list[str]:
    """Open MPI's launcher for processes on this machine; beside this Python, or on the path."""
    beside = Path(sys.executable).parent / "mpirun"
    place = str(beside) if beside.exists() else shutil.which("mpirun")
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
    """A process that leads a group of its own, which is killed in the end. A gloo member also ends when we do."""
    with tempfile.TemporaryFile() as log:
        handle = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, process_group=0
        )
        assert handle.stdin is not None
        assert handle.stdout is not None
        try:
            yield _Process(name, handle, cast("BinaryIO", handle.stdout), log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(handle.pid, signal.SIGKILL)
            handle.wait()
            handle.stdin.close()
            handle.stdout.close()


class _Watch:
    """Waits for the reports of a gang, by rank."""

    def __init__(self, label: str, timeout_s: float, processes: list[_Process]) -> None:
        self.label, self.timeout_s, self.processes = label, timeout_s, processes
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
        causes = [reason for reason in self.told if LINK_BROKE not in reason] or self.ended or self.told
        if not causes and silent:
            causes = [
                f"{', '.join(silent)} gave no answer within {self.timeout_s:g} s. Raise `timeout_s`, or look at the machine."
            ]
        if causes:
            raise TaskError(f"{self.label}: {causes[0]}")
        return self.finished

    def _hear(self, process: _Process) -> bool:
        """Take a report, which is one line written at once; False when there will be none any more."""
        line = process.reports.readline()
        if not line:
            ending = process.ending()
            if ending is not None and not self._explained(process):
                self.ended.append(ending)
                self._hurry()
            return False
        report = read_report(line)
        if isinstance(report, Finished):
            self.finished[int(report.attempt)] = report
        elif isinstance(report, Failed):
            self.told.append(f"member {report.attempt}: {report.reason}")
            self._hurry()
        return True

    def _hurry(self) -> None:
        self.deadline = min(self.deadline, time.monotonic() + GRACE_S)

    def _explained(self, process: _Process) -> bool:
        """Whether a process that ended badly has said why; MPI's launcher fails with its members."""
        return any(len(self.processes) == 1 or reason.startswith(f"{process.name}:") for reason in self.told)
