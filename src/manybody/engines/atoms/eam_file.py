"""Files of embedded-atom potentials: setfl (``.eam.alloy``, ``.eam.fs``) and funcfl (``.eam``). Torch-free.

The formats are those of DYNAMO that LAMMPS documents at its `pair_style eam`: energies in eV, lengths in angstroms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manybody.core.errors import InputError, Problem

FORMS = {".alloy": "setfl", ".fs": "fs", ".eam": "funcfl"}
CHARGE_ENERGY = 27.2 * 0.529  # eV angstrom: r phi over the product of two charges in funcfl, as DYNAMO and LAMMPS have it


@dataclass(frozen=True)
class EamFile:
    """Samples on even grids from 0: k `step` in density, k `spacing` in distance; both begin at 0.

    embedding [elements, nrho], eV; density [elements, elements, nr], what the first adds at the second; pair [elements,
    elements, nr], r phi(r), eV angstrom. masses: u; lattice_constants: angstroms, as the file says.
    """

    elements: tuple[str, ...]
    masses: tuple[float, ...]
    lattice_constants: tuple[float, ...]
    embedding: np.ndarray
    density: np.ndarray
    pair: np.ndarray
    step: float
    spacing: float
    cutoff: float


def form_of(path: Path) -> str:
    """The format of a file by its name. Raises `InputError` for another."""
    if path.suffix not in FORMS:
        remedy = "Rename the file by its format."
        raise InputError(Problem(str(path), f"a name that ends in {', '.join(FORMS)}", path.name, remedy))
    return FORMS[path.suffix]


def elements_of(path: Path) -> tuple[str, ...]:
    """The elements that a file is for, from its head. Raises `InputError` where it is no such file."""
    with path.open(encoding="utf-8") as file:
        head = [file.readline() for _ in range(5)]
    try:
        if form_of(path) == "funcfl":
            from ase.data import chemical_symbols

            return (str(chemical_symbols[int(head[1].split()[0])]),)
        words = head[3].split()
        if not words or len(words) != 1 + int(words[0]):
            raise ValueError("the fourth line does not name as many elements as it says")
        return tuple(words[1:])
    except (ValueError, IndexError) as error:
        raise _no_potential(path, error) from error


def read_eam(path: Path) -> EamFile:
    """The potential in a file. Raises `InputError` where it is none, or not whole."""
    form = form_of(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return _read_funcfl(lines) if form == "funcfl" else _read_setfl(lines, form)
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise _no_potential(path, error) from error


def write_setfl(potential: EamFile, path: Path, comments: tuple[str, str, str]) -> None:
    """Write a potential as setfl, 17 digits of every number: what is read is what was written."""
    from ase.data import atomic_numbers

    count, nr = len(potential.elements), potential.pair.shape[-1]
    grid = f"{potential.embedding.shape[-1]} {potential.step:.17g} {nr} {potential.spacing:.17g} {potential.cutoff:.17g}"
    lines = [*comments, f"{count} {' '.join(potential.elements)}", grid]
    for index, element in enumerate(potential.elements):
        known = potential.masses[index], potential.lattice_constants[index]
        lines.append(f"{atomic_numbers[element]} {known[0]:.17g} {known[1]:.17g} fcc")
        lines += _rows(potential.embedding[index]) + _rows(potential.density[index, index])
    for first in range(count):
        for second in range(first + 1):
            lines += _rows(potential.pair[first, second])
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rows(values: np.ndarray) -> list[str]:
    texts = [f"{value:.17g}" for value in values]
    return [" ".join(texts[k : k + 4]) for k in range(0, len(texts), 4)]


def _read_setfl(lines: list[str], form: str) -> EamFile:
    words = lines[3].split()
    elements = tuple(words[1 : 1 + int(words[0])])
    grid = lines[4].split()
    nrho, step, nr, spacing, cutoff = int(grid[0]), float(grid[1]), int(grid[2]), float(grid[3]), float(grid[4])
    numbers = iter(" ".join(lines[5:]).split())
    count = len(elements)
    embedding, density = np.empty((count, nrho)), np.empty((count, count, nr))
    masses, constants = [], []
    for index in range(count):
        _, mass, constant, _ = (next(numbers) for _ in range(4))
        masses.append(float(mass))
        constants.append(float(constant))
        embedding[index] = _take(numbers, nrho)
        if form == "fs":
            density[index] = [_take(numbers, nr) for _ in range(count)]
        else:
            density[index] = _take(numbers, nr)
    pair = np.empty((count, count, nr))
    for first in range(count):
        for second in range(first + 1):
            pair[first, second] = pair[second, first] = _take(numbers, nr)
    return EamFile(elements, tuple(masses), tuple(constants), embedding, density, pair, step, spacing, cutoff)


def _read_funcfl(lines: list[str]) -> EamFile:
    from ase.data import chemical_symbols

    number, mass, constant = lines[1].split()[:3]
    grid = lines[2].split()
    nrho, step, nr, spacing, cutoff = int(grid[0]), float(grid[1]), int(grid[2]), float(grid[3]), float(grid[4])
    numbers = iter(" ".join(lines[3:]).replace("D", "e").split())
    embedding, charge, density = _take(numbers, nrho), _take(numbers, nr), _take(numbers, nr)
    symbol = (str(chemical_symbols[int(number)]),)
    pair = CHARGE_ENERGY * charge**2
    return EamFile(
        symbol, (float(mass),), (float(constant),), embedding[None], density[None, None], pair[None, None], step, spacing, cutoff
    )


def _take(numbers: Iterator[str], count: int) -> np.ndarray:
    values = np.array([float(next(numbers, "nothing")) for _ in range(count)])
    if not np.isfinite(values).all():
        raise ValueError("a number is not finite")
    return values


def _no_potential(path: Path, error: Exception) -> InputError:
    came = f"something else ({error})"
    return InputError(Problem(str(path), "an embedded-atom potential as its name says", came, "Get the file again."))
