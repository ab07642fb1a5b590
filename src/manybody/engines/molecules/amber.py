"""Molecules from Amber's files: a prmtop for the force field, an inpcrd or rst7 for the coordinates, read by ParmEd.

Amber writes energies in kcal/mol, lengths in angstrom, bonds and angles as k (q - q0)^2 without the half. The extra
`manybody[molecules]` brings ParmEd.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from manybody.core.errors import InputError, Problem
from manybody.engines.molecules.cells import read_cell
from manybody.engines.molecules.topology import Array, Indices, Topology, connected
from manybody.numerics.bonded import SIZES, BondedTerms, Form
from manybody.numerics.constraints import Constraints
from manybody.numerics.nonbonded import COULOMB, ListedPairs

KCAL, ANGSTROM = 4.184, 0.1  # in kJ and nm


def read_amber(prmtop: Path, coordinates: Path) -> tuple[Topology, Array, Array | None]:
    """Topology, positions [atoms, 3] in nm, and the cell [3, 3] of the box in nm, None in vacuum.

    Raises `InputError` where a file cannot be read, does not fit the other, or holds what this engine does not compute.
    """
    parm = _load(prmtop, coordinates)
    if parm.coordinates is None or len(parm.coordinates) != len(parm.atoms):
        came = f"{0 if parm.coordinates is None else len(parm.coordinates)}"
        remedy = f"Take the coordinates that belong to {prmtop.name}."
        raise InputError(Problem(str(coordinates), f"coordinates of {len(parm.atoms)} atoms", came, remedy))
    _refuse_what_is_not_computed(parm, prmtop)
    return _topology(parm), np.asarray(parm.coordinates, dtype=np.float64) * ANGSTROM, cell_of(parm, coordinates)


def cell_of(structure: Any, coordinates: Path) -> Array | None:
    """The reduced cell [3, 3] of the box of a ParmEd structure, nm; None where there is none.

    A box has lengths and angles; its first edge is along x, its second in the plane of x and y. Raises `InputError` where
    they span no volume.
    """
    if structure.box is None or not np.any(structure.box[:3]):
        return None
    if coordinates.suffix.lower() == ".gro":
        _refuse_turned(coordinates, len(structure.atoms))
    box = [float(value) for value in structure.box]
    return read_cell(box[:3], box[3:], ANGSTROM, coordinates)


def _refuse_turned(gro: Path, atoms: int) -> None:
    """Refuse a box that GROMACS would not write: lengths and angles, which are all that is read of it, are turned otherwise.

    Its line is v1(x) v2(y) v3(z), then v1(y) v1(z) v2(x) v2(z) v3(x) v3(y) unless these are zero.
    """
    words = gro.read_text(encoding="utf-8", errors="replace").splitlines()[atoms + 2].split()
    if len(words) == 9 and any(float(words[place]) for place in (3, 4, 6)):
        expected, remedy = "a box with v1(y) = v1(z) = v2(z) = 0", "Write coordinates and box with GROMACS."
        raise InputError(Problem(str(gro), expected, f"`{' '.join(words)}`", remedy))


def _load(prmtop: Path, coordinates: Path) -> Any:
    try:
        import parmed
    except ImportError as error:
        remedy = "Install it: pip install 'manybody[molecules]'."
        raise InputError(Problem(str(prmtop), "ParmEd to read Amber's files with", "no such package", remedy)) from error
    for path in (prmtop, coordinates):
        if not path.is_file():
            raise InputError(Problem("molecule", "a file", f"{path}, which is not there", "Give its path from where you run."))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", parmed.exceptions.ParmedWarning)
            return parmed.amber.AmberParm(str(prmtop), xyz=str(coordinates))
    except (parmed.exceptions.ParmedError, ValueError, KeyError, IndexError, TypeError) as error:
        remedy = "Write both again with tleap or ParmEd."
        raise InputError(
            Problem(f"{prmtop} with {coordinates}", "an Amber prmtop and its inpcrd", f"an error: {error}", remedy)
        ) from error


def _refuse_what_is_not_computed(parm: Any, prmtop: Path) -> None:
    """Refuse force fields with terms that are not computed here: better no energy than a wrong one."""
    if "CTITLE" in parm.parm_data:
        remedy = "Convert it to a GROMACS topology with ParmEd."
        raise InputError(Problem(str(prmtop), "a force field of Amber's own", "one of CHARMM, as chamber writes it", remedy))
    for name in ("urey_bradleys", "impropers", "cmaps", "rb_torsions", "trigonal_angles", "adjusts"):
        if len(getattr(parm, name, ())):
            remedy = "Take a force field of bonds, angles, torsions and Lennard-Jones, such as ff14SB."
            raise InputError(Problem(str(prmtop), "terms of the plain Amber form", f"{len(getattr(parm, name))} {name}", remedy))
    if any(
        value != 0 for flag in ("HBOND_ACOEF", "HBOND_BCOEF", "LENNARD_JONES_CCOEF") for value in parm.parm_data.get(flag, ())
    ):
        remedy = "Take a force field of the 12-6 form."
        raise InputError(Problem(str(prmtop), "Lennard-Jones terms of the form 12-6", "10-12 or 12-6-4 terms", remedy))


def _topology(parm: Any) -> Topology:
    atoms = parm.atoms
    charges = np.array(parm.parm_data["CHARGE"], dtype=np.float64)  # ParmEd has made them e
    species = np.array(parm.parm_data["ATOM_TYPE_INDEX"], dtype=np.int64) - 1
    c12, c6 = _tables(parm)
    bonds = np.array([(bond.atom1.idx, bond.atom2.idx) for bond in parm.bonds], dtype=np.int64).reshape(-1, 2)
    masses = np.array([atom.mass for atom in atoms], dtype=np.float64)
    return Topology(
        names=tuple(atom.name for atom in atoms),
        residues=tuple(atom.residue.name for atom in atoms),
        residue=np.array([atom.residue.idx for atom in atoms]),
        molecule=connected(len(atoms), bonds),
        bonds=bonds,
        numbers=np.array([atom.atomic_number for atom in atoms]),
        masses=masses,
        charges=charges,
        species=species,
        c12=c12,
        c6=c6,
        bonded={name: (terms,) for name, terms in _bonded(parm).items()},
        excluded=_excluded(parm),
        pairs_14=_pairs_14(parm, charges, species, c12, c6),
        constraints=Constraints.none(masses),
    )


def _tables(parm: Any) -> tuple[Array, Array]:
    """C12 and C6 of each pair of species, kJ/mol nm^12 and nm^6."""
    data = parm.parm_data
    species = max(data["ATOM_TYPE_INDEX"])
    index = np.array(data["NONBONDED_PARM_INDEX"], dtype=np.int64).reshape(species, species) - 1
    c12 = np.array(data["LENNARD_JONES_ACOEF"], dtype=np.float64)[index] * KCAL * ANGSTROM**12
    c6 = np.array(data["LENNARD_JONES_BCOEF"], dtype=np.float64)[index] * KCAL * ANGSTROM**6
    return c12, c6


def _bonded(parm: Any) -> dict[str, BondedTerms]:
    stiff, bend = 2 * KCAL / ANGSTROM**2, 2 * KCAL
    bonds = [((b.atom1, b.atom2), (stiff * b.type.k, b.type.req * ANGSTROM)) for b in parm.bonds]
    angles = [((a.atom1, a.atom2, a.atom3), (bend * a.type.k, np.radians(a.type.theteq))) for a in parm.angles]
    turns = [
        (d.improper, (d.atom1, d.atom2, d.atom3, d.atom4), (KCAL * d.type.phi_k, d.type.per, np.radians(d.type.phase)))
        for d in parm.dihedrals
    ]
    return {
        "bond": terms_of("harmonic-bond", bonds),
        "angle": terms_of("harmonic-angle", angles),
        "torsion": terms_of("periodic-torsion", [(atoms, p) for improper, atoms, p in turns if not improper]),
        "improper": terms_of("periodic-torsion", [(atoms, p) for improper, atoms, p in turns if improper]),
    }


def terms_of(form: Form, rows: list[tuple[Any, Any]]) -> BondedTerms:
    """Terms from rows of ParmEd's atoms and of parameters in the order of the formula."""
    members, values = SIZES[form]
    atoms = np.array([[atom.idx for atom in row[0]] for row in rows], dtype=np.int64).reshape(-1, members)
    return BondedTerms(form, atoms, np.array([row[1] for row in rows], dtype=np.float64).reshape(-1, values))


