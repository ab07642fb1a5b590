"""The tasks of statics: atoms and cell relaxed, then strained.

Birch and Murnaghan's equation of state, to fourth order in strain, is a polynomial in x = V^(-2/3), so its fit is linear:
E = a + b x + c x^2 + d x^3 + e x^4; at the minimum x_0, V_0 = x_0^(-3/2) and B = V d^2E/dV^2 = (4/9) x_0^2 E''(x_0) / V_0.
Source: F. Birch, Phys. Rev. 71, 809 (1947).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.filters import UnitCellFilter
from ase.optimize import LBFGS

from manybody.core.energies import EnergyError, ForceProvider
from manybody.core.errors import TaskError
from manybody.core.protocols import Context
from manybody.core.task import Output, Progress, Task
from manybody.engines.atoms.energies.calculator import DrivenCalculator
from manybody.engines.atoms.overlaps import refuse_overlaps
from manybody.engines.atoms.spec import AtomsSystem, Relaxation, Strains, system_of

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
DILATION = 1e-3  # strain of the central difference that gives the bulk modulus of a crystal at rest


@dataclass(frozen=True)
class EquationOfState:
    """Energy, eV; volume, angstrom^3; bulk modulus, eV/angstrom^3, and its pressure derivative, of the fitted minimum."""

    energy: float
    volume: float
    bulk_modulus: float
    derivative: float
    residual: float


def birch_murnaghan(volumes: np.ndarray, energies: np.ndarray) -> EquationOfState:
    """The equation of state through energies at volumes, [points] each. Raises `TaskError` where they have no minimum."""
    x = volumes ** (-2 / 3)
    middle, width = x.mean(), np.ptp(x) / 2
    fit = np.polynomial.Polynomial.fit(x, energies, 4)
    slope, curve, third = fit.deriv(1), fit.deriv(2), fit.deriv(3)
    roots = [root.real for root in slope.roots() if abs(root.imag) < 1e-9 * middle and curve(root.real) > 0]
    inside = [root for root in roots if abs(root - middle) <= width]
    if not inside:
        told = f"{volumes.min():.5g} to {volumes.max():.5g} angstrom^3"
        raise TaskError(f"The energy has no minimum between volumes of {told}. Relax the cell first, or widen `range`.")
    x0 = float(inside[0])
    volume = x0**-1.5
    bulk = 4 / 9 * x0**2 * curve(x0) / volume
    derivative = 4 + 2 / 3 * x0 * third(x0) / curve(x0)
    residual = float(np.sqrt(np.mean((fit(x) - energies) ** 2)))
    return EquationOfState(float(fit(x0)), float(volume), float(bulk), float(derivative), residual)


def static_response(
    provider: ForceProvider, positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray
) -> dict[str, float]:
    """Energy, pressure and bulk modulus (eV, eV/angstrom^3) of atoms at rest where they are put, cell and all dilated.

    The latter two only where the model has a stress: B = -V dp/dV by a central difference.
    """
    provider.forget()  # so that the same bits come whatever was evaluated before
    found = provider(positions, numbers, cell, pbc)
    told = {"static_energy": found.energy}
    if found.stress is None:
        return told
    pressures = []
    for factor in (1 - DILATION, 1 + DILATION):
        stress = provider(factor * positions, numbers, factor * cell, pbc).stress
        assert stress is not None
        pressures.append(-float(np.trace(stress)) / 3)
    bulk = -(pressures[1] - pressures[0]) / (3 * math.log((1 + DILATION) / (1 - DILATION)))
    return told | {"static_pressure": -float(np.trace(found.stress)) / 3, "static_bulk_modulus": bulk}


# --- tasks ------------------------------------------------------------------------------------------------------------


def relax(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Atoms, and the cell where it is asked for, brought to a minimum of the energy from a little beside where they are."""
    system, how = system_of(task.system), Relaxation.model_validate(task.parameters)
    atoms = system.atoms()
    refuse_overlaps(atoms.positions, atoms.numbers, np.array(atoms.cell), np.array(atoms.pbc))
    atoms.positions += how.rattle * task.key.derive("rattle").generator().standard_normal(atoms.positions.shape)
    atoms.calc = DrivenCalculator(system.energy.load())
    if how.cell and atoms.pbc.all():
        _refuse_without_stress(atoms, task)
        _optimise(UnitCellFilter(atoms), how.force_tolerance, how.steps)
    else:
        _relaxed(atoms, how.force_tolerance, how.steps)
    forces = atoms.get_forces()
    arrays = {
        "positions": np.array(atoms.positions), "cell": np.array(atoms.cell), "pbc": np.array(atoms.pbc),
        "numbers": np.array(atoms.numbers), "forces": forces,
    }  # fmt: skip
    return Output(arrays, {"energy": float(atoms.get_potential_energy()), "largest_force": _largest(forces)})


