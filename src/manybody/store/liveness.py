"""Who is alive: processes known by machine, number and start, so that neither a reused number nor a reboot deceives.

A process that is stopped (SIGSTOP, a laptop's lid) is alive: it keeps what it holds and goes on when woken.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import psutil

Life = Literal["alive", "gone", "unknown"]


@dataclass(frozen=True)
class Owner:
    """A process: `machine` (one boot of one host), `pid`, and `started`, its start in that machine's own measure."""

    machine: str
    pid: int
    started: int

    @classmethod
    def this(cls) -> Owner:
        """The process that calls."""
        pid = os.getpid()  # asked each time: a fork is another process
        started = process_start(pid)
        assert started is not None, "a running process has a start"
        return cls(machine(), pid, started)

    @property
    def label(self) -> str:
        """The owner as part of a file name; `parse` reads it."""
        return f"{self.machine}.{self.pid}.{self.started}"

    @classmethod
    def parse(cls, label: str) -> Owner | None:
        """The owner that `label` names, None for other names."""
        parts = label.split(".")
        if len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit()):
            return None
        return cls(parts[0], int(parts[1]), int(parts[2]))

    def life(self) -> Life:
        """Whether this process is alive or gone; unknown where it belongs to another machine or another boot."""
        if self.machine != machine():
            return "unknown"
        return "alive" if process_start(self.pid) == self.started else "gone"

    def is_gone(self) -> bool:
        """Whether this process is known to have ended."""
        return self.life() == "gone"


@cache
def machine() -> str:
    """This machine, boot and set of process numbers: only inside one of these does a pid mean anything."""
    host = "".join(letter if letter.isalnum() or letter == "-" else "-" for letter in platform.node())
    if sys.platform != "linux":
        return f"{host}-{int(psutil.boot_time())}"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    namespace = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    return f"{host}-{boot}-{namespace}"


def process_start(pid: int) -> int | None:
    """When a process started; None where there is none, or only a dead one that nobody has asked after.

    On Linux in clock ticks since boot, which no correction of the clock can move; elsewhere in whole seconds.
    Source: proc_pid_stat(5), fields 3 (state) and 22 (starttime).
    """
    if sys.platform != "linux":
        try:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time())
        except psutil.NoSuchProcess:
            return None
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces and parentheses
    return None if fields[0] in "ZX" else int(fields[19])