def _excluded(parm: Any) -> Indices:
    """The pairs of the exclusion lists, in which 0 says that an atom has none."""
    counts, entries = parm.parm_data["NUMBER_EXCLUDED_ATOMS"], parm.parm_data["EXCLUDED_ATOMS_LIST"]
    first = np.repeat(np.arange(len(counts)), counts)
    second = np.array(entries[: len(first)], dtype=np.int64) - 1
    return np.stack([first, second], axis=1)[second >= 0]


def _pairs_14(parm: Any, charges: Array, species: Indices, c12: Array, c6: Array) -> ListedPairs:
    """The ends of torsions that count: Coulomb over SCEE, Lennard-Jones over SCNB."""
    found: dict[tuple[int, int], tuple[float, float]] = {}
    for turn in parm.dihedrals:
        if not (turn.improper or turn.ignore_end):
            low, high = sorted((turn.atom1.idx, turn.atom4.idx))
            found.setdefault((low, high), (turn.type.scee, turn.type.scnb))
    pairs = np.array(list(found), dtype=np.int64).reshape(-1, 2)
    scee, scnb = np.array(list(found.values()), dtype=np.float64).reshape(-1, 2).T
    i, j = pairs.T
    kinds = species[i], species[j]
    return ListedPairs(pairs, COULOMB * charges[i] * charges[j] / scee, c12[kinds] / scnb, c6[kinds] / scnb)
