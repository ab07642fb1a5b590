"""How a run of a split field is laid out as tasks: rounds of parts, or courses of a gang. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from manybody.core.spec import Spec
from manybody.core.task import Task
from manybody.engines.fields.parts import STEP_HALO, Course, Moment, Part, Round, at_step, part_rows

if TYPE_CHECKING:
    from manybody.engines.fields.spec import AdvectedField, FiniteVolume

GATHER_S = 1e-7  # expected cost of gathering a cell, most of it the exactly rounded sums; seconds
COURSE_BYTES = 1 << 28  # of samples in one course of a gang: what it has to hold, and to store at its end
COURSE_CELL_STEPS = 4e10  # of work in one course, about ten minutes of two cores: what is lost where it does not end


class Layout:
    """The tasks of one realisation, in order."""

    def __init__(self, method: FiniteVolume, system: AdvectedField, seed: int, repeat: int) -> None:
        self.method, self.system, self.seed, self.repeat = method, system, seed, repeat
        self.costs, self.steps_per_round = method.reckoned, method.split.steps_per_round
        self.sent = (
            {"edge": STEP_HALO * self.steps_per_round, "bound": method.bound} if method.bound else {"edge": 0, "bound": 0.0}
        )
        self.tasks: list[Task] = []
        self.gathered: Task | None = None

    def rounds(self) -> None:
        """The slabs at the start, then round after round; at every sample the slabs are gathered."""
        method, k = self.method, self.steps_per_round
        slabs = [self._add("start", self._part(part), self.costs.latency_s) for part in range(method.parts)]
        self._gather(0, _by_part(slabs))
        for sample in range(method.samples):
            for begin in range(0, method.stride, k):
                slabs = self._round(slabs, sample * method.stride + begin, min(k, method.stride - begin))
            self._gather((sample + 1) * method.stride, _by_part(slabs))

    def courses(self) -> None:
        """Course after course of a gang, each from the end of the one before; every sample of one is gathered."""
        method, before = self.method, None
        cells = method.rows * method.columns
        fit = min(COURSE_BYTES / (cells * method.cell_bytes), COURSE_CELL_STEPS / (cells * method.stride))
        for first in range(0, method.samples, max(1, int(fit))):
            samples = min(max(1, int(fit)), method.samples - first)
            course = method.course(first * method.stride, samples)
            cost = cells * method.stride * samples / self.costs.cell_steps_per_s
            before = self._add("together", course, cost, {"before": before} if before else {})
            for step in course.moments:
                self._gather(step, {"gang": before})

    def _round(self, before: list[Task], begin: int, steps: int) -> list[Task]:
        """A round: every part from its own slab and its neighbours'."""
        slabs = []
        for index in range(len(before)):
            part = self._part(index)
            computed = (part.last - part.first + STEP_HALO * steps) * part.columns * steps
            cost = self.costs.latency_s + computed / self.costs.cell_steps_per_s
            inputs = {"west": before[index - 1], "own": before[index], "east": before[(index + 1) % len(before)]}
            this = Round.model_validate(part.document() | {"begin": begin, "steps": steps})
            slabs.append(self._add("advance", this, cost, inputs))
        return slabs

    def _gather(self, step: int, inputs: dict[str, Task]) -> None:
        """A sample: the slabs of all parts, or what a gang has at this step, and the samples before."""
        if self.gathered is not None:
            inputs = inputs | {"before": self.gathered}
        moment = Moment.model_validate(self.method.grid.document() | {"step": step})
        cost = self.costs.latency_s + GATHER_S * self.method.rows * self.method.columns
        self.gathered = self._add("gather", moment, cost, inputs)

    def _part(self, index: int) -> Part:
        first, last = part_rows(self.method.rows, self.method.parts, index)
        return Part.model_validate(self.method.grid.document() | self.sent | {"first": first, "last": last})

    def _add(self, stage: str, parameters: Spec, cost: float, inputs: Mapping[str, Task] | None = None) -> Task:
        digests = {name: task.digest for name, task in (inputs or {}).items()}
        task = self.method.task(stage, self.system, parameters, self.seed, self.repeat, cost, digests)
        self.tasks.append(task)
        return task


def _by_part(slabs: list[Task]) -> dict[str, Task]:
    return {f"part {index:04d}": task for index, task in enumerate(slabs)}


def rows_read(task: Task, name: str) -> Mapping[str, slice] | None:
    """Of its neighbours' slabs a round reads as many rows as it looks aside; of a gang's samples one is gathered."""
    if task.stage == "advance" and name in ("west", "east"):
        this = Round.model_validate(task.parameters)
        if this.edge:
            return {"east_edge" if name == "west" else "west_edge": slice(None)}
        reach = STEP_HALO * this.steps
        return {"slab": slice(-reach, None) if name == "west" else slice(reach)}
    if task.stage == "gather" and name == "gang":
        return {at_step(Moment.model_validate(task.parameters).step): slice(None)}
    if task.stage == "together" and name == "before":
        return {at_step(Course.model_validate(task.parameters).begin): slice(None)}
    return None
