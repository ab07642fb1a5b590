"""Reads the sections of a study: names become specs, quantities become numbers, and every misfit becomes a problem."""

from __future__ import annotations

from collections.abc import Mapping as AbstractMapping
from typing import Any

from pydantic import BaseModel

from manybody.core import catalog
from manybody.core.errors import Problem
from manybody.core.study import Budget
from manybody.core.units import ENERGY, LENGTH, MASS, Dimension, UnitError, UnitSystem, is_quantity, parse_quantity, parse_si
from manybody.study.fields import admits, dimension_of, model_of, named_choices
from manybody.study.located import Located, Mapping, Place, Scalar, Sequence, plain

Path = tuple[str | int, ...]
WALL_TIME = Dimension("time", "min")  # a time on the wall: in SI whatever the study's units
SECTIONS: tuple[catalog.Group, ...] = ("systems", "methods", "measures", "checks")


class Reader:
    """Turns located values into plain ones for pydantic, keeping where each stands and what is wrong with it."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.places: dict[Path, Place] = {}
        self.labels: dict[Path, str] = {}
        self.models: dict[Path, type[BaseModel]] = {}
        self.spoiled: set[Path] = set()
        self.units: UnitSystem | None = None
        self.units_known = True

    # --- places and complaints ---------------------------------------------------------------------------------

    def mark(self, path: Path, entry: Located, label: str = "") -> None:
        """Remember where a value stands; `label` names an item of a list."""
        self.places[path] = entry.place
        if label:
            self.labels[path] = label

    def label(self, path: Path) -> str:
        """The dotted name of a path, with the items of lists by their names."""
        if not path:
            return ""
        own = self.labels.get(path, str(path[-1]))
        joint = ", " if path[0] == "sweep" else "."
        return f"{self.label(path[:-1])}{joint}{own}" if path[:-1] else own

    def where(self, path: Path) -> str:
        """Where a value stands, or the nearest thing around it that stands somewhere."""
        near = path
        while near and near not in self.places:
            near = near[:-1]
        return self.places[near].where(self.label(path))

    def complain(self, path: Path, expected: str, came: str, remedy: str, place: Place | None = None) -> None:
        """Note a problem, and that nothing is to be concluded from the value at `path`."""
        where = place.where(self.label(path)) if place else self.where(path)
        self.problems.append(Problem(where, expected, came, remedy))
        self.spoiled.add(path)

    # --- units -------------------------------------------------------------------------------------------------

    def read_units(self, entry: Located) -> UnitSystem | None:
        """The unit system of a study: None for ``reduced``, or a mapping of what one unit is."""
        self.mark(("units",), entry)
        before = len(self.problems)
        if isinstance(entry, Mapping):
            scales = {"length": LENGTH, "energy": ENERGY, "mass": MASS}
            self.refuse_unknown(entry, scales, ("units",))
            for name in scales.keys() - entry.entries.keys():
                came, remedy = "nothing", f"Add `{name}: 1 {scales[name].example}`, with the value for this system."
                self.complain(("units", name), f"what one unit of {name} is", came, remedy, entry.place)
            values = {
                name: self._si(entry.entries[name], scales[name], ("units", name)) for name in scales if name in entry.entries
            }
            for name, value in values.items():
                if value is not None and not value > 0:
                    came, remedy = entry.entries[name].place.text, f"Give what one unit of {name} is."
                    self.complain(("units", name), "more than 0", came, remedy)
            if len(self.problems) == before:
                return UnitSystem.model_validate(values)
        elif not (isinstance(entry, Scalar) and entry.value == "reduced"):
            example = "`units: {length: 3.405 angstrom, energy: 119.8 K, mass: 39.948 u}`"
            remedy = f"Write `units: reduced`, or say what one unit is, such as {example}."
            self.complain(("units",), "`reduced` or a mapping of length, energy and mass", entry.place.text, remedy)
        self.units_known = len(self.problems) == before
        return None

    def _si(self, entry: Located, dimension: Dimension, path: Path) -> float | None:
        """A quantity in SI base units, whatever the study's units; None with a complaint where it is none."""
        self.mark(path, entry)
        try:
            return parse_si(_quantity_text(entry, dimension), dimension)
        except UnitError as error:
            self.complain(path, error.expected, error.came, error.remedy)
            return None

    # --- values ------------------------------------------------------------------------------------------------

    def refuse_unknown(self, entry: Mapping, known: AbstractMapping[str, Any], path: Path) -> None:
        """Complain of every key that is not `known`."""
        for name, value in entry.entries.items():
            if name not in known:
                what = f"a field of {self.label(path)}" if path else "a field of a study"
                self.complain((*path, name), what, f"`{name}`", catalog.suggest(name, known), value.place)

    def fields(self, entry: Located, model: type[BaseModel], path: Path) -> dict[str, Any]:
        """The fields of a mapping, each read as the model's field of that name asks."""
        self.mark(path, entry)
        self.models[path] = model
        if not isinstance(entry, Mapping):
            self.complain(
                path, f"a mapping with {', '.join(model.model_fields)}", entry.place.text, "Write one `field: value` a line."
            )
            return {}
        self.refuse_unknown(entry, model.model_fields, path)
        known = {name: value for name, value in entry.entries.items() if name in model.model_fields}
        return {name: self.field(value, model, name, (*path, name)) for name, value in known.items()}

    def field(self, entry: Located, model: type[BaseModel], name: str, path: Path) -> Any:
        """One value, read as a model's field asks."""
        field = model.model_fields[name]
        return self._value(entry, field.annotation, field.metadata, path)

    def _value(self, entry: Located, annotation: Any, metadata: Any, path: Path) -> Any:
        self.mark(path, entry)
        dimension = dimension_of(annotation, metadata)
        if choices := named_choices(annotation, metadata):
            return self._chosen(entry, choices, admits(annotation, type(None)), path)
        inner = model_of(annotation)
        if inner is not None and isinstance(entry, Mapping):
            return self.fields(entry, inner, path)
        if isinstance(entry, Sequence):
            return [self._value(item, annotation, metadata, (*path, index)) for index, item in enumerate(entry.items)]
        if isinstance(entry, Mapping) and not admits(annotation, dict):
            self.complain(path, "a single value", f"a mapping with {', '.join(entry.entries)}", "Give the value alone.")
            return None
        if dimension is not None and not (isinstance(entry, Scalar) and entry.value is None):
            return self._quantity(entry, dimension, path)
        if isinstance(entry, Scalar) and isinstance(entry.value, bool) and not admits(annotation, bool):
            what = "a number" if admits(annotation, float) or admits(annotation, int) else "text"
            self.complain(path, what, entry.place.text, f"Give {what}; true and false are neither.")
        return plain(entry)

    def _chosen(self, entry: Located, choices: AbstractMapping[str, type[BaseModel]], optional: bool, path: Path) -> Any:
        """One of several specs, told by its name: the name alone, or a mapping with `name` and fields."""
        if optional and isinstance(entry, Scalar) and entry.value is None:
            return None
        body = entry if isinstance(entry, Mapping) else Mapping(entry.place, {"name": entry})
        name = body.entries.get("name")
        if not isinstance(name, Scalar) or name.value not in choices:
            came = "no `name`" if name is None else name.place.text
            remedy = catalog.suggest(str(name.value) if isinstance(name, Scalar) else "", choices)
            self.complain(path, f"`name: ..` with one of {', '.join(choices)}", came, remedy)
            return None
        return self.fields(body, choices[str(name.value)], path)

    def _quantity(self, entry: Located, dimension: Dimension, path: Path) -> float | None:
        """A quantity in reduced units of the study."""
        if not self.units_known:
            self.spoiled.add(path)
            return None
        try:
            if isinstance(entry, Scalar) and isinstance(entry.value, int | float) and not isinstance(entry.value, bool):
                return parse_quantity(_finite(entry.value), dimension, self.units)
            return parse_quantity(_quantity_text(entry, dimension), dimension, self.units)
        except UnitError as error:
            expected, remedy = error.expected, error.remedy
            if self.units is None:
                expected = f"a {dimension.name} in reduced units"
                remedy = (
                    "This study is in reduced units: write a bare number, or give `units: {length: .., energy: .., mass: ..}`."
                )
            self.complain(path, expected, error.came, remedy)
            return None

    def budget(self, entry: Located) -> dict[str, Any]:
        """The budget: `wall_time` with a unit of time becomes seconds."""
        self.mark(("budget",), entry)
        if not isinstance(entry, Mapping):
            self.complain(("budget",), "a mapping", entry.place.text, "Write `budget: {wall_time: 10 min}`.")
            return {}
        self.refuse_unknown(entry, {"wall_time": None}, ("budget",))
        self.models["budget",] = Budget
        if "wall_time" not in entry.entries:
            return {}
        seconds = self._si(entry.entries["wall_time"], WALL_TIME, ("budget", "wall_time"))
        self.places["budget", "wall_time_s"] = entry.entries["wall_time"].place
        self.labels["budget", "wall_time_s"] = "wall_time"
        return {} if seconds is None else {"wall_time_s": seconds}

    # --- members of the catalog ----------------------------------------------------------------------------------

    def member(self, entry: Located, group: catalog.Group, path: Path) -> dict[str, Any]:
        """A system or a method: a mapping with its `name`, or the name alone."""
        self.mark(path, entry)
        if isinstance(entry, Scalar) and isinstance(entry.value, str):
            entry = Mapping(entry.place, {"name": entry})
        if not isinstance(entry, Mapping) or "name" not in entry.entries:
            came = "no `name`" if isinstance(entry, Mapping) else entry.place.text
            remedy = f"Add `name:` with one of {', '.join(catalog.entries(group))}."
            self.complain(path, f"a mapping with the name of one of the {group}", came, remedy)
            return {}
        return self._named(entry.entries["name"], entry, group, path)

    def members(self, entry: Located, group: catalog.Group) -> list[dict[str, Any]]:
        """Measures or checks: a list of names, or of ``name: {field: value}``."""
        path: Path = (group,)
        self.mark(path, entry)
        if not isinstance(entry, Sequence):
            example = next(iter(catalog.entries(group)), "name")
            self.complain(path, f"a list of {group}", entry.place.text, f"Write one a line, such as `- {example}`.")
            return []
        read = [self._item(item, group, (*path, index)) for index, item in enumerate(entry.items)]
        names: set[str] = set()
        for index, document in enumerate(read):
            if document.get("name") in names:
                self.complain((*path, index), f"each of the {group} once", f"`{document['name']}` again", "Remove one of them.")
            names.add(document.get("name", ""))
        return read

    def _item(self, item: Located, group: catalog.Group, path: Path) -> dict[str, Any]:
        self.mark(path, item)
        if isinstance(item, Scalar) and isinstance(item.value, str):
            return self._named(item, Mapping(item.place, {}), group, path)
        if isinstance(item, Mapping) and len(item.entries) == 1:
            ((name, body),) = item.entries.items()
            if isinstance(body, Scalar) and body.value is None:
                body = Mapping(body.place, {})
            if isinstance(body, Mapping):
                return self._named(Scalar(item.place, name), body, group, path)
        remedy = f"Write `- {next(iter(catalog.entries(group)), 'name')}`, or `- name: {{field: value}}` in one mapping."
        self.complain(path, f"the name of one of the {group}", item.place.text, remedy)
        return {}

    def _named(self, name: Located, body: Mapping, group: catalog.Group, path: Path) -> dict[str, Any]:
        """The fields of a member whose name is known; a complaint where it is not."""
        known = catalog.entries(group)
        if group in ("measures", "checks") and isinstance(name, Scalar):
            self.labels[path] = str(name.value)
        if not isinstance(name, Scalar) or not isinstance(name.value, str) or name.value not in known:
            came = plain(name) if isinstance(name, Scalar) else name.place.text
            problem = catalog.unknown(group, str(came))
            self.complain(path, f"the name of one of the {group}: {', '.join(known)}", problem.came, problem.remedy, name.place)
            return {}
        return self.fields(body, catalog.load_spec(group, name.value), path) | {"name": name.value}


def _finite(value: float) -> float:
    """An integer beyond the largest double as an infinity, which is then refused as one."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _quantity_text(entry: Located, dimension: Dimension) -> str:
    """The text of a quantity; raises `UnitError` where it is none, before anything evaluates it."""
    expected = f"a {dimension.name} such as `1 {dimension.example}`"
    if not isinstance(entry, Scalar) or isinstance(entry.value, bool) or entry.value is None:
        raise UnitError(expected, entry.place.text, "Write a number, a space and a unit.")
    text = str(entry.value).strip()
    if not is_quantity(text):
        raise UnitError(expected, entry.place.text, "Write a number, a space and a unit.")
    return text