def strain(task: Task, inputs: Mapping[str, Output], context: Context) -> Output:
    """Energies of a relaxed crystal over volumes, and its elastic constants from the stresses of small strains."""
    system, how = system_of(task.system), Strains.model_validate(task.parameters)
    if "state" not in inputs:
        raise TaskError(f"{task.label}: expected an input `state`; got {', '.join(inputs) or 'none'}. Add it to the task.")
    arrays = inputs["state"].arrays
    if not arrays["pbc"].all():
        raise TaskError(f"{task.label}: expected a crystal, periodic in every direction. Give the file a cell, or use dynamics.")
    atoms = Atoms(arrays["numbers"], arrays["positions"], cell=arrays["cell"], pbc=True)
    atoms.calc = DrivenCalculator(system.energy.load())
    _refuse_without_stress(atoms, task)
    volumes, energies = _over_volumes(atoms, how, context)
    state = birch_murnaghan(volumes, energies)
    stiffness, finer = (_stiffness(atoms, h, how) for h in (how.strain, how.strain / 2))
    count = len(atoms)
    document = {
        "energy": state.energy / count,
        "volume": state.volume / count,
        "bulk_modulus": state.bulk_modulus,
        "bulk_modulus_derivative": state.derivative,
        "fit_residual": state.residual / count,
        "elastic_difference": float(np.abs(stiffness - finer).max()),
    }
    alone = isolated_energy(system)
    document |= {} if alone is None else {"isolated_energy": alone}
    return Output({"volumes": volumes / count, "energies": energies / count, "stiffness": (4 * finer - stiffness) / 3}, document)


def isolated_energy(system: AtomsSystem) -> float | None:
    """The mean energy of the system's atoms, each alone in vacuum, eV: what a cohesive energy is counted from.

    None where the model has none, as models that are trained on crystals alone.
    """
    provider, numbers = system.energy.load(), system.atoms().numbers
    total = 0.0
    for number, many in zip(*np.unique(numbers, return_counts=True), strict=True):
        try:
            alone = provider(np.zeros((1, 3)), np.array([number]), np.zeros((3, 3)), np.zeros(3, dtype=bool))
        except EnergyError:
            return None
        total += int(many) * alone.energy
    return total / len(numbers)


def _refuse_without_stress(atoms: Atoms, task: Task) -> None:
    """Raise `TaskError` where the model has no stress: a cell cannot be relaxed nor strained then."""
    atoms.get_potential_energy()
    if "stress" not in atoms.calc.results:
        raise TaskError(
            f"{task.label}: expected a model with a stress; this one has none. Choose another model, or use dynamics."
        )


def _relaxed(atoms: Atoms, tolerance: float, steps: int) -> None:
    if _largest(atoms.get_forces()) > tolerance:
        _optimise(atoms, tolerance, steps)


def _optimise(target: Atoms | UnitCellFilter, tolerance: float, steps: int) -> None:
    """ASE's L-BFGS. Raises `TaskError` where it does not converge or the model fails on the way."""
    try:
        done = LBFGS(target, logfile=None).run(fmax=tolerance, steps=steps)
    except EnergyError as error:
        where = "" if error.atom is None else f"atom {error.atom}: "
        raise TaskError(
            f"Relaxation: {where}{error}. Start from atoms nearer to equilibrium, or choose another model."
        ) from error
    forces = np.asarray(target.get_forces())
    if not done or not np.isfinite(forces).all():
        atom = int(np.argmax(np.where(np.isfinite(forces), np.abs(forces), np.inf).max(axis=1)))
        raise TaskError(
            f"Relaxation: after {steps} steps the largest force is {_largest(forces):.3g} eV/angstrom, on row {atom} (atoms, "
            f"then the cell's rows); expected at most {tolerance:g}. Raise `steps` or `force_tolerance`, or mend the structure."
        )


def _largest(forces: np.ndarray) -> float:
    return float(np.linalg.norm(forces, axis=1).max())


def _over_volumes(atoms: Atoms, how: Strains, context: Context) -> tuple[np.ndarray, np.ndarray]:
    """Volumes and energies, [volumes], atoms relaxed in each."""
    start, volumes, energies = np.array(atoms.cell), [], []
    for index, share in enumerate(np.linspace(1 - how.range, 1 + how.range, how.volumes)):
        image = _deformed(atoms, start * float(share) ** (1 / 3), how)
        volumes.append(image.get_volume())
        energies.append(image.get_potential_energy())
        context.progress(Progress((index + 1) / (how.volumes + 24), float(index + 1), "volumes"))
    return np.array(volumes), np.array(energies)


def _stiffness(atoms: Atoms, size: float, how: Strains) -> np.ndarray:
    """C_ij = d(stress_i)/d(strain_j) [6, 6], Voigt, by central differences of strains of `size`; eV/angstrom^3."""
    columns = []
    for row, column in VOIGT:
        stresses = []
        for sign in (-1, 1):
            small = np.zeros((3, 3))
            small[row, column] += 0.5 * sign * size
            small[column, row] += 0.5 * sign * size
            stresses.append(_deformed(atoms, np.array(atoms.cell) @ (np.eye(3) + small), how).get_stress())
        columns.append((stresses[1] - stresses[0]) / (2 * size))
    return np.array(columns).T


def _deformed(atoms: Atoms, cell: np.ndarray, how: Strains) -> Atoms:
    """The atoms in another cell, moved along with it, then relaxed."""
    image = atoms.copy()
    image.calc = atoms.calc
    image.set_cell(cell, scale_atoms=True)
    _relaxed(image, how.force_tolerance, how.steps)
    return image
