"""Trajectories: the stored configurations of a run as files that MDTraj, MDAnalysis, ASE, OVITO and VMD open.

| ending | written by | holds |
| --- | --- | --- |
| xtc, dcd, pdb, gro | MDTraj | positions, box, and times but for dcd |
| h5md | h5py, after P. de Buyl et al., Comput. Phys. Commun. 185, 1546 (2014) | positions, box, times, units |
| xyz, extxyz | ASE | positions, box, times |

Lengths are in nm and times in ps, in xyz in angstrom and ps; a study in reduced units has its own numbers in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from manybody.core.errors import InputError, Problem
from manybody.core.study import Realisation
from manybody.core.task import Output, Task
from manybody.core.units import LENGTH, TIME, UnitSystem
from manybody.study.export import replace_whole

_DIMENSIONS = 3


@dataclass(frozen=True)
class Frames:
    """Configurations in order of time: positions [frames, atoms, 3], times [frames], box edges [frames, 3] (0: no box).

    numbers: atomic numbers [atoms], 0 for particles that are no element. Physical ones are in nm and ps. shape: unit vectors
    [3, 3] along the edges, lower triangular.
    """

    positions: np.ndarray
    times: np.ndarray
    boxes: np.ndarray
    numbers: np.ndarray
    physical: bool
    shape: np.ndarray = field(default_factory=lambda: np.eye(3))

    @property
    def cells(self) -> np.ndarray:
        """The vectors of the boxes as rows, [frames, 3, 3]."""
        return np.asarray(self.boxes[:, :, None] * self.shape)


def frames_of(run: Realisation, output: Callable[[Task], Output], units: UnitSystem | None) -> Frames:
    """The stored configurations of all measured tasks of a run, one after the other; time 0 is where these begin.

    Raises `InputError` where they store none.
    """
    positions, times, boxes, elapsed = [], [], [], 0.0
    arrays: Mapping[str, np.ndarray] = {}
    for task in run.measured:
        arrays = output(task).arrays
        if "frames" not in arrays or "box" not in arrays or arrays["frames"].shape[-1] != _DIMENSIONS:
            remedy = "Look at its results with xarray: they are in results.zarr."
            raise InputError(Problem(task.label, "configurations of particles in space", ", ".join(arrays), remedy))
        frames = np.asarray(arrays["frames"], dtype=np.float64)
        positions.append(frames)
        times.append(elapsed + np.asarray(arrays["frame_time"], dtype=np.float64))
        boxes.append(np.broadcast_to(arrays.get("frame_edges", arrays["box"]), (len(frames), _DIMENSIONS)))
        elapsed += float(arrays["time"][-1]) if len(arrays["time"]) else 0.0
    numbers = np.asarray(arrays.get("numbers", np.zeros(positions[0].shape[1])), dtype=np.int64)
    length, time = (1.0, 1.0) if units is None else (1e9 * units.scale(LENGTH), 1e12 * units.scale(TIME))
    return Frames(
        length * np.concatenate(positions),
        time * np.concatenate(times),
        length * np.concatenate(boxes),
        numbers,
        physical=units is not None and "numbers" in arrays,
        shape=np.asarray(arrays.get("box_shape", np.eye(3)), dtype=np.float64),
    )


def write_trajectory(frames: Frames, path: Path) -> None:
    """Write a file of the kind that its ending says; it appears whole or not at all, and replaces one of that name.

    Raises `InputError` for other endings, and where what writes it is not installed.
    """
    ending = path.suffix.lower().lstrip(".")
    if ending not in WRITERS:
        raise InputError(Problem(str(path), f"an ending of {', '.join(WRITERS)}", f"`{ending}`", "Choose one of these."))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        replace_whole(path, lambda place: WRITERS[ending](frames, place, ending))
    except ImportError as error:
        remedy = "Install it: pip install 'manybody[molecules]'."
        raise InputError(Problem(str(path), f"a package that writes {ending}", f"none ({error})", remedy)) from error


def _mdtraj(frames: Frames, path: Path, ending: str) -> None:
    import mdtraj

    lengths = angles = None
    if frames.boxes.any():
        cosines = (frames.shape @ frames.shape.T)[(1, 0, 0), (2, 2, 1)]  # of b and c, a and c, a and b
        lengths = frames.boxes.astype(np.float32)
        angles = np.tile(np.degrees(np.arccos(cosines)).astype(np.float32), (len(lengths), 1))
    positions, times = frames.positions.astype(np.float32), frames.times.astype(np.float32)
    made = mdtraj.Trajectory(positions, _atoms(frames.numbers), time=times, unitcell_lengths=lengths, unitcell_angles=angles)
    getattr(made, f"save_{ending}")(str(path))


def _atoms(numbers: np.ndarray) -> Any:
    """Atoms named after their elements and places, in one residue."""
    from mdtraj import Topology
    from mdtraj.core.element import Element, virtual

    found = Topology()
    residue = found.add_residue("SYS", found.add_chain())
    for number in numbers.tolist():
        element = Element.getByAtomicNumber(number) if number else virtual
        found.add_atom(element.symbol, element, residue)
    return found


def _extended_xyz(frames: Frames, path: Path, ending: str) -> None:
    import ase
    import ase.io

    scale = 10.0 if frames.physical else 1.0
    images = [
        ase.Atoms(frames.numbers, scale * x, cell=scale * cell, pbc=cell.diagonal() > 0, info={"time": float(time)})
        for x, time, cell in zip(frames.positions, frames.times, frames.cells, strict=True)
    ]
    ase.io.write(path, images, format="extxyz", columns=["symbols", "positions"])


def _h5md(frames: Frames, path: Path, ending: str) -> None:
    import h5py

    from manybody import __version__

    with h5py.File(path, "w") as file:
        about = file.create_group("h5md")
        about.attrs["version"] = np.array([1, 1])
        about.create_group("author").attrs["name"] = "manybody"
        about.create_group("creator").attrs.update({"name": "manybody", "version": __version__})
        particles = file.create_group("particles/all")
        particles["species"] = frames.numbers
        box = particles.create_group("box")
        box.attrs["dimension"] = _DIMENSIONS
        box.attrs["boundary"] = ["periodic" if edge > 0 else "none" for edge in frames.boxes[0]]
        position = particles.create_group("position")
        position["step"], position["time"] = np.arange(len(frames.times)), frames.times
        position["value"] = frames.positions
        series = [position["value"]]
        if frames.boxes.any():
            edges = box.create_group("edges")
            edges["step"], edges["time"] = position["step"], position["time"]  # the same data sets, linked
            edges["value"] = frames.boxes if (frames.shape == np.eye(3)).all() else frames.cells
            series.append(edges["value"])
        if frames.physical:
            about.create_group("modules/units").attrs["version"] = np.array([1, 0])
            position["time"].attrs["unit"] = "ps"
            for values in series:
                values.attrs["unit"] = "nm"


WRITERS: dict[str, Callable[[Frames, Path, str], None]] = {
    "xtc": _mdtraj, "dcd": _mdtraj, "pdb": _mdtraj, "gro": _mdtraj, "h5md": _h5md, "xyz": _extended_xyz, "extxyz": _extended_xyz
}  # fmt: skip
