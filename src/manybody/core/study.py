"""Studies: what is asked, typed, frozen and torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from manybody.core import catalog
from manybody.core.protocols import CheckSpec, MeasureSpec, MethodSpec, SystemSpec
from manybody.core.spec import Spec, refuse
from manybody.core.task import Task
from manybody.core.units import UnitSystem


@dataclass(frozen=True)
class Member(BeforeValidator):
    """Marks a field whose value is a member of the catalog's `group`, and reads it."""

    group: catalog.Group = "systems"


def member(group: catalog.Group) -> Member:
    """Turns ``{"name": .., field: ..}`` into the spec that the catalog has under that name."""

    def parse(value: Any) -> Any:
        if isinstance(value, Spec):
            return value
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            refuse("name", f"the name of one of the {group}", value, f"See `manybody {group}`.")
        known = catalog.entries(group)
        if value["name"] not in known:
            problem = catalog.unknown(group, value["name"])
            refuse("name", problem.expected, problem.came, problem.remedy)
        return catalog.load_spec(group, value["name"]).model_validate(value)

    return Member(parse, group=group)


System = Annotated[SerializeAsAny[SystemSpec], member("systems")]
Method = Annotated[SerializeAsAny[MethodSpec], member("methods")]
Measure = Annotated[SerializeAsAny[MeasureSpec], member("measures")]
Check = Annotated[SerializeAsAny[CheckSpec], member("checks")]


class Budget(Spec):
    """What the study may cost."""

    wall_time_s: float = Field(600.0, gt=0, description="longest wall time, seconds, before the run stops with what it has")


class Study(Spec):
    """A question: a system, a method, what is varied, what is measured, what must hold, and what it may cost.

    `sweep` holds one mapping a point, from a path such as ``system.density`` to its value there. `scale` multiplies
    the extent of every run (its simulated time, its samples): more of the same, so finished tasks are kept.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="short name, lower case with hyphens")
    title: str = Field("", description="what the report is headed with")
    question: str = Field("", description="the question in words")
    units: UnitSystem | Literal["reduced"] = Field(
        "reduced", description="`reduced`, or what one unit of length, energy and mass is"
    )
    system: System
    method: Method
    sweep: tuple[dict[str, Any], ...] = Field(({},), min_length=1, description="one mapping a point, path to value")
    repeats: int = Field(1, ge=1, description="independent runs a point")
    scale: float = Field(1.0, gt=0, description="multiplies the extent of every run")
    measures: tuple[Measure, ...] = Field(min_length=1, description="what is measured")
    checks: tuple[Check, ...] = Field(min_length=1, description="what must hold")
    seed: int = Field(0, ge=0, description="from which all randomness derives")
    budget: Budget = Budget()
    citations: tuple[str, ...] = Field((), description="sources, for the report")

    @field_validator("sweep")
    @classmethod
    def _known_paths(cls, sweep: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for point in sweep:
            for path in point:
                if path.split(".")[0] not in ("system", "method") or path.count(".") != 1:
                    refuse("sweep", "paths such as `system.density`", f"`{path}`", "Sweep fields of the system or the method.")
        return sweep

    @model_validator(mode="after")
    def _in_units_of_the_system(self) -> Study:
        wanted = self.system.scales
        if wanted is not None and (self.unit_system is None or not wanted.is_close(self.unit_system)):
            came = "reduced units" if self.unit_system is None else f"{self.unit_system}"
            refuse("units", f"the units of {self.system.name}, {wanted}", came, f"Write `units: {{{wanted}}}`.")
        return self

    @model_validator(mode="after")
    def _measures_suit_system(self) -> Study:
        for measure in self.measures:
            if measure.systems and self.system.name not in measure.systems:
                known = f"It is defined for {', '.join(measure.systems)}."
                refuse("measures", f"measures of {self.system.name}", f"`{measure.name}`", known)
        return self

    @model_validator(mode="after")
    def _method_runs_system(self) -> Study:
        if self.system.name not in self.method.systems:
            runs = f"It runs {', '.join(self.method.systems)}."
            refuse("method", f"a method that runs {self.system.name}", f"`{self.method.name}`", runs)
        for index in range(len(self.sweep)):
            point = self.point(index)  # raises where a value is impossible there
            point.method.suits(point.system)
            for measure in self.measures:
                measure.suits(point.system, point.method)
            missing = [name for name in point.method.demands() if name not in {check.name for check in self.checks}]
            if missing:
                asked = f"`{missing[0]}`, which {point.method.name} at {point.label} asks for"
                refuse("checks", asked, "none of that name", f"Add `- {missing[0]}`.")
        return self

    @property
    def unit_system(self) -> UnitSystem | None:
        """The scales of the study, or None in reduced units."""
        return None if self.units == "reduced" else self.units

    def point(self, index: int) -> Point:
        """The system and method at one point of the sweep."""
        changes: dict[str, dict[str, Any]] = {"system": {}, "method": {}}
        for path, value in self.sweep[index].items():
            part, field = path.split(".")
            changes[part][field] = value
        system = type(self.system).model_validate(self.system.document() | changes["system"])
        method = type(self.method).model_validate(self.method.document() | changes["method"])
        parts = {"system": system, "method": method}
        values = {path: getattr(parts[path.split(".")[0]], path.split(".")[1]) for path in self.sweep[index]}
        label = ", ".join(f"{path.split('.')[1]} {_text(value)}" for path, value in values.items())
        return Point(index, label or self.system.name, system, method.extended(self.scale))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float | int) else str(value)


@dataclass(frozen=True)
class Point:
    """One point of a sweep: the system and method with the point's values in place."""

    index: int
    label: str
    system: SystemSpec
    method: MethodSpec


@dataclass(frozen=True)
class Realisation:
    """One independent run of a point: its tasks in order; those in `measured` carry what is measured."""

    point: Point
    repeat: int
    tasks: tuple[Task, ...]
    measured: tuple[Task, ...]


@dataclass(frozen=True)
class Plan:
    """A study as tasks: its realisations, and the extra tasks that each of its checks asks for, by position.

    `notes` say, for a reader, what was chosen for it.
    """

    study: Study
    realisations: tuple[Realisation, ...]
    evidence: tuple[tuple[Task, ...], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Every task once, inputs before those that read them."""
        found = {task.digest: task for run in self.realisations for task in run.tasks}
        found |= {task.digest: task for tasks in self.evidence for task in tasks if task.digest not in found}
        return tuple(found.values())

    @property
    def alone(self) -> frozenset[str]:
        """The digests of tasks into which data or a secret of their node enter: no other node can be asked for the same bits."""
        secret = {
            task.digest
            for run in self.realisations
            for task in run.tasks
            if task.method == run.point.method.name and not run.point.method.repeatable(task.stage)
        }
        return frozenset(secret | {task.digest for task in self.tasks if task.needs.data})

    @property
    def points(self) -> tuple[Point, ...]:
        """The points of the sweep, in order."""
        return tuple({run.point.index: run.point for run in self.realisations}.values())

    @property
    def cost(self) -> float:
        """Expected cost of all tasks, core-seconds."""
        return math.fsum(task.cost for task in self.tasks)
