"""Tasks computed over a federation while a test does harm: each counts once, and gives what it gives when nothing goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from manybody.core.digest import digest_bytes
from manybody.core.protocols import Event
from manybody.core.task import Output, Progress, Task
from manybody.store.encoding import encode
from manybody.testing.federation import Town
from manybody.testing.methods import iterate, let_through, task


class Nowhere:
    """A context (`core.protocols.Context`) for a task that is computed by the test itself."""

    device, threads = "cpu", 1

    def progress(self, progress: Progress) -> None:
        """Tell nobody."""

    def resume(self) -> None:
        """There is nothing to go on from."""

    def keep(self, output: Output) -> None:
        """Keep nothing."""


def iterations(count: int, steps: int = 200_000) -> list[Task]:
    """Different tasks of so many steps each; a million take about a tenth of a second."""
    return [task("iterate", steps=steps).model_copy(update={"repeat": repeat}) for repeat in range(count)]


def gated(count: int, folder: Path) -> list[Task]:
    """Different tasks that each stay halfway until `let_through`: they last as long as a test wants, on any machine."""
    folder.mkdir(exist_ok=True)
    return [
        task("iterate", steps=20_000, gate=str(folder / f"{repeat}")).model_copy(update={"repeat": repeat})
        for repeat in range(count)
    ]


def expected(wanted: Task) -> str:
    """The digest of the result of an iteration, computed here."""
    return digest_bytes(encode(iterate(wanted, {}, Nowhere())))


@dataclass
class Campaign:
    """Tasks computed over a federation, those that are lost once more, as a conductor would."""

    town: Town
    tasks: Sequence[Task]
    prefix: str = "t"
    results: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Submit all tasks."""
        self.backend = self.town.backend()
        self._known = {each.digest: each for each in self.tasks}
        for number, each in enumerate(self.tasks):
            self.backend.submit(f"{self.prefix}{number}-1", each, {})

    def go(self, until: Callable[[Event], bool] = lambda event: False) -> Event | None:
        """Take events until one is met, which is returned, or all is done."""
        for event in self.backend.events():
            self.events.append(event)
            assert event.kind != "failed", event.reason
            if event.kind == "finished":
                assert event.task not in self.results, "a result was counted twice"
                self.results[event.task] = event.result
            elif event.kind == "lost":
                number, _, tried = event.attempt.partition("-")
                self.backend.submit(f"{number}-{int(tried) + 1}", self._known[event.task], {})
            if until(event):
                return event
        return None

    def verify(self) -> None:
        """Go on to the end: every task, all of them iterations, has the result that it has when nothing goes wrong.

        Gates are opened.
        """
        let_through(self.tasks)
        self.go()
        assert self.results == {each.digest: expected(each) for each in self.tasks}
        self.backend.close()

    def workers(self, kind: str = "finished") -> set[str]:
        """The nodes that events of a kind tell of."""
        return {event.worker.partition("/")[0] for event in self.events if event.kind == kind}

    def kinds(self) -> set[str]:
        """The kinds of all events so far."""
        return {event.kind for event in self.events}
