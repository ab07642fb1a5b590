"""Export: the results of a study in files that other tools open, Zarr (xarray) and extended XYZ (ASE)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from manybody.core.digest import canonical_json
from manybody.core.protocols import Evidence, Samples
from manybody.core.study import Plan, Realisation
from manybody.core.units import LENGTH, TIME, UnitSystem

if TYPE_CHECKING:
    import ase
    import xarray

RESULTS, CONFIGURATIONS = "results.zarr", "configurations.extxyz"


def write_results(out: Path, plan: Plan, evidence: Evidence) -> list[Path]:
    """Write `out`/results.zarr, and `out`/configurations.extxyz where the tasks end in particles in a box.

    Each file appears whole or not at all, and replaces the one of an earlier run. Returns the paths written.
    """
    out.mkdir(parents=True, exist_ok=True)
    dataset = results_dataset(plan, evidence)
    written = [out / RESULTS]
    replace_whole(out / RESULTS, lambda path: dataset.to_zarr(path, mode="w", zarr_format=2, consolidated=True))
    if frames := last_configurations(plan, evidence):
        import ase.io

        written.append(out / CONFIGURATIONS)
        replace_whole(out / CONFIGURATIONS, lambda path: ase.io.write(path, frames, format="extxyz"))
    return written


def replace_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` make a file or folder beside `path`, then rename it there; nothing half-written is ever visible."""
    fresh, old = (path.with_name(f".{path.name}.{os.getpid()}.{part}") for part in ("new", "old"))
    try:
        write(fresh)
        if fresh.is_dir() and path.exists():
            os.rename(path, old)  # a folder cannot be renamed onto one that has contents
        os.replace(fresh, path)
    finally:
        for left in (fresh, old):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)


# --- values, errors and series ---------------------------------------------------------------------------------------


def results_dataset(plan: Plan, evidence: Evidence) -> xarray.Dataset:
    """All measured values with errors, and the series of the measured numbers, as one xarray dataset.

    Dimensions: point, repeat, sample (padded with NaN at the end of shorter series), and one of bins for each curve.
    Coordinates of `point`: its label and the swept values by path, in reduced units.
    """
    import xarray

    variables: dict[str, Any] = {}
    for measure in plan.study.measures:
        attributes = {"symbol": measure.symbol, "units": measure.unit, "long_name": measure.name.replace("-", " ")}
        found = [evidence.estimate(point, measure.name) for point in plan.points]
        name = measure.name.replace("-", "_")
        if found[0].axis is None:
            for part, values in (("", [each.value for each in found]), ("_error", [each.error for each in found])):
                variables[name + part] = ("point", np.array(values, dtype=np.float64), attributes)
            variables |= _series(plan, evidence, measure.name, attributes)
        else:
            dims = ("point", f"{name}_bin")
            curves = {"": [each.value for each in found], "_error": [each.error for each in found]}
            axes = np.array(found[0].axis)
            if axes.ndim == 2:  # cells of a plane, the same at every point
                variables[f"{name}_axis"] = (dims[1], f"{name}_coordinate"), axes, attributes
            else:
                curves["_axis"] = [each.axis for each in found]
            for part, rows in curves.items():
                variables[name + part] = (dims, _padded(rows), attributes)
        for part, counts in (
            ("samples_effective", [each.samples_effective for each in found]),
            ("correlation_time", [each.correlation_time for each in found]),
        ):
            variables[f"{name}_{part}"] = ("point", np.array(counts, dtype=np.float64))
    _even(variables)
    return xarray.Dataset(variables, coords=_coordinates(plan), attrs=_attributes(plan))


def _series(plan: Plan, evidence: Evidence, measure: str, attributes: dict[str, str]) -> dict[str, Any]:
    """The samples of a number, [point, repeat, sample], their interval, and their weights where any differs from 1."""
    name = measure.replace("-", "_")
    runs = {(run.point.index, run.repeat): evidence.samples(run, measure) for run in plan.realisations}
    variables: dict[str, Any] = {
        f"{name}_samples": (("point", "repeat", "sample"), _grid(plan, runs, lambda samples: samples.values), attributes),
        f"{name}_interval": (
            "point",
            np.array([runs[point.index, 0].interval for point in plan.points]),
            {"long_name": "simulated time between samples", "units": "reduced"},
        ),
    }
    if any(np.any(samples.weights != 1) for samples in runs.values()):
        variables[f"{name}_weights"] = (("point", "repeat", "sample"), _grid(plan, runs, lambda samples: samples.weights))
    return variables


