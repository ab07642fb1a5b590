"""Crystals with closed forms: of one element, by embedded atoms from a file or by formula, or by bonds and angles. Torch-free."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from manybody.core.errors import InputError
from manybody.engines.atoms.diamond import DiamondCrystal, diamond_crystal
from manybody.engines.atoms.energies.formulas import ManyBodyModel, StillingerWeberModel
from manybody.engines.atoms.energies.spec import EmbeddedAtomModel
from manybody.engines.atoms.known_answers import BASES, BravaisCrystal, Function, Splines
from manybody.engines.atoms.spec import AtomsSystem, Crystal

if TYPE_CHECKING:
    import sympy

    from manybody.numerics.many_body_formula import ManyBodyKernel


def at_rest(system: AtomsSystem) -> BravaisCrystal | DiamondCrystal | None:
    """The infinite crystal at zero pressure, where it has a closed form."""
    model = system.energy
    if isinstance(system, Crystal) and system.lattice == "diamond" and isinstance(model, StillingerWeberModel):
        return diamond_crystal(model)
    crystal = closed_form(system)
    return None if crystal is None else crystal.relaxed()


def closed_form(system: AtomsSystem) -> BravaisCrystal | None:
    """The infinite crystal by lattice sums: for cubic crystals of one element under embedded atoms that are at hand."""
    if not isinstance(system, Crystal) or system.lattice not in BASES:
        return None
    functions = _functions(system)
    return None if functions is None else BravaisCrystal(functions, system.lattice, system.lattice_constant)


def _functions(system: Crystal) -> Splines | None:
    model = system.energy
    if isinstance(model, ManyBodyModel) and model.triple == "0":
        return _formulas(model.bound())
    if not isinstance(model, EmbeddedAtomModel):
        return None
    try:
        return _splines(model, system.material)
    except InputError:  # judged on a machine without the file: theory is then silent
        return None


@cache
def _splines(model: EmbeddedAtomModel, element: str) -> Splines | None:
    """The functions of an element in a potential's file, by other splines than those that drive atoms."""
    from scipy.interpolate import CubicSpline

    from manybody.core.energies import verified
    from manybody.engines.atoms.eam_file import read_eam

    if element not in model.elements:
        return None
    file, index = read_eam(verified(model.path, model.content)), model.elements.index(element)
    r, rho = file.spacing * np.arange(file.pair.shape[-1]), file.step * np.arange(file.embedding.shape[-1])
    pair = CubicSpline(r[1:], file.pair[index, index, 1:] / r[1:])
    density, embedding = CubicSpline(r, file.density[index, index]), CubicSpline(rho, file.embedding[index])
    functions = [(f, f.derivative(1), f.derivative(2)) for f in (pair, density, embedding)]
    return Splines(functions[0], functions[1], functions[2], file.cutoff)


def _formulas(kernel: ManyBodyKernel) -> Splines:
    """The functions of a potential without angles, with second derivatives, by numpy."""
    pair, density, embedding = (_derivatives(kernel, part) for part in ("pair", "density", "embedding"))
    return Splines(pair, density, embedding, kernel.reach)


def _derivatives(kernel: ManyBodyKernel, part: str) -> tuple[Function, Function, Function]:
    """A formula with its first and second derivative; those of distances fade, and vanish where they end."""
    import sympy

    from manybody.numerics.expressions import symbolic

    variable = sympy.Symbol("rho" if part == "embedding" else "r", positive=True)
    values = {name: sympy.Float(repr(value)) for name, value in kernel.values.items()}
    names = values | {variable.name: variable} | ({} if part == "embedding" else {"r2": variable**2})
    formula = sympy.sympify(symbolic(getattr(kernel.potential, part), names, f"closed form, {part}"))
    if part == "embedding":
        return _made(formula, variable, 0.0, np.inf)
    end = kernel.dense if part == "density" else kernel.cutoff
    if kernel.switch == kernel.cutoff:
        return _made(formula, variable, 0.0, end)
    near = _made(formula, variable, 0.0, kernel.switch)
    x = (variable - kernel.switch) / (kernel.cutoff - kernel.switch)
    far = _made(formula * (1 - x**3 * (10 - 15 * x + 6 * x**2)), variable, kernel.switch, kernel.cutoff)
    return _sum(near[0], far[0]), _sum(near[1], far[1]), _sum(near[2], far[2])


def _made(formula: sympy.Expr, variable: sympy.Symbol, low: float, high: float) -> tuple[Function, Function, Function]:
    """A formula and two derivatives from `low` up to `high`, 0 elsewhere."""
    import sympy

    def function(order: int) -> Function:
        inside = sympy.lambdify(variable, sympy.diff(formula, variable, order), modules=["scipy", "numpy"])

        def value(x: np.ndarray) -> np.ndarray:
            found, here = np.zeros_like(x), (x >= low) & (x < high)
            found[here] = inside(x[here])
            return found

        return value

    return function(0), function(1), function(2)


def _sum(one: Function, other: Function) -> Function:
    return lambda x: one(x) + other(x)
