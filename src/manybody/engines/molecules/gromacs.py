"""Molecules from GROMACS's files: a top for the force field, a gro or PDB for the coordinates, read by ParmEd.

GROMACS writes energies in kJ/mol and lengths in nm; ParmEd keeps kcal/mol and angstrom, harmonic terms without the half.
Torsions are periodic (of types 1, 4, 9) or Ryckaert-Bellemans (3), impropers harmonic (2), angles harmonic (1) or with a
Urey-Bradley term (5). Water of a section `settles` is rigid. The extra `manybody[molecules]` brings ParmEd.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from manybody.core.errors import InputError, Problem
from manybody.engines.molecules.amber import ANGSTROM, KCAL, cell_of, terms_of
from manybody.engines.molecules.topology import Array, Indices, Topology, along_bonds, connected, with_rigid_water
from manybody.numerics.bonded import BondedTerms
from manybody.numerics.constraints import Constraints
from manybody.numerics.nonbonded import COULOMB, ListedPairs, lorentz_berthelot

_SPRING = 2 * KCAL / ANGSTROM**2  # a spring without the half, kcal/(mol angstrom^2), as one with it, kJ/(mol nm^2)
_BEND = 2 * KCAL


def read_gromacs(top: Path, coordinates: Path) -> tuple[Topology, Array, Array | None]:
    """Topology, positions [atoms, 3] in nm, and the cell [3, 3] of the box in nm, None where it is zero or not there.

    Raises `InputError` where a file cannot be read, does not fit the other, or holds what this engine does not compute.
    """
    _refuse_includes(top)
    structure = _load(top, coordinates)
    _refuse_what_is_not_computed(structure, top)
    positions = np.asarray(structure.coordinates, dtype=np.float64) * ANGSTROM
    # [ settles ] is read as bonds, one between the hydrogens among them
    return with_rigid_water(_topology(structure), only_held=True), positions, cell_of(structure, coordinates)


def _refuse_includes(top: Path) -> None:
    """Refuse a file that pulls in others: their content would be no part of what the study is identified by."""
    for number, line in enumerate(top.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if line.strip().startswith("#include"):
            remedy = "Write it as one file: `gmx grompp .. -pp whole.top`."
            raise InputError(Problem(f"{top}, line {number}", "a topology that is whole", f"`{line.strip()}`", remedy))


def _load(top: Path, coordinates: Path) -> Any:
    try:
        import parmed
    except ImportError as error:
        remedy = "Install it: pip install 'manybody[molecules]'."
        raise InputError(Problem(str(top), "ParmEd to read GROMACS's files with", "no such package", remedy)) from error
    broken = (parmed.exceptions.ParmedError, ValueError, KeyError, IndexError, TypeError, AssertionError, OSError)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            structure = parmed.gromacs.GromacsTopologyFile(str(top), parametrize=False)
            _refuse_other_forms([str(warning.message) for warning in said], top)
            structure.parametrize()
            other = parmed.load_file(str(coordinates))
    except broken as error:
        expected, remedy = "a GROMACS topology and its coordinates", "Write both again with GROMACS or ParmEd."
        raise InputError(Problem(f"{top} with {coordinates}", expected, f"an error: {error}", remedy)) from error
    positions = _frame(other)
    if len(positions) != len(structure.atoms):
        expected, remedy = f"coordinates of {len(structure.atoms)} atoms", f"Take those that belong to {top.name}."
        raise InputError(Problem(str(coordinates), expected, f"{len(positions)}", remedy))
    structure.coordinates, structure.box = positions, other.box
    return structure


def _frame(file: Any) -> Array:
    """The coordinates [atoms, 3] of whatever ParmEd read, angstrom; [0, 3] where it has none."""
    found = getattr(file, "coordinates", None)
    return np.zeros((0, 3)) if found is None else np.asarray(found, dtype=np.float64).reshape(-1, 3)


def _refuse_other_forms(warned: list[str], top: Path) -> None:
    """Refuse what ParmEd read with a warning that it does not know the form of a term."""
    for text in warned:
        if "functional" in text or "not supported" in text or "not currently supported" in text:
            remedy = "Take bonds of type 1, angles of 1 or 5, torsions of 1, 2, 3, 4 or 9, pairs of 1, and nrexcl 3."
            raise InputError(Problem(str(top), "terms that this engine computes", text, remedy))


def _refuse_what_is_not_computed(structure: Any, top: Path) -> None:
    """Refuse force fields with terms that are not computed here: better no energy than a wrong one."""
    found = None
    if structure.cmaps:
        found = f"{len(structure.cmaps)} cmaps"
    elif structure.defaults.comb_rule == 1:
        found = "combination rule 1, atom types by C6 and C12"
    elif structure.has_NBFIX():
        found = "nonbond_params of single pairs of types"
    elif any(atom.atomic_number == 0 for atom in structure.atoms):
        found = "virtual sites"
    if found:
        remedy = "Take a force field without them."
        raise InputError(Problem(str(top), "bonds, angles, torsions, impropers and Lennard-Jones", found, remedy))


def _topology(structure: Any) -> Topology:
    atoms = structure.atoms
    charges, masses = (np.array([getattr(atom, name) for atom in atoms], dtype=np.float64) for name in ("charge", "mass"))
    bonds = np.array([(bond.atom1.idx, bond.atom2.idx) for bond in structure.bonds], dtype=np.int64).reshape(-1, 2)
    species, c12, c6 = _tables(structure)
    pairs_14 = _pairs_14(structure, charges)
    partners = [(a.idx, b.idx) for a in atoms for b in a.exclusion_partners if a.idx < b.idx]
    excluded = np.concatenate([along_bonds(len(atoms), bonds)[0], pairs_14.atoms, np.array(partners, np.int64).reshape(-1, 2)])
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
        bonded={name: (terms,) for name, terms in _bonded(structure).items()},
        excluded=np.unique(np.sort(excluded, axis=1), axis=0),
        pairs_14=pairs_14,
        constraints=Constraints.none(masses),
    )


def _tables(structure: Any) -> tuple[Indices, Array, Array]:
    """Species [atoms], and C12, C6 of each pair of species by the file's combination rule, kJ/mol nm^12 and nm^6."""
    kinds: dict[tuple[float, float], int] = {}
    species = [kinds.setdefault((atom.sigma, atom.epsilon), len(kinds)) for atom in structure.atoms]
    sigma, epsilon = np.array(list(kinds), dtype=np.float64).T * np.array([[ANGSTROM], [KCAL]])
    c12, c6 = lorentz_berthelot(sigma, epsilon)
    if structure.combining_rule == "geometric":
        mixed, depth = np.sqrt(sigma[:, None] * sigma), 4 * np.sqrt(epsilon[:, None] * epsilon)
        c12, c6 = depth * mixed**12, depth * mixed**6
    return np.array(species, dtype=np.int64), c12, c6


