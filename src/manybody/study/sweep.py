"""The sweep of a study file: a list of points or a grid, read and then tried point by point."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from manybody.core.catalog import suggest
from manybody.core.spec import Spec
from manybody.core.study import Study
from manybody.study import located
from manybody.study.located import Located, Mapping, Place
from manybody.study.reader import Path, Reader
from manybody.study.settings import Setting

MOST_POINTS = 10_000
PARTS = ("system", "method")
EXAMPLE = "Write `sweep: {system.density: [0.7, 0.8]}`, or a list of points such as `- {system.density: 0.7}`."


@dataclass(frozen=True)
class SweepPoint:
    """One point as read: where it stands, its values by path, and where each value stands."""

    place: Place
    values: dict[str, Any]
    places: dict[str, Place]


def read_sweep(reader: Reader, entry: Located) -> list[SweepPoint]:
    """The points of a sweep; needs `reader.models` of system and method for units and names of fields."""
    reader.mark(("sweep",), entry)
    if isinstance(entry, Mapping):
        return _grid(reader, entry)
    if not isinstance(entry, located.Sequence):
        reader.complain(("sweep",), "a list of points, or a mapping from path to values", entry.place.text, EXAMPLE)
        return []
    if not entry.items:
        reader.complain(("sweep",), "at least one point", "an empty list", "Leave `sweep` out for a single point.")
    return [point for index, item in enumerate(entry.items) if (point := _point(reader, item, index)) is not None]


def _point(reader: Reader, item: Located, index: int) -> SweepPoint | None:
    path: Path = ("sweep", index)
    reader.mark(path, item, f"point {index + 1}")
    if not isinstance(item, Mapping):
        reader.complain(path, "a mapping from path to value", item.place.text, EXAMPLE)
        return None
    values = {name: _swept(reader, value, name, (*path, name)) for name, value in item.entries.items()}
    return SweepPoint(item.place, values, {name: value.place for name, value in item.entries.items()})


def _grid(reader: Reader, entry: Mapping) -> list[SweepPoint]:
    """The outer product of lists of values; the last path varies fastest."""
    axes: list[list[tuple[Place, Any]]] = []
    for name, values in entry.entries.items():
        if not isinstance(values, located.Sequence) or not values.items:
            came = values.place.text if not isinstance(values, located.Sequence) else "an empty list"
            reader.complain(("sweep", name), "a list of values", came, f"Write `{name}: [first, second]`.", values.place)
            continue
        axes.append(
            [
                (item.place, _swept(reader, item, name, ("sweep", name, at), f"value {at + 1}"))
                for at, item in enumerate(values.items)
            ]
        )
    number = math.prod(len(axis) for axis in axes)
    if number > MOST_POINTS:
        reader.complain(("sweep",), f"at most {MOST_POINTS} points", f"{number}", "Shorten the lists of the sweep.")
        return []
    names = [name for name, values in entry.entries.items() if isinstance(values, located.Sequence) and values.items]
    points = []
    for combination in itertools.product(*axes):
        places = {name: place for name, (place, _) in zip(names, combination, strict=True)}
        points.append(SweepPoint(entry.place, {name: value for name, (_, value) in zip(names, combination, strict=True)}, places))
    return points


def _swept(reader: Reader, entry: Located, name: str, path: Path, label: str = "") -> Any:
    """One value of a sweep, read as the field that its path names."""
    reader.mark(path, entry, label or name)
    part, _, field = name.partition(".")
    model = reader.models.get((part,))
    if part not in PARTS or not field:
        known = [f"{section}.{own}" for section in PARTS for own in _swept_fields(reader, section)]
        remedy = suggest(name, known) if known else EXAMPLE
        reader.complain(path, "a path such as `system.density`", f"`{name}`", remedy)
    elif model is not None and field not in _swept_fields(reader, part):
        remedy = suggest(field, _swept_fields(reader, part))
        reader.complain(path, f"a field of the {part} that can vary", f"`{field}`", remedy)
    elif model is not None:
        return reader.field(entry, model, field, path)
    else:
        reader.spoiled.add(path)
    return None


def _swept_fields(reader: Reader, part: str) -> list[str]:
    model = reader.models.get((part,))
    return [name for name in model.model_fields if name != "name"] if model else []


def complete(document: dict[str, Any], reader: Reader, points: Sequence[SweepPoint]) -> dict[str, Any]:
    """The study with what every point gives, and the base leaves out, taken from the first point."""
    completed = dict(document)
    for part in PARTS:
        model = reader.models.get((part,))
        base = document.get(part)
        if model is None or base is None or not points:
            continue
        missing = [name for name, field in model.model_fields.items() if field.is_required() and name not in base]
        given = [name for name in missing if all(f"{part}.{name}" in point.values for point in points)]
        completed[part] = base | {name: points[0].values[f"{part}.{name}"] for name in given}
        reader.spoiled |= {(part, name) for name in given if any(point.values[f"{part}.{name}"] is None for point in points)}
    return completed


def try_points(study: Study, points: Sequence[SweepPoint]) -> Iterator[tuple[SweepPoint, str, ErrorDetails]]:
    """What is impossible at each point: the point, the path of the field, and pydantic's complaint."""
    for point in points:
        try:
            system = _varied(study.system, "system", point)
            method = _varied(study.method, "method", point)
            where = "method"
            method.suits(system)
            where = "measures"
            for measure in study.measures:
                measure.suits(system, method)
        except ValidationError as error:
            part = "system" if error.title == type(study.system).__name__ else "method"
            for details in error.errors(include_url=False):
                name = details["ctx"]["field"] if details["type"] == "refused" else str(details["loc"][0])
                yield point, f"{part}.{name}", details
        except PydanticCustomError as error:  # raised by `suits`, outside any validator
            details = ErrorDetails(type=error.type, loc=(), msg=error.message(), input=None, ctx=error.context or {})
            yield point, where, details


SpecT = TypeVar("SpecT", bound=Spec)


def _varied(spec: SpecT, part: str, point: SweepPoint) -> SpecT:
    """A system or a method with the point's values in place."""
    changes = {name.split(".")[1]: value for name, value in point.values.items() if name.startswith(f"{part}.")}
    return type(spec).model_validate(spec.document() | changes)


def distinct(study: Study) -> tuple[list[int], dict[int, int]]:
    """The indices of the points that differ, and for every other the earlier one that it equals."""
    first: dict[tuple[str, str], int] = {}
    repeats: dict[int, int] = {}
    for index in range(len(study.sweep)):
        point = study.point(index)
        earlier = first.setdefault((point.system.digest, point.method.digest), index)
        if earlier != index:
            repeats[index] = earlier
    return list(first.values()), repeats


def without_effect(settings: Sequence[Setting], points: Sequence[SweepPoint]) -> list[Setting]:
    """Settings of a field for which every point of the sweep has a value of its own."""
    varied = set.intersection(*(set(point.values) for point in points)) if points else set()
    return [setting for setting in settings if ".".join(setting.path) in varied]
