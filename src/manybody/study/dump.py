"""A study as YAML text with comments: what a run's folder keeps, and what `manybody new` starts from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticCustomError

from manybody.core import catalog
from manybody.core.errors import InputError, Problem
from manybody.core.protocols import CheckSpec, MeasureSpec, MethodSpec, SystemSpec
from manybody.core.spec import NamedSpec
from manybody.core.study import Study
from manybody.core.units import Dimension, UnitSystem, show_quantity
from manybody.study.fields import Parameter, parameters

_BARE = re.compile(r"[a-z][a-z0-9-]*")
_WORDS = {"true", "false", "null"}
_RESOLVED = "A study with every field resolved; `manybody run` on this file repeats it."


def dump_study(study: Study, header: str = _RESOLVED) -> str:
    """A study as YAML that `load_study` reads back to the same digest; comments say what each field is, and its unit."""
    lines = [*(f"# {line}" for line in header.splitlines()), *_sections(study)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def new_study(system: str) -> str:
    """A commented study file for the named system, with a method that runs it and all that fits; it loads as it is.

    The method is the one that needs least to be told. Measures and checks that cannot do without being told something, such
    as which atoms they are of, are left to the reader. Raises `InputError` where no system has that name, no method runs it,
    or its required fields have no examples.
    """
    spec = catalog.load_spec("systems", system)
    methods = {name: kind for name, kind in _members("methods") if issubclass(kind, MethodSpec) and system in kind.systems}
    method = min(methods, key=lambda name: _needed(methods[name]), default=None)
    if method is None:
        raise InputError(Problem("methods", f"a method that runs {system}", "none", "Install one; see `manybody methods`."))
    try:
        study = _smallest(spec, catalog.load_spec("methods", method))
    except ValidationError as error:
        problem = Problem(system, "required fields with examples that fit together", f"{error}", "Give the fields `examples`.")
        raise InputError(problem) from error
    header = f"A study of {system}: {spec.summary}.\nEvery field is shown; those with a default may go."
    return dump_study(study, header) + _SWEEP_HINT.format(path=f"system.{parameters(spec)[0].name}")


def _smallest(system: type[NamedSpec], method: type[NamedSpec]) -> Study:
    """A study with all that can be measured and checked without being told anything; pydantic says what does not fit."""
    parts = {"system": system.model_validate(_starting(system)), "method": method.model_validate(_starting(method))}
    return Study.model_validate(
        {
            "name": parts["system"].name,
            "title": f"A study of {parts['system'].name}",
            "question": "What is asked, in words.",
            "units": getattr(system, "scales", None) or "reduced",
            **{part: spec.document() for part, spec in parts.items()},
            "measures": [_starting(kind) for _, kind in _members("measures") if _reads(kind, parts["system"], parts["method"])],
            "checks": [_starting(kind) for _, kind in _members("checks") if _tests(kind, parts["method"].name)],
        }
    )


def _reads(measure: type[NamedSpec], system: NamedSpec, method: NamedSpec) -> bool:
    assert issubclass(measure, MeasureSpec)
    if method.name not in measure.methods or (measure.systems and system.name not in measure.systems) or _needed(measure):
        return False
    assert isinstance(system, SystemSpec)
    assert isinstance(method, MethodSpec)
    try:
        measure.model_validate(_starting(measure)).suits(system, method)
    except PydanticCustomError:
        return False
    return True


def _tests(check: type[NamedSpec], method: str) -> bool:
    return (
        issubclass(check, CheckSpec)
        and (not check.methods or method in check.methods)
        and not any(field.required for field in parameters(check))
    )


def _needed(spec: type[NamedSpec]) -> int:
    """How many fields must be given for which there is no example."""
    return sum(field.required and not field.examples for field in parameters(spec))


_SWEEP_HINT = """
# What is varied: a list of points, or a grid such as
# sweep:
#   {path}: [first, second]
"""


def _members(group: catalog.Group) -> Iterator[tuple[str, type[NamedSpec]]]:
    return ((name, catalog.load_spec(group, name)) for name in catalog.entries(group))


def _starting(spec: type[NamedSpec]) -> dict[str, Any]:
    """Its name, and a value for each field that has examples, the first of them, and for each required one that has none."""
    chosen = {"name": spec.model_fields["name"].default}
    chosen |= {field.name: field.examples[0] for field in parameters(spec) if field.examples}
    return chosen | {field.name: _within_bounds(field) for field in parameters(spec) if field.required and not field.examples}


def _within_bounds(field: Parameter) -> Any:
    if field.choices:
        return field.choices[0]
    low = field.bounds.get("ge", field.bounds.get("gt", 0.0))
    high = field.bounds.get("le", field.bounds.get("lt", 2 * low + 2))
    return (low + high) / 2


# --- sections ----------------------------------------------------------------------------------------------------


def _sections(study: Study) -> Iterator[str]:
    units = study.unit_system
    about = {field.name: field for field in parameters(Study)}
    for name in Study.model_fields:
        value = getattr(study, name)
        field = about[name]
        comment = f"  # {field.description}" if field.description else ""
        if name == "units":
            yield f"units: {_units(units)}{comment}"
        elif name in ("system", "method"):
            yield from ("", f"{name}:", *_member(value, units, "  "), "")
        elif name in ("measures", "checks"):
            yield from ("", f"{name}:{comment}", *(line for member in value for line in _item(member, units)), "")
        elif name == "sweep":
            if value != ({},):
                yield from ("", f"sweep:{comment}", *(f"  - {_point(study, index)}" for index in range(len(value))), "")
        elif name == "budget":
            yield f"budget: {{wall_time: {_wall_time(study.budget.wall_time_s)}}}{comment}"
        else:
            yield f"{name}: {_flow(value, None, None)}{comment}"


def _member(member: NamedSpec, units: UnitSystem | None, indent: str) -> Iterator[str]:
    """A system's or a method's fields, one a line."""
    yield f"{indent}name: {member.name}  # {type(member).summary}"
    yield from _fields(member, units, indent)


def _item(member: NamedSpec, units: UnitSystem | None) -> Iterator[str]:
    """A measure or a check as an item of its list."""
    fields = list(_fields(member, units, "      "))
    yield f"  - {member.name}{':' if fields else ''}  # {type(member).summary}"
    yield from fields


def _fields(member: BaseModel, units: UnitSystem | None, indent: str) -> Iterator[str]:
    for field in parameters(type(member)):
        value = getattr(member, field.name)
        notes = [field.description or field.name]
        if field.dimension and isinstance(value, float):
            notes[0] += f" [{_shown(value, field.dimension, units)}]"
        if field.limits:
            notes.append(field.limits)
        if any(choice not in field.description for choice in field.choices):
            notes.append(" | ".join(field.choices))
        yield f"{indent}{field.name}: {_flow(value, field.dimension, units)}  # {'; '.join(notes)}"


def _shown(value: float, dimension: Dimension, units: UnitSystem | None) -> str:
    return "reduced units" if units is None else show_quantity(value, dimension, units)


def _point(study: Study, index: int) -> str:
    """One point of a sweep, each value in the unit of the field that its path names."""
    varied, point = study.point(index), study.sweep[index]
    dimensions = {
        f"{part}.{field.name}": field.dimension
        for part, spec in (("system", study.system), ("method", study.method))
        for field in parameters(type(spec))
    }
    texts = {
        path: _flow(value, dimensions[path], study.unit_system) for path, value in point.items() if not isinstance(value, Mapping)
    }
    for path, value in point.items():
        if isinstance(value, Mapping):
            part, field = path.split(".")
            texts[path] = _fields_of(type(getattr(getattr(varied, part), field)), value, study.unit_system)
    return f"{{{', '.join(f'{path}: {text}' for path, text in texts.items())}}}"


def _fields_of(spec: type[BaseModel], values: Mapping[str, Any], units: UnitSystem | None) -> str:
    """Values of some fields of a spec on one line."""
    dimensions = {field.name: field.dimension for field in parameters(spec)}
    texts = (f"{name}: {_flow(value, dimensions.get(name), units)}" for name, value in values.items())
    return f"{{{', '.join(texts)}}}"


# --- values ------------------------------------------------------------------------------------------------------


def _units(units: UnitSystem | None) -> str:
    if units is None:
        return "reduced"
    return f"{{length: {units.length!r} m, energy: {units.energy!r} J, mass: {units.mass!r} kg}}"


def _wall_time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds % 60 == 0 and seconds < 1e9 else f"{seconds!r} s"


def _flow(value: Any, dimension: Dimension | None, units: UnitSystem | None) -> str:
    """A value on one line, numbers in full, so that reading it back gives the same bits."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, BaseModel):
        return _fields_of(type(value), dict(value), units)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_flow(name, None, None)}: {_flow(item, None, None)}' for name, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_flow(item, dimension, units) for item in value)}]"
    if isinstance(value, int | float):
        return f"{value!r} reduced" if dimension and units is not None else repr(value)
    if _BARE.fullmatch(value) and value not in _WORDS:
        return str(value)
    return str(yaml.safe_dump(value, default_style='"', width=float("inf"), allow_unicode=True)).rstrip("\n")