def _grid(plan: Plan, runs: dict[tuple[int, int], Samples], read: Callable[[Samples], np.ndarray]) -> np.ndarray:
    repeats = range(plan.study.repeats)
    rows = _padded([read(runs[point.index, repeat]) for point in plan.points for repeat in repeats])
    return rows.reshape(len(plan.points), len(repeats), -1)


def _even(variables: dict[str, Any]) -> None:
    """Pad the series of all measures to one length, in place: some are read from samples, some from stored configurations."""
    series = {name: variable for name, variable in variables.items() if variable[0][-1] == "sample"}
    longest = max((variable[1].shape[-1] for variable in series.values()), default=0)
    for name, (dims, values, *rest) in series.items():
        room = [(0, 0), (0, 0), (0, longest - values.shape[-1])]
        variables[name] = (dims, np.pad(values, room, constant_values=np.nan), *rest)


def _padded(rows: Sequence[Any]) -> np.ndarray:
    """Rows of any lengths as one array [rows, longest], NaN past the end of each."""
    arrays = [np.asarray(row, dtype=np.float64) for row in rows]
    grid = np.full((len(arrays), max(len(row) for row in arrays)), np.nan)
    for place, row in zip(grid, arrays, strict=True):
        place[: len(row)] = row
    return grid


def _coordinates(plan: Plan) -> dict[str, Any]:
    paths = dict.fromkeys(path for place in plan.study.sweep for path in place)
    coordinates: dict[str, Any] = {
        "point": np.arange(len(plan.points)),
        "repeat": np.arange(plan.study.repeats),
        "label": ("point", np.array([point.label for point in plan.points], dtype=np.str_)),
    }
    for path in paths:
        part, field = path.split(".")
        swept = [getattr(getattr(point, part), field) for point in plan.points]
        values = np.array([str(value) if isinstance(value, BaseModel) else value for value in swept])
        coordinates[path] = ("point", values, {"units": "reduced"})
    return coordinates


def _attributes(plan: Plan) -> dict[str, str]:
    study = plan.study
    return {
        "study": study.name,
        "title": study.title,
        "digest": study.digest,
        "document": canonical_json(study.document()),
        "versions": ", ".join(f"{package} {version(package)}" for package in ("manybody", "numpy", "xarray", "zarr")),
    }


# --- configurations --------------------------------------------------------------------------------------------------


def last_configurations(plan: Plan, evidence: Evidence) -> list[ase.Atoms]:
    """The last state of every realisation whose last task ends in positions [atoms, 3] in a periodic box, or in a cell
    [3, 3] that is periodic as `pbc` [3] says. A `box` has edges [3], along the unit vectors `box_shape` [3, 3] if given.

    Where a task gives atomic `numbers`, lengths and velocities are in ASE's units. Other particles have no chemical
    element: they are ASE's `X` with mass 1, and momenta are velocities, in reduced units.
    """
    found = [_configuration(run, evidence) for run in plan.realisations]
    return [atoms for atoms in found if atoms is not None]


def _configuration(run: Realisation, evidence: Evidence) -> ase.Atoms | None:
    import ase

    task = run.tasks[-1]
    arrays = evidence.output(task).arrays
    if "positions" not in arrays or ("box" not in arrays and "cell" not in arrays):
        return None
    cell, name = ("cell", "pbc") if "box" not in arrays else ("box", "box")
    positions, box, pbc = (np.asarray(arrays[name], dtype=np.float64) for name in ("positions", cell, name))
    numbers, length, speed = np.zeros(len(positions), dtype=int), 1.0, 1.0
    if "numbers" in arrays and evidence.plan.study.unit_system is not None:
        numbers, (length, speed) = np.asarray(arrays["numbers"]), _in_ase(evidence.plan.study.unit_system)
    vectors = box[:, None] * arrays["box_shape"] if "box_shape" in arrays else box
    atoms = ase.Atoms(numbers=numbers, positions=length * positions, cell=length * vectors, pbc=pbc > 0)
    if "velocities" in arrays:
        atoms.set_velocities(speed * np.asarray(arrays["velocities"], dtype=np.float64))
    atoms.info |= {"point": run.point.label, "repeat": run.repeat, "task": task.digest}
    return atoms


def _in_ase(units: UnitSystem) -> tuple[float, float]:
    """A unit of length and one of velocity, in those of ASE."""
    import ase.units

    length = units.scale(LENGTH) * ase.units.m
    return length, length / (units.scale(TIME) * ase.units.s)
