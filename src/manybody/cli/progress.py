"""Progress of a run in the user's terms: tasks by state, simulated time, time left, the conserved quantity."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from manybody.core.certificate import Verdict
from manybody.core.protocols import Event, NodeInfo
from manybody.core.study import Plan
from manybody.core.task import Progress, Task
from manybody.study.conduct import Tally
from manybody.study.run import Outcome

LINE_EVERY_S = 5.0
_COLOURS = {Verdict.HOLDS: "green", Verdict.UNDECIDED: "yellow", Verdict.FAILS: "red"}


@dataclass
class Board:
    """What is known of a run while it goes."""

    tally: Tally = field(default_factory=lambda: Tally(0, 0, 0, 0, 0, 0))
    left_s: float | None = None
    running: dict[str, tuple[Task, str, Progress | None]] = field(default_factory=dict)
    simulated_done: float = 0.0
    unit: str = ""

    def take(self, event: Event, task: Task, tally: Tally, left_s: float | None) -> None:
        """Take over what an event says."""
        self.tally, self.left_s = tally, left_s
        if event.kind in ("started", "progress", "checkpoint"):
            self.running[event.attempt] = (task, event.worker, event.progress)
            self.unit = event.progress.unit if event.progress else self.unit
        else:
            _, _, last = self.running.pop(event.attempt, (task, "", None))
            if event.kind == "finished" and last is not None:
                self.simulated_done += last.simulated / last.fraction if last.fraction else 0.0  # the last report is not the end

    @property
    def simulated(self) -> float:
        """Time simulated by this run so far."""
        return self.simulated_done + sum(last.simulated for _, _, last in self.running.values() if last is not None)

    @property
    def conserved(self) -> tuple[float, float] | None:
        """The running task nearest to breaking its conservation law: (error, tolerance)."""
        known = [
            (abs(last.conserved), last.tolerance)
            for _, _, last in self.running.values()
            if last is not None and last.conserved is not None and last.tolerance
        ]
        return max(known, key=lambda pair: pair[0] / pair[1], default=None)

    @property
    def done(self) -> float:
        """Fraction of the tasks that are done, with the running ones counted in part."""
        part = sum(last.fraction for _, _, last in self.running.values() if last is not None)
        return (self.tally.computed + self.tally.cached + part) / max(1, self.tally.total)

    def states(self) -> str:
        """Tasks by state."""
        tally = self.tally
        words = f"{tally.computed + tally.cached} of {tally.total} tasks done, {tally.running} running, {tally.waiting} waiting"
        return f"{words}, {tally.failed} failed" if tally.failed else words

    def details(self) -> list[str]:
        """Simulated time, time left, and the conserved quantity against its tolerance, as far as they are known."""
        found = []
        if self.unit:
            found.append(f"simulated {self.simulated:,.0f} {self.unit}")
        if self.left_s is not None:
            found.append(f"about {duration(self.left_s)} left")
        if self.conserved is not None:
            error, tolerance = self.conserved
            found.append(f"conserved to {error:.1e} of {tolerance:.1e} allowed")
        return found


class Watching:
    """Tells a person how a run goes; a study's `Listener`. This one prints what will be done and the verdict."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.board = Board()

    def planned(self, plan: Plan, cached: int, nodes: Sequence[NodeInfo], expected_s: float) -> None:
        """What will be done, before anything is."""
        study, total = plan.study, len(plan.tasks)
        self.board.tally = Tally(total, 0, cached, 0, 0, total - cached)
        self.board.left_s = expected_s
        self.say(f"{study.name}: {study.title}" if study.title else study.name, style="bold")
        size = f"{_count(len(plan.points), 'point')}, {_count(study.repeats, 'run')} each"
        self.say(f"  {size}: {_count(total, 'task')}, {cached} already done")
        for note in plan.notes:
            self.say(f"  {note}")
        where = ", ".join(f"{_count(node.workers, 'worker')} on {node.name}" for node in nodes)
        self.say(f"  {where}; about {duration(expected_s)} expected, at most {duration(study.budget.wall_time_s)}")

    def event(self, event: Event, task: Task, tally: Tally, left_s: float | None) -> None:
        """Something happened to a task."""
        self.board.take(event, task, tally, left_s)
        if event.kind in ("failed", "lost"):
            consequence = "it will be tried again" if event.kind == "lost" else "nothing that needs it will run"
            self.say(f"  {task.label} {event.kind} on {event.worker}: {event.reason}; {consequence}", style="red")

    def judged(self, outcome: Outcome) -> None:
        """The verdict, in one line, and where the report lies."""
        findings = outcome.findings.checks
        good = sum(finding.verdict == Verdict.HOLDS for finding in findings)
        for finding in findings:
            if finding.verdict != Verdict.HOLDS:
                self.console.print(Text(f"  {finding.verdict}: {finding.name}: {finding.claim}", style=_COLOURS[finding.verdict]))
        verdict = Text(str(outcome.verdict), style=f"bold {_COLOURS[outcome.verdict]}")
        rest = f" ({good} of {_count(len(findings), 'check')} hold, {duration(outcome.wall_s)}). Report: {outcome.report}"
        self.console.print(verdict + Text(rest), soft_wrap=True)

    def interrupted(self) -> None:
        """What is kept, and how to go on."""
        tally = self.board.tally
        kept = f"{tally.computed + tally.cached} of {tally.total} tasks are finished and kept"
        self.console.print(Text(f"Interrupted: {kept}. Run the same command again to go on."), soft_wrap=True)

    def say(self, text: str, style: str = "") -> None:
        """Print a line."""
        self.console.print(Text(text, style=style), soft_wrap=True)


