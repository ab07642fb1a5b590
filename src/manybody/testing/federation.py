"""A federation on this machine, of real processes: for the contract suite, for tests of faults, and for benchmarks."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from manybody.core.protocols import Event, NodeInfo
from manybody.core.task import Task
from manybody.network.federation import open_backend
from manybody.network.federation.backend import Federation
from manybody.network.federation.serve import Office
from manybody.store.home import Home

PATIENCE_S = 60.0  # a process that has not said what is expected of it by then has gone wrong


class Process:
    """A command of manybody running under a home of its own; what it prints goes to a file."""

    def __init__(
        self, home: Path, *words: str, environment: Mapping[str, str] | None = None, prefix: tuple[str, ...] = ()
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home, self.words = home, words
        self.log = home / f"{words[0]}.log"
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-u", "-m", "manybody", *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=os.environ | {"MANYBODY_HOME": str(home)} | dict(environment or {}), process_group=0,
            )  # fmt: skip
        self._before = before

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """How it has ended; None while it runs."""
        return self._process.poll()

    @property
    def said(self) -> str:
        """What it has printed."""
        return self.log.read_bytes()[self._before :].decode(errors="replace")

    def wait_for(self, words: str) -> str:
        """Wait until it prints what matches `words`; returns the match."""
        until = time.monotonic() + PATIENCE_S
        while (found := re.search(words, self.said)) is None:
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise AssertionError(f"expected `{words}` of {self.words}; it said:\n{self.said}")
            time.sleep(0.02)
        return found[0]

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def send_all(self, number: signal.Signals) -> None:
        """Send a signal to it and to all that it has started."""
        children = _children(self.pid)
        for pid in (self.pid, *children):
            os.kill(pid, number)

    def kill(self) -> None:
        """Kill it, without warning."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def ask_to_stop(self) -> None:
        """Ask it to end, without waiting."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()

    def stop(self) -> int:
        """Ask it to end, and see that it does; returns its status."""
        self.ask_to_stop()
        try:
            return self._process.wait(15.0)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.words} did not end when asked to; it said:\n{self.said}") from None

    def wait(self) -> int:
        """Wait until it ends by itself; returns its status."""
        return self._process.wait(PATIENCE_S)


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    found = [int(child) for child in listed]
    return found + [grandchild for child in found for grandchild in _children(child)]


class Town:
    """A gateway and its nodes as processes below a folder, each with a home of its own."""

    def __init__(
        self,
        folder: Path,
        lease_s: float = 10.0,
        environment: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        checkpoint_s: float = 60.0,
    ) -> None:
        self.host, self.checkpoint_s = host, checkpoint_s
        self.folder, self.lease_s = folder, lease_s
        self.environment = dict(environment or {})
        self.home = Home(folder / "gateway")
        self.nodes: dict[str, Process] = {}
        self.gateway = self.start_gateway()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def address(self) -> str:
        """Where the gateway is reached."""
        told = json.loads((self.home.path / "gateway" / "gateway.json").read_text(encoding="utf-8"))
        return str(told["address"])

    def start_gateway(self, *options: str) -> Process:
        """Start the gateway, or start it again: where it was before."""
        intervals = ("--lease", str(self.lease_s), "--checkpoint", str(self.checkpoint_s))
        words = ("network", "up", "--host", self.host, *intervals, *options)
        self.gateway = Process(self.home.path, *words, environment=self.environment)
        self.gateway.wait_for("Gateway at")
        return self.gateway

    def manybody(self, *words: str, home: Path | None = None) -> str:
        """Run a command to its end; what it prints."""
        told = subprocess.run(
            [sys.executable, "-m", "manybody", *words], capture_output=True, text=True, timeout=PATIENCE_S, check=False,
            env=os.environ | {"MANYBODY_HOME": str(home or self.home.path)} | self.environment,
        )  # fmt: skip
        if told.returncode:
            raise AssertionError(f"{words} ended with {told.returncode}:\n{told.stdout}{told.stderr}")
        return told.stdout.strip()

    def add_nodes(self, *names: str, workers: int = 1) -> list[Process]:
        """Invite nodes, have them join, and wait until all are ready."""
        started = [self.start_node(name, Office(self.home).invite(), workers=workers) for name in names]
        for node in started:
            node.wait_for("is ready")
        return started

    def start_node(
        self, name: str, *line: str, workers: int = 1, environment: Mapping[str, str] | None = None, prefix: tuple[str, ...] = ()
    ) -> Process:
        """Start a node, behind a `prefix` such as another command's words; without a line it has joined before."""
        words = ("join", *line, "--name", name, "--workers", str(workers), "--no-measure")
        node = Process(self.folder / name, *words, environment=self.environment | dict(environment or {}), prefix=prefix)
        self.nodes[name] = node
        return node

    def backend(self) -> Federation:
        """A backend over this federation, as `manybody run --network` opens it."""
        backend = open_backend(self.address, self.home)
        assert isinstance(backend, Federation)
        return backend

    def close(self) -> None:
        """End all processes."""
        for process in self.nodes.values():
            process.ask_to_stop()
        for process in [*self.nodes.values(), self.gateway]:
            process.stop()


class OwnTown:
    """A backend with a federation of its own, which ends with it: what the contract suite wants."""

    def __init__(
        self, objects_root: Path, workers: int = 2, start: Callable[..., Town] = Town, checkpoint_s: float = 60.0
    ) -> None:
        folder = objects_root.parent
        (folder / "gateway").mkdir(parents=True, exist_ok=True)
        objects_root.mkdir(exist_ok=True)
        (folder / "gateway" / "objects").symlink_to(objects_root)  # the suite looks for results there
        self.town = start(folder, checkpoint_s=checkpoint_s)
        try:
            self.town.add_nodes(*(f"node-{number}" for number in range(workers)))
            self._backend = self.town.backend()
        except BaseException:
            self.town.close()  # nobody else knows of these processes yet
            raise

    def submit(self, attempt: str, task: Task, inputs: Mapping[str, str], avoid: frozenset[str] = frozenset()) -> None:
        """Queue an attempt."""
        self._backend.submit(attempt, task, inputs, avoid)

    def submit_resumable(
        self, attempt: str, task: Task, inputs: Mapping[str, str], avoid: frozenset[str], checkpoint: str
    ) -> None:
        """Queue an attempt that leaves checkpoints."""
        self._backend.submit_resumable(attempt, task, inputs, avoid, checkpoint)

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Events as they come."""
        return self._backend.events(timeout)

    def cancel(self, attempt: str) -> None:
        """Stop an attempt."""
        self._backend.cancel(attempt)

    def nodes(self) -> list[NodeInfo]:
        """The nodes there are."""
        return self._backend.nodes()

    def close(self) -> None:
        """End the run, then the federation."""
        self._backend.close()
        self.town.close()
