"""One worker process as its conductor sees it: started, spoken to, watched, ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from manybody.network.messages import Report, Run, read_report, write

THREAD_LIMITS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS",
)  # fmt: skip
GRACE_S = 5.0
LOG_TAIL = 4000  # bytes of a worker's output that are shown when it is lost


@dataclass
class Worker:
    """A worker process. `order` is what it computes now; `ready` once it has started; `served` counts its orders."""

    name: str
    process: subprocess.Popen[bytes]
    channel: socket.socket
    log: BinaryIO
    death: int | None
    order: Run | None = None
    ready: bool = False
    served: int = 0
    hung_up: bool = False
    _unread: bytearray = field(default_factory=bytearray)

    @classmethod
    def start(cls, name: str, objects: Path, threads: int, checkpoint_s: float) -> Worker:
        """Start a process; it says `Ready` when it can take orders.

        Thread limits are set before Python starts, because numeric libraries read them once, when they are imported.
        The folder that the user is in stays off its path (-P): a file called numpy.py there is none of its business.
        It leads a process group of its own: the terminal's interrupt does not reach it, and its children end with it.
        """
        with contextlib.ExitStack() as opened:
            ours, theirs = (opened.enter_context(end) for end in socket.socketpair())
            log = opened.enter_context(tempfile.TemporaryFile())
            fcntl.fcntl(log, fcntl.F_SETFL, fcntl.fcntl(log, fcntl.F_GETFL) | os.O_APPEND)
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "manybody.network.worker", "--socket", str(theirs.fileno()),
                 "--objects", str(objects), "--threads", str(threads), "--checkpoint-s", str(checkpoint_s)],
                stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=[theirs.fileno()], process_group=0,
                env=os.environ | dict.fromkeys(THREAD_LIMITS, str(threads)),
            )  # fmt: skip
            opened.enter_context(process)  # which waits for its end
            opened.callback(process.kill)
            # Where the system has it, a descriptor that becomes readable when the process dies: a child of the worker
            # may still hold the socket open then.
            death = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else None
            opened.pop_all()  # all is well: what was opened stays so until `end`
        theirs.close()
        ours.setblocking(False)
        return cls(name, process, ours, log, death)

    def watch(self, selector: selectors.BaseSelector) -> None:
        """Register what tells of this worker."""
        selector.register(self.channel, selectors.EVENT_READ, self)
        if self.death is not None:
            selector.register(self.death, selectors.EVENT_READ, self)

    def give(self, order: Run) -> None:
        """Hand over an order. A worker that has just died is noticed by `reports`."""
        self.log.truncate(0)
        self.order = order
        self.served += 1
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.channel.setblocking(True)
            self.channel.sendall(write(order))
        self.channel.setblocking(False)

    def reports(self) -> Iterator[Report]:
        """What it has said since it was last asked."""
        try:
            while data := self.channel.recv(65536):
                self._unread += data
            self.hung_up = True
        except BlockingIOError:
            pass  # it lives, and has said no more
        except ConnectionResetError:
            self.hung_up = True  # it died with an order unread
        *lines, rest = self._unread.split(b"\n")
        self._unread = rest
        for line in lines:
            yield read_report(bytes(line))

    def is_dead(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def post_mortem(self) -> str:
        """How it ended, and the last that it or the system said."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_S)  # a dying process closes its socket a moment before it is gone
        code = self.process.returncode
        if code is None:
            how = "closed its line"
        else:
            names = {number.value: number.name for number in signal.Signals}
            how = f"was killed by {names.get(-code, f'signal {-code}')}" if code < 0 else f"ended with status {code}"
        said = self.tail()
        return f"worker {self.name} {how}" + (f"; it last said:\n{said}" if said else "")

    def tail(self) -> str:
        """The last lines of its standard output and error during the current task."""
        size = os.fstat(self.log.fileno()).st_size
        return os.pread(self.log.fileno(), LOG_TAIL, max(0, size - LOG_TAIL)).decode(errors="replace").strip()

    def end(self, selector: selectors.BaseSelector) -> None:
        """Kill the process and all that it started, and free what is held for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        selector.unregister(self.channel)
        if self.death is not None:
            selector.unregister(self.death)
            os.close(self.death)
        self.channel.close()
        self.log.close()
        if self.process.stdin is not None:
            self.process.stdin.close()