class Lines(Watching):
    """Progress where there is no terminal: a line every few seconds, and at the first and the last finished task."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.last = -LINE_EVERY_S

    def event(self, event: Event, task: Task, tally: Tally, left_s: float | None) -> None:
        """Something happened to a task."""
        super().event(event, task, tally, left_s)
        telling = event.kind == "finished" and (tally.computed == 1 or tally.computed + tally.cached == tally.total)
        if telling or time.monotonic() - self.last >= LINE_EVERY_S:
            self.last = time.monotonic()
            self.say("  " + "; ".join([self.board.states(), *self.board.details()]))


class Quiet(Watching):
    """The verdict and failures only; not even those of them that the JSON line carries, if there is one."""

    def __init__(self, console: Console, verdict: bool) -> None:
        super().__init__(console)
        self.verdict = verdict

    def say(self, text: str, style: str = "") -> None:
        """Print failures only."""
        if style == "red":
            super().say(text, style)

    def judged(self, outcome: Outcome) -> None:
        """The verdict, unless the JSON line says it."""
        if self.verdict:
            super().judged(outcome)


def _picture(board: Board) -> Group:
    """The live picture: a bar, what runs where, and the figures; nothing before there is a plan."""
    if not board.tally.total:
        return Group()
    if board.tally.computed + board.tally.cached == board.tally.total:
        return Group(Text(f"  {board.states()}; now measuring, checking and writing the report"))
    table = Table.grid(padding=(0, 2))
    for task, worker, last in sorted(board.running.values(), key=lambda item: item[1]):
        advanced = "" if last is None else f"{last.simulated:,.1f} {last.unit}"
        table.add_row("  " + worker, task.label, ProgressBar(1.0, last.fraction if last else 0.0, width=20), advanced)
    head = Table.grid(padding=(0, 2))
    head.add_row("  " + board.states(), ProgressBar(1.0, board.done, width=30), f"{board.done:.0%}")
    return Group(head, table, Text("  " + "; ".join(board.details())))


@contextmanager
def listener(stream: TextIO, quiet: bool, json: bool) -> Iterator[Watching]:
    """The listener that suits the stream: live on a terminal, lines elsewhere, or quiet."""
    console = Console(file=stream, highlight=False)
    if quiet:
        yield Quiet(console, verdict=not json)
    elif not console.is_terminal:
        yield Lines(console)
    else:
        watching = Watching(console)
        with Live(console=console, get_renderable=lambda: _picture(watching.board), refresh_per_second=4, transient=True):
            yield watching


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration(seconds: float) -> str:
    """A time for people: ``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if seconds >= 1 or seconds == 0 else f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
