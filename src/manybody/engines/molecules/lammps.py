"""Molecules from LAMMPS's data files, in units `real`: kcal/mol, angstrom, u, e; harmonic terms without the half.

A data file says nothing of what its input script sets besides. `write_data` notes the units in the first line, a comment;
write there too what the script had, and nothing is guessed:

    LAMMPS data file, units = real, special_bonds = lj 0 0 0.5 coul 0 0 0.8333, mix = arithmetic, boundary = f f f

Sections of coefficients name their style, as `write_data` writes them (``Bond Coeffs # harmonic``). Sources: the pages of
`read_data`, `bond_style`, `angle_style`, `dihedral_style`, `improper_style` and `special_bonds` of LAMMPS's manual.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from manybody.core.errors import InputError, Problem
from manybody.engines.molecules.amber import ANGSTROM, KCAL
from manybody.engines.molecules.cells import reduced
from manybody.engines.molecules.topology import Array, Indices, Topology, along_bonds, connected
from manybody.numerics.bonded import SIZES, BondedTerms, Form
from manybody.numerics.constraints import Constraints
from manybody.numerics.nonbonded import COULOMB, ListedPairs, lorentz_berthelot

_SECTION = re.compile(r"^(Masses|Atoms|Velocities|Bonds|Angles|Dihedrals|Impropers|\w+ Coeffs)\s*(?:#\s*(.*\S))?\s*$")
_SPRING, _BEND = 2 * KCAL / ANGSTROM**2, 2 * KCAL

Coefficients = Sequence[float]
Made = list[tuple[str, Form, Sequence[int], Sequence[float]]]  # name, form, which of the atoms, parameters


@dataclass(frozen=True)
class _Settings:
    """What the first line says of the input script."""

    scale_lj: float
    scale_coulomb: float
    mix: str
    periodic: bool


class _Data:
    """A data file: counts and bounds of its header, and sections as rows of words, with the style that each names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        self.title = lines[0] if lines else ""
        self.rows: dict[str, list[list[str]]] = {}
        self.styles: dict[str, str] = {}
        self.bounds: dict[str, tuple[float, float]] = {}
        self.tilts = (0.0, 0.0, 0.0)  # xy, xz, yz
        section = ""
        for number, line in enumerate(lines[1:], 2):
            if found := _SECTION.match(line.strip()):
                section = found[1]
                self.rows[section], self.styles[section] = [], found[2] or ""
            elif words := line.split("#")[0].split():
                if section:
                    self.rows[section].append(words)
                elif words[-1] in ("xhi", "yhi", "zhi"):
                    self.bounds[words[-1][0]] = (float(words[0]), float(words[1]))
                elif words[-1] == "yz":
                    self.tilts = (float(words[0]), float(words[1]), float(words[2]))
                elif words[-1] in ("avec", "bvec", "cvec"):
                    remedy = "Write it as a restricted triclinic box."
                    self.refuse("a box of bounds and tilts xy xz yz", f"line {number}: `{line.strip()}`", remedy)

    def refuse(self, expected: str, came: str, remedy: str) -> NoReturn:
        """Raise the `InputError` of this file."""
        raise InputError(Problem(str(self.path), expected, came, remedy))

    def settings(self) -> _Settings:
        """What the first line says; refused where it leaves something to guess."""
        said = {key.strip(): value.strip() for key, _, value in (part.partition("=") for part in self.title.split(","))}
        if said.get("units") != "real":
            self.refuse("`units = real` in the first line", f"`{self.title}`", "Write there what the input script sets.")
        special = said.get("special_bonds", "").split()
        if special == ["amber"]:
            special = ["lj", "0", "0", "0.5", "coul", "0", "0", f"{5 / 6!r}"]
        if len(special) != 8 or special[0] != "lj" or special[4] != "coul" or any(map(float, special[1:3] + special[5:7])):
            expected = "`special_bonds = lj 0 0 A coul 0 0 B` in the first line, A and B being what is left of 1-4 pairs"
            self.refuse(expected, f"`{' '.join(special) or 'none'}`", "Write there what the input script sets.")
        if said.get("mix") not in ("arithmetic", "geometric"):
            came = f"`{said.get('mix', 'none')}`"
            self.refuse("`mix = arithmetic` or `mix = geometric` in the first line", came, "Write what `pair_modify` sets.")
        periodic = said.get("boundary", "p p p").split()
        if periodic not in (["p"] * 3, ["f"] * 3, ["s"] * 3, ["m"] * 3):
            self.refuse("`boundary = p p p` or `f f f`", f"`{' '.join(periodic)}`", "Take one kind along all axes.")
        if any(self.tilts) and periodic[0] != "p":
            self.refuse("`boundary = p p p` of a tilted box", f"`{' '.join(periodic)}`", "Take a box that is not tilted.")
        return _Settings(float(special[3]), float(special[7]), said["mix"], periodic[0] == "p")

    def coefficients(self, section: str, styles: Mapping[str, int]) -> dict[int, list[float]]:
        """Coefficients by type; the style must be among `styles`, which say how many numbers each takes at least."""
        style = self.styles.get(section, "")
        if section in self.rows and style not in styles:
            expected = f"one of the styles {', '.join(styles)}"
            self.refuse(f"{section}: {expected}", f"`{style or 'none'}`", f"Write `{section} # {next(iter(styles))}`.")
        found = {int(row[0]): [float(word) for word in row[1:]] for row in self.rows.get(section, ())}
        for kind, values in found.items():
            if len(values) < styles[style]:
                self.refuse(f"{section}: {styles[style]} numbers for `{style}`", f"type {kind} with {len(values)}", "Add them.")
        return found