def _pairs_14(structure: Any, charges: Array) -> ListedPairs:
    """The section [ pairs ]: each with a Lennard-Jones term of its own, and Coulomb's law times fudgeQQ."""
    found = [pair for pair in structure.adjusts if pair.type.epsilon != 0 or pair.type.chgscale != 0]
    pairs = np.array([sorted((pair.atom1.idx, pair.atom2.idx)) for pair in found], dtype=np.int64).reshape(-1, 2)
    values = [(pair.type.rmin, pair.type.epsilon, pair.type.chgscale) for pair in found]
    reach, depth, scale = np.array(values, dtype=np.float64).reshape(-1, 3).T
    sixth = (reach * ANGSTROM) ** 6  # u = depth ((reach / r)^12 - 2 (reach / r)^6)
    products = COULOMB * scale * charges[pairs[:, 0]] * charges[pairs[:, 1]]
    return ListedPairs(pairs, products, KCAL * depth * sixth**2, 2 * KCAL * depth * sixth)


def _bonded(structure: Any) -> dict[str, BondedTerms]:
    bonds = [((b.atom1, b.atom2), (_SPRING * b.type.k, b.type.req * ANGSTROM)) for b in structure.bonds]
    angles = [((a.atom1, a.atom2, a.atom3), (_BEND * a.type.k, math.radians(a.type.theteq))) for a in structure.angles]
    found = {"bond": terms_of("harmonic-bond", bonds), "angle": terms_of("harmonic-angle", angles)}
    springs = [
        ((u.atom1, u.atom2), (_SPRING * u.type.k, u.type.req * ANGSTROM)) for u in structure.urey_bradleys if hasattr(u.type, "k")
    ]
    if springs:
        found["urey_bradley"] = terms_of("harmonic-bond", springs)
    for name, improper in (("torsion", False), ("improper", True)):
        rows = [row for dihedral in structure.dihedrals if dihedral.improper == improper for row in _turns(dihedral)]
        found[name] = terms_of("periodic-torsion", rows)
    if structure.rb_torsions:
        powers = [(_four(d), [KCAL * getattr(d.type, f"c{n}") for n in range(6)]) for d in structure.rb_torsions]
        found["ryckaert_bellemans"] = terms_of("ryckaert-bellemans", powers)
    if structure.impropers:
        planes = [(_four(d), [_BEND * d.type.psi_k, math.radians(d.type.psi_eq)]) for d in structure.impropers]
        found["harmonic_improper"] = terms_of("harmonic-improper", planes)
    return found


def _turns(dihedral: Any) -> list[tuple[Any, tuple[float, float, float]]]:
    """A torsion as terms, of which one line of type 9 may have several."""
    kinds = dihedral.type if isinstance(dihedral.type, list) else [dihedral.type]
    return [(_four(dihedral), (KCAL * kind.phi_k, kind.per, math.radians(kind.phase))) for kind in kinds]


def _four(dihedral: Any) -> tuple[Any, Any, Any, Any]:
    return dihedral.atom1, dihedral.atom2, dihedral.atom3, dihedral.atom4
