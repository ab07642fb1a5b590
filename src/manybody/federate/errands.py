"""Tasks handed to a backend by name, each on a node of choice, and how they ended."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from manybody.core.protocols import Backend, Event
from manybody.core.task import Task

FRESH_S = 1.0  # how old may be what is known of the nodes when a task is submitted
TRIES = 3  # attempts at a task whose worker is lost each time


@dataclass
class _Errand:
    task: Task
    node: str
    attempt: str = ""
    tries: int = 0


class Errands:
    """Tasks under way, by a name that is the caller's, and the last event of each that has `ended`.

    A task whose worker is lost is tried again, `TRIES` times in all. With a `node`, it runs on the node of this name
    and no other while that one is there. The inputs of a task are digests of stored results.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.ended: dict[str, Event] = {}
        self._errands: dict[str, _Errand] = {}
        self._names: dict[str, str] = {}
        self._nodes: tuple[str, ...] = ()
        self._asked = -math.inf

    def give(self, name: str, task: Task, node: str = "") -> None:
        """Submit a task."""
        self._errands[name] = _Errand(task, node)
        self._submit(name)

    def hear(self, wanted: Iterable[str], timeout: float | None = None) -> None:
        """Listen until all that are wanted have ended, for `timeout` seconds at most."""
        wanted, until = set(wanted), None if timeout is None else time.monotonic() + timeout
        heard = True
        while heard and not wanted <= self.ended.keys():
            heard = False
            for event in self.backend.events(None if until is None else max(0.0, until - time.monotonic())):
                self._note(event)
                heard = until is None or time.monotonic() < until
                if not heard or wanted <= self.ended.keys():
                    break

    def gather(self, names: Sequence[str], timeout: float | None = None) -> list[Event | None]:
        """How each has ended; None for those that had not within `timeout` seconds, which are stopped."""
        self.hear(names, timeout)
        self.drop(names)
        return [self.ended.pop(name, None) for name in names]

    def drop(self, names: Iterable[str] | None = None) -> None:
        """Stop some, or all, that have not ended: nobody waits for them any more."""
        for name in list(self._errands if names is None else names):
            errand = self._errands.pop(name, None)
            if errand is not None:
                self._names.pop(errand.attempt, None)
                self.backend.cancel(errand.attempt)

    def _submit(self, name: str) -> None:
        errand = self._errands[name]
        errand.attempt, errand.tries = uuid.uuid4().hex, errand.tries + 1
        self._names[errand.attempt] = name
        self.backend.submit(errand.attempt, errand.task, errand.task.inputs, self._others(errand.node))

    def _others(self, node: str) -> frozenset[str]:
        """Workers of all nodes but one; backends go by what comes before the slash."""
        if node and time.monotonic() - self._asked > FRESH_S:
            self._asked, self._nodes = time.monotonic(), tuple(each.name for each in self.backend.nodes())
        return frozenset(f"{name}/any" for name in self._nodes if name != node) if node else frozenset()

    def _note(self, event: Event) -> None:
        if event.kind not in ("finished", "failed", "lost") or event.attempt not in self._names:
            return
        name = self._names.pop(event.attempt)
        if event.kind == "lost" and self._errands[name].tries < TRIES:
            self._submit(name)
            return
        del self._errands[name]
        self.ended[name] = event
