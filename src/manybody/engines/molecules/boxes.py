"""Molecules in a periodic box, from files: a system, typed, torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from manybody.core.errors import InputError
from manybody.core.spec import refuse
from manybody.core.units import Length
from manybody.engines.molecules.cells import RIGHT, angles_of, lengths
from manybody.engines.molecules.spec import COORDINATES, TOPOLOGY, BoxOfMolecules, Contents, FromFiles, Rigid


class MolecularBox(BoxOfMolecules, FromFiles):
    """Molecules in a periodic box, with force field, coordinates and box from files of Amber, GROMACS or LAMMPS.

    The box may be tilted, such as a truncated octahedron or a rhombic dodecahedron; what is found is its reduced cell.
    """

    summary: ClassVar[str] = "molecules in a periodic box, from files of Amber, GROMACS or LAMMPS: solutions, liquids"
    symmetries: ClassVar[tuple[str, ...]] = ("translation", "permutation")

    name: Literal["molecular-box"] = "molecular-box"
    topology: str = Field("alanine-dipeptide-tip3p.prmtop", description=TOPOLOGY)
    coordinates: str = Field("alanine-dipeptide-tip3p.inpcrd", description=COORDINATES)
    cutoff: Length = Field(0.8, gt=0.4, description="Lennard-Jones pairs further apart do not interact; at most half the box")
    switch: Length = Field(0.7, gt=0.3, description="where the Lennard-Jones energy begins to be switched off; the cutoff: not")
    rigid: Rigid = Field("h-bonds", description="`h-bonds` keeps bonds to hydrogen, and water, rigid; `water`; or `none`")
    atoms: int = Field(0, ge=0, description="number of atoms; leave it out, and it is found")
    molecules: int = Field(0, ge=0, description="number of molecules; leave it out, and it is found")
    mass: float = Field(0.0, ge=0, description="mass of all atoms, u; leave it out, and it is found")
    edges: tuple[float, float, float] = Field((0.0, 0.0, 0.0), description="of the box, nm; leave them out, and they are found")
    angles: tuple[float, float, float] = Field(RIGHT, description="of the box, degrees; leave them out, and they are found")

    @property
    def contents(self) -> Contents:
        """What the files have."""
        return Contents(self.atoms, self.molecules, self.mass, self.edges, self.angles)

    @property
    def remedy(self) -> str:
        """A smaller cutoff, or another file."""
        return "Lower the cutoff, or solvate the molecule in a larger box."

    @classmethod
    def looked_up(cls, topology: Path, coordinates: Path) -> dict[str, Any]:
        """Contents and box: the files are read, so what is wrong with them is said here."""
        from manybody.engines.molecules.formats import read_box  # loads torch: only where a study is read

        try:
            found, _, cell = read_box(topology, coordinates)
        except InputError as error:
            (problem,) = error.problems
            refuse("topology", problem.expected, f"{problem.where}: {problem.came}", problem.remedy)
        box = {"edges": tuple(lengths(cell).tolist()), "angles": angles_of(cell)}
        return {"atoms": found.atoms, "molecules": found.molecules, "mass": float(found.masses.sum())} | box

    @property
    def unused(self) -> set[str]:
        """Fields that are left out of the document: studies from before there were such stay the same."""
        return super().unused | ({"angles"} if self.angles == RIGHT else set())
