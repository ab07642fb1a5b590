"""A cluster on this machine: a Dask scheduler and its workers as processes, on loopback, through TLS.

Run as ``python -m manybody.network.cluster_local scheduler|worker …`` it is one of those processes, which ends with the
one that has started it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Self

from distributed import Security

from manybody.network.cluster_security import security_of, write_certificates
from manybody.network.messages import BackendError
from manybody.network.worker import end_with_conductor

LOOPBACK = "127.0.0.1"
PATIENCE_S = 60.0  # until a process that has not reported is taken to have failed
GRACE_S = 5.0
LOG_TAIL = 2000  # bytes of a process's log that are shown when it does not start


class LocalCluster:
    """A scheduler and `nodes` Dask workers of `cores` threads each, below `folder`; killed by `close`.

    `tls` holds the certificates, made if there are none. `host` other than loopback opens the scheduler to the network,
    for those who have a copy of the certificates. `processes` are by name: ``scheduler``, ``node-1``, and so on.
    """

    def __init__(
        self, folder: Path, nodes: int = 1, cores: int = 1, tls: Path | None = None, host: str = LOOPBACK, port: int = 0
    ) -> None:
        self.folder, self.tls, self.host, self.cores = folder.absolute(), (tls or folder / "tls").absolute(), host, cores
        self.folder.mkdir(parents=True, exist_ok=True)
        write_certificates(self.tls)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="manybody-", ignore_cleanup_errors=True)
        try:
            self.address = self.start_scheduler(port)
            for number in range(1, nodes + 1):
                self.start_node(f"node-{number}")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def security(self) -> Security:
        """The certificates that this cluster was started with."""
        return security_of(self.tls)

    @property
    def scratch(self) -> Path:
        """Where the workers keep files while they run."""
        return Path(self._scratch.name)

    def start_scheduler(self, port: int = 0) -> str:
        """Start the scheduler, or start it again; returns its address."""
        card = self.folder / "scheduler.json"
        card.unlink(missing_ok=True)
        self._start("scheduler", "scheduler", "--host", self.host, "--port", str(port), "--scheduler-file", str(card))
        self._wait("scheduler", card.exists)
        return str(json.loads(card.read_text(encoding="utf-8"))["address"])

    def start_node(self, name: str) -> None:
        """Start a Dask worker; without waiting, for the scheduler tells when it has come."""
        host = ("--host", LOOPBACK) if self.host == LOOPBACK else ()
        self._start(
            name, "worker", self.address, *host, "--name", name, "--nthreads", str(self.cores), "--no-nanny",
            "--memory-limit", "0", "--local-directory", self._scratch.name, "--resources", f"cores={self.cores}",
            "--death-timeout", f"{PATIENCE_S:g}",
        )  # fmt: skip

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process."""
        self.processes[name].send_signal(number)

    def close(self) -> None:
        """End all processes, and what they have started."""
        for process in self.processes.values():
            _kill(process)
        for process in self.processes.values():
            _bury(process)
        self._scratch.cleanup()

    def _start(self, name: str, kind: str, *words: str) -> None:
        files = {"--tls-ca-file": "ca.pem", "--tls-cert": "cert.pem", "--tls-key": "key.pem"}
        tls = [word for option, file in files.items() for word in (option, str(self.tls / file))]
        if before := self.processes.get(name):
            _kill(before)
            _bury(before)
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, kind, *words, *tls, "--dashboard-address", f"{LOOPBACK}:0"],
                stdin=subprocess.PIPE, stdout=log, stderr=log, process_group=0,
            )  # fmt: skip

    def _wait(self, name: str, done: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not done():
            if self.processes[name].poll() is not None or time.monotonic() > until:
                said = (self.folder / f"{name}.log").read_bytes()[-LOG_TAIL:].decode(errors="replace")
                raise BackendError(f"The {name} of the cluster in {self.folder} did not start; it said:\n{said}")
            time.sleep(0.05)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _bury(process: subprocess.Popen[bytes]) -> None:
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def main() -> None:
    """Be a scheduler or a worker of Dask, until the one who started it ends."""
    kind, *words = sys.argv[1:]
    end_with_conductor()
    command = import_module(f"distributed.cli.dask_{kind}")
    command.main(words, prog_name=f"manybody {kind}")


if __name__ == "__main__":
    main()
