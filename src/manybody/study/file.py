"""Study files: YAML with units becomes a `Study`, or a list of everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from manybody.core.errors import InputError, Problem
from manybody.core.study import Study
from manybody.core.units import UnitSystem
from manybody.study.dump import dump_study
from manybody.study.fields import parameters
from manybody.study.located import LARGEST_FILE, Located, Mapping, Place, parse_yaml
from manybody.study.reader import Path as FieldPath
from manybody.study.reader import Reader
from manybody.study.refusals import joined, problem_of
from manybody.study.settings import Setting, apply, parse_settings
from manybody.study.sweep import SweepPoint, complete, distinct, read_sweep, try_points, without_effect

FILE_NAME = "study.yaml"
__all__ = ["FILE_NAME", "dump_study", "find_study", "load_study", "parse_study"]


def load_study(path: Path, settings: Sequence[str] = ()) -> Study:
    """The study in a YAML file, or in ``study.yaml`` of a folder, with ``path=value`` settings in place.

    Quantities become reduced units of the study. Raises `InputError` with every problem found, each with its line,
    what was expected, what came and the remedy.
    """
    file = find_study(path)
    return parse_study(read_text(file), file.name, settings)


def find_study(path: Path) -> Path:
    """The study file that a path names; raises `InputError` where there is none."""
    if path.is_dir():
        if (path / FILE_NAME).is_file():
            return path / FILE_NAME
        raise InputError(Problem(str(path), f"a folder with {FILE_NAME}", "a folder without", "Name the study file itself."))
    if not path.is_file():
        came = "nothing there" if not path.exists() else "something that is no file"
        raise InputError(
            Problem(str(path), "a study file or a folder", came, "`manybody new SYSTEM FILE` writes one to start from.")
        )
    return path


def read_text(file: Path) -> str:
    """The text of a study file; raises `InputError` where it is too long, unreadable or no text."""
    try:
        with file.open("rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(Problem(str(file), "a file that can be read", f"{error.strerror}", "Check its permissions.")) from error
    if len(data) > LARGEST_FILE:
        came = f"{file.stat().st_size} bytes"
        raise InputError(Problem(str(file), f"at most {LARGEST_FILE} bytes", came, "Is this the study, or a result?"))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        came = f"the byte {data[error.start]:#04x}"
        raise InputError(Problem(f"{file.name}:{line}", "text in UTF-8", came, "Save the file as plain text.")) from error


def parse_study(text: str, source: str, settings: Sequence[str] = ()) -> Study:
    """The study in YAML text; `source` is its name in messages. Raises `InputError` with every problem found."""
    tree, problems = parse_yaml(text, source)
    if not isinstance(tree, Mapping):
        remedy = "Write `field: value` lines; `manybody new SYSTEM` shows a complete study."
        raise InputError(
            *problems, Problem(tree.place.where(""), "a mapping with the fields of a study", tree.place.text, remedy)
        )
    given, unread = parse_settings(settings)
    tree, unplaced = apply(tree, given)
    return _Study(tree, Place(source, "a mapping"), given, [*problems, *unread, *unplaced]).read()


class _Study:
    """One reading of a study: sections to values, values to a `Study`, all complaints on the way gathered."""

    def __init__(self, tree: Mapping, place: Place, settings: Sequence[Setting], problems: list[Problem]) -> None:
        self.tree, self.settings = tree, settings
        self.reader = Reader()
        self.reader.problems.extend(problems)
        self.reader.places[()] = place
        self.reader.models[()] = Study

    def read(self) -> Study:
        document = self.document()
        points = self.points()
        study = self.validated(complete(document, self.reader, points))
        if study is not None:
            self.try_sweep(study, points)
        if self.reader.problems or study is None:
            raise InputError(*joined(self.reader.problems))
        if not points:
            return study
        swept = self.validated(study.model_copy(update={"sweep": tuple(point.values for point in points)}).model_dump())
        if swept is None:
            raise InputError(*joined(self.reader.problems))
        return self.merged(swept, points)

    def document(self) -> dict[str, Any]:
        """The sections but the sweep, as plain values in reduced units."""
        entries = self.tree.entries
        self.reader.refuse_unknown(self.tree, Study.model_fields, ())
        if "units" in entries:
            self.reader.units = self.reader.read_units(entries["units"])
        found: dict[str, Any] = {"units": self.reader.units or "reduced"}
        found |= {
            name: self.section(name, entry)
            for name, entry in entries.items()
            if name in Study.model_fields and name not in ("units", "sweep")
        }
        return found

    def section(self, name: str, entry: Located) -> Any:
        """One section as a plain value."""
        if name == "system":
            return self.reader.member(entry, "systems", (name,))
        if name == "method":
            return self.reader.member(entry, "methods", (name,))
        if name in ("measures", "checks"):
            return self.reader.members(entry, "measures" if name == "measures" else "checks")
        if name == "budget":
            return self.reader.budget(entry)
        return self.reader.field(entry, Study, name, (name,))

    def points(self) -> list[SweepPoint]:
        """The points of the sweep, if there is one."""
        return read_sweep(self.reader, self.tree.entries["sweep"]) if "sweep" in self.tree.entries else []

    def validated(self, document: dict[str, Any]) -> Study | None:
        """The document as a study, or None with pydantic's complaints translated."""
        try:
            return Study.model_validate(document)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                self.translate(details, details["loc"])
            return None

    def translate(self, details: ErrorDetails, path: FieldPath) -> None:
        """Add pydantic's complaint, unless it follows from a value that was complained of already."""
        reader = self.reader
        if details["type"] == "refused":
            named = details["ctx"]["field"]
            path = path if path[-1:] == (named,) else (*path, named)
            if any(spoiled[:1] == path[:1] for spoiled in reader.spoiled):
                return
        if any(path[: len(spoiled)] == spoiled or spoiled[: len(path)] == path for spoiled in reader.spoiled):
            return
        came = reader.places[path].text if path in reader.places else _shown(details["input"])
        reader.problems.append(problem_of(details, reader.where(path), came, self.field(path), self.units))

    def field(self, path: FieldPath) -> Any:
        """What the field at a path asks for, if a spec is known there."""
        near = path[:-1]
        while near and near not in self.reader.models:
            near = near[:-1]
        model, name = self.reader.models.get(near), path[len(near)] if len(path) > len(near) else ""
        return next((field for field in parameters(model) if field.name == name), None) if model else None

    @property
    def units(self) -> UnitSystem | None:
        return self.reader.units

    def try_sweep(self, study: Study, points: Sequence[SweepPoint]) -> None:
        """Complain of points where the system or the method is impossible, and of settings that no point leaves room for."""
        if not any(path[0] == "sweep" for path in self.reader.spoiled):
            for point, swept, details in try_points(study, points):
                place = point.places.get(swept) or next(iter(point.places.values()), point.place)
                came = place.text if swept in point.places else _shown(details["input"])
                field = self.field(tuple(swept.split(".")))
                self.reader.problems.append(problem_of(details, place.where(f"sweep, {swept}"), came, field, self.units))
        for setting in without_effect(self.settings, points):
            name = ".".join(setting.path)
            came = f"`{name}`, which every point of the sweep gives itself"
            remedy = f"Set the sweep instead, for example `--set 'sweep={{{name}: [{setting.place.text.strip('`')}]}}'`."
            self.reader.problems.append(Problem(setting.place.source, "a field that the sweep leaves open", came, remedy))

    def merged(self, study: Study, points: Sequence[SweepPoint]) -> Study:
        """The study with equal points taken once where a setting made them equal, and refused where the file has them."""
        keep, repeated = distinct(study)
        if not repeated:
            return study
        if not self.settings:
            problems = [
                Problem(
                    points[index].place.where("sweep"),
                    "points that differ",
                    f"point {index + 1}, equal to point {earlier + 1}",
                    "Remove it.",
                )
                for index, earlier in repeated.items()
            ]
            raise InputError(*problems)
        return study.model_copy(update={"sweep": tuple(study.sweep[index] for index in keep)})


def _shown(value: object) -> str:
    return "a mapping" if isinstance(value, dict) else f"`{value}`"