def read_lammps(path: Path) -> tuple[Topology, Array, Array | None]:
    """Topology, positions [atoms, 3] in nm (whole molecules), and the cell [3, 3] of the box in nm, None without one.

    Raises `InputError` where the file cannot be read, or holds what this engine does not compute.
    """
    data = _Data(path)
    settings = data.settings()
    missing = {"Masses", "Atoms", "Pair Coeffs"} - set(data.rows)
    if missing or set(data.bounds) != set("xyz"):
        data.refuse("a data file with Masses, Atoms and Pair Coeffs", f"none of {', '.join(sorted(missing))}", "Use write_data.")
    try:
        return _read(data, settings)
    except (ValueError, IndexError, KeyError) as error:
        data.refuse("a data file of atom_style full", f"an error: {error!r}", "Write it again with write_data.")


def _read(data: _Data, settings: _Settings) -> tuple[Topology, Array, Array | None]:
    if data.styles["Atoms"] not in ("full", ""):
        data.refuse("Atoms of style full", f"`{data.styles['Atoms']}`", "Use `atom_style full`.")
    rows = sorted(data.rows["Atoms"], key=lambda row: int(row[0]))
    place = {int(row[0]): index for index, row in enumerate(rows)}
    kinds = np.array([int(row[2]) for row in rows])
    charges = np.array([float(row[3]) for row in rows])
    bounds = np.array([data.bounds[axis] for axis in "xyz"])
    cell = np.diag(np.diff(bounds, axis=1)[:, 0])
    cell[(1, 2, 2), (0, 0, 1)] = data.tilts
    images = np.array([[int(word) for word in row[7:10]] if len(row) >= 10 else [0] * 3 for row in rows])
    positions = (np.array([[float(word) for word in row[4:7]] for row in rows]) + images @ cell) * ANGSTROM
    weights = {int(row[0]): float(row[1]) for row in data.rows["Masses"]}
    masses = np.array([weights[kind] for kind in kinds])
    bonded, bonds = _bonded(data, place)
    species, c12, c6 = _tables(data, settings, kinds)
    pairs, apart = along_bonds(len(rows), bonds)
    first, second = pairs[apart == 3].T
    molecule, numbers = connected(len(rows), bonds), _numbers(masses)
    topology = Topology(
        names=tuple(_symbols(numbers)),
        residues=("MOL",) * len(rows),
        residue=molecule,
        molecule=molecule,
        bonds=bonds,
        numbers=numbers,
        masses=masses,
        charges=charges,
        species=species,
        c12=c12,
        c6=c6,
        bonded=bonded,
        excluded=pairs,
        pairs_14=ListedPairs(
            pairs[apart == 3],
            settings.scale_coulomb * COULOMB * charges[first] * charges[second],
            settings.scale_lj * c12[species[first], species[second]],
            settings.scale_lj * c6[species[first], species[second]],
        ),
        constraints=Constraints.none(masses),
    )
    return topology, positions, reduced(cell * ANGSTROM) if settings.periodic else None


def _tables(data: _Data, settings: _Settings, kinds: Indices) -> tuple[Indices, Array, Array]:
    """Species [atoms], and C12, C6 of each pair of species, kJ/mol nm^12 and nm^6."""
    if "PairIJ Coeffs" in data.rows:
        data.refuse("coefficients that are mixed", "PairIJ Coeffs", "Give Pair Coeffs, and the rule in the first line.")
    styles = {f"lj/cut{coulomb}": 2 for coulomb in ("", "/coul/cut", "/coul/long", "/coul/dsf", "/coul/msm")}
    found = data.coefficients("Pair Coeffs", styles)
    order = sorted(found)
    epsilon, sigma = (np.array([found[kind][column] for kind in order]) for column in (0, 1))
    sigma, epsilon = sigma * ANGSTROM, epsilon * KCAL
    c12, c6 = lorentz_berthelot(sigma, epsilon)
    if settings.mix == "geometric":
        mixed, depth = np.sqrt(sigma[:, None] * sigma), 4 * np.sqrt(epsilon[:, None] * epsilon)
        c12, c6 = depth * mixed**12, depth * mixed**6
    return np.array([order.index(kind) for kind in kinds], dtype=np.int64), c12, c6


