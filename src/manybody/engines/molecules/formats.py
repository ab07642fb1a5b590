"""Molecules from the files that people have, by the ending of the file of the force field.

| force field | coordinates | read by |
| --- | --- | --- |
| Amber `prmtop`, `parm7` | inpcrd, rst7, PDB, gro | `amber.py` |
| GROMACS `top` | gro, PDB, inpcrd | `gromacs.py` |
| LAMMPS `data`, `lmp` | the same file | `lammps.py` |
"""

from __future__ import annotations

from pathlib import Path

from manybody.core.errors import InputError, Problem
from manybody.engines.molecules.amber import read_amber
from manybody.engines.molecules.gromacs import read_gromacs
from manybody.engines.molecules.lammps import read_lammps
from manybody.engines.molecules.topology import Array, Topology, made_whole

AMBER, GROMACS, LAMMPS = (".prmtop", ".parm7"), (".top",), (".data", ".lmp")


def read_molecule(force_field: Path, coordinates: Path) -> tuple[Topology, Array, Array | None]:
    """Topology, positions [atoms, 3] in nm, and the cell [3, 3] of the box in nm, None in vacuum.

    Raises `InputError` where a file is missing, cannot be read, does not fit the other, or holds what is not computed here.
    """
    for path in (force_field, coordinates):
        if not path.is_file():
            raise InputError(Problem("molecule", "a file", f"{path}, which is not there", "Give its path from where you run."))
    ending = force_field.suffix.lower()
    if ending in GROMACS:
        return read_gromacs(force_field, coordinates)
    if ending in LAMMPS:
        if coordinates.resolve() != force_field.resolve():
            remedy = "Name the data file twice."
            raise InputError(Problem(str(coordinates), f"{force_field}, which has the coordinates too", "another file", remedy))
        return read_lammps(force_field)
    if ending in AMBER:
        return read_amber(force_field, coordinates)
    expected = f"a file ending in {', '.join((*AMBER, *GROMACS, *LAMMPS))}"
    raise InputError(Problem(str(force_field), expected, f"`{ending}`", "Convert it with ParmEd."))


def read_box(force_field: Path, coordinates: Path) -> tuple[Topology, Array, Array]:
    """Topology, positions [atoms, 3] of whole molecules in nm, and the reduced cell [3, 3] of the box they are in, nm.

    Raises `InputError` as `read_molecule`, and where there is no box, or a molecule that has no end in it.
    """
    topology, positions, cell = read_molecule(force_field, coordinates)
    if cell is None:
        remedy = "Solvate the molecule, write coordinates with their box, or take the system `molecule`."
        raise InputError(Problem(str(coordinates), "a periodic box", "none", remedy))
    try:
        return topology, made_whole(positions, topology.bonds, cell), cell
    except ValueError as error:
        remedy = "Take molecules that end within the box."
        raise InputError(Problem(str(coordinates), "molecules smaller than the box", str(error), remedy)) from error