# --- terms along bonds -------------------------------------------------------------------------------------------


def _harmonic(name: str, spring: float, length: float) -> Callable[[Coefficients], Made]:
    form: Form = "harmonic-bond" if name == "bond" else "harmonic-angle"
    atoms = range(2 if name == "bond" else 3)
    return lambda c: [(name, form, atoms, (spring * c[0], length * c[1]))]


def _charmm_angle(c: Coefficients) -> Made:
    made: Made = [("angle", "harmonic-angle", range(3), (_BEND * c[0], math.radians(c[1])))]
    if c[2]:
        made.append(("urey_bradley", "harmonic-bond", (0, 2), (_SPRING * c[2], c[3] * ANGSTROM)))
    return made


def _signed(name: str) -> Callable[[Coefficients], Made]:
    """K (1 + d cos(n phi)) with d = 1 or -1."""
    return lambda c: [(name, "periodic-torsion", range(4), (KCAL * c[0], c[2], 0.0 if c[1] > 0 else math.pi))]


def _charmm(c: Coefficients) -> Made:
    if c[3]:
        raise ValueError(f"a torsion of style charmm weighs its ends by {c[3]:g}: set it to 0, and special_bonds to what is left")
    return [("torsion", "periodic-torsion", range(4), (KCAL * c[0], c[1], math.radians(c[2])))]


def _opls(c: Coefficients) -> Made:
    """K_n (1 -+ cos(n phi)) / 2, the sign being + for odd n."""
    terms = [(0.5 * KCAL * c[n - 1], float(n), 0.0 if n % 2 else math.pi) for n in range(1, 5)]
    return [("torsion", "periodic-torsion", range(4), term) for term in terms if term[0]]


def _powers(c: Coefficients) -> Made:
    """sum_n A_n cos(phi)^(n - 1); Ryckaert and Bellemans count from trans."""
    values = [KCAL * value * (-1) ** n for n, value in enumerate(c[:5])]
    return [("ryckaert_bellemans", "ryckaert-bellemans", range(4), (*values, 0.0))]


def _morse(c: Coefficients) -> Made:
    return [("bond", "morse-bond", range(2), (KCAL * c[0], c[1] / ANGSTROM, c[2] * ANGSTROM))]


# section of terms: of coefficients, and how each style becomes terms, from how many numbers
_STYLES: dict[str, tuple[str, dict[str, tuple[int, Callable[[Coefficients], Made]]]]] = {
    "Bonds": ("Bond Coeffs", {"harmonic": (2, _harmonic("bond", _SPRING, ANGSTROM)), "morse": (3, _morse)}),
    "Angles": (
        "Angle Coeffs",
        {"harmonic": (2, _harmonic("angle", _BEND, math.pi / 180)), "charmm": (4, _charmm_angle)},
    ),
    "Dihedrals": (
        "Dihedral Coeffs",
        {"harmonic": (3, _signed("torsion")), "charmm": (4, _charmm), "opls": (4, _opls), "multi/harmonic": (5, _powers)},
    ),
    "Impropers": ("Improper Coeffs", {"cvff": (3, _signed("improper"))}),
}


def _bonded(data: _Data, place: Mapping[int, int]) -> tuple[dict[str, tuple[BondedTerms, ...]], Indices]:
    """Terms by name, and all bonds [bonds, 2]."""
    rows: dict[tuple[str, Form], list[tuple[list[int], Sequence[float]]]] = {}
    for section, (coefficients, styles) in _STYLES.items():
        values = data.coefficients(coefficients, {name: count for name, (count, _) in styles.items()})
        for row in data.rows.get(section, ()):
            atoms = [place[int(word)] for word in row[2:]]
            for name, form, chosen, parameters in styles[data.styles[coefficients]][1](values[int(row[1])]):
                rows.setdefault((name, form), []).append(([atoms[k] for k in chosen], parameters))
    found: dict[str, tuple[BondedTerms, ...]] = {"bond": (), "angle": (), "torsion": (), "improper": ()}
    for (name, form), terms in rows.items():
        members, count = SIZES[form]
        members_of = np.array([term[0] for term in terms], dtype=np.int64).reshape(-1, members)
        values_of = np.array([term[1] for term in terms], dtype=np.float64).reshape(-1, count)
        found[name] = (*found.get(name, ()), BondedTerms(form, members_of, values_of))
    bonds = [[place[int(word)] for word in row[2:4]] for row in data.rows.get("Bonds", ())]
    return found, np.array(bonds, dtype=np.int64).reshape(-1, 2)


def _numbers(masses: Array) -> Indices:
    """The elements whose standard atomic weights are closest to the masses: a data file names none."""
    from ase.data import atomic_masses

    return np.asarray(np.abs(masses[:, None] - atomic_masses[1:100]).argmin(axis=1) + 1, dtype=np.int64)


def _symbols(numbers: Indices) -> list[str]:
    from ase.data import chemical_symbols

    return [chemical_symbols[number] for number in numbers]
