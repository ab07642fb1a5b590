"""Bonded potentials as formulas: text in, compiled energies, forces and slopes out. Torch-free.

A potential is an expression in ``r`` (the distance of two atoms), ``theta`` (the angle at the middle one of three, 0 to pi) or
``phi`` (the torsion of four, -pi to pi, 0 where the outer ones eclipse), and named parameters. SymPy differentiates it; value
and slope share subexpressions. What comes out replaces the formula in `bonded_template.py`, and the module so made is kept
on disk by digest: where it is already there SymPy is not even imported. `formula_terms.py` holds the terms.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from manybody.core.digest import digest_document
from manybody.core.errors import InputError, Problem
from manybody.numerics import expressions, jit
from manybody.numerics.pairs import MARKED

if TYPE_CHECKING:
    import sympy

Coordinate = Literal["r", "theta", "phi"]

MEMBERS: dict[Coordinate, int] = {"r": 2, "theta": 3, "phi": 4}  # atoms of a term
_WHERE = "bonded potential"
_LARGEST = 2**31  # of whole numbers that are written as such: compiled code has no longer ones than 64 bits
_TEMPLATE = Path(__file__).with_name("bonded_template.py")
_BUILT_IN = ("bonded_formulas.py", "bonded_template.py", "collective.py", "expressions.py", "jit.py")  # all it is made of


@dataclass(frozen=True)
class BondedPotential:
    """A bonded energy as text, such as ``k/2*(theta - theta0)**2``, and the names of its parameters.

    The text is arithmetic (``+ - * / **``) of numbers, one of ``r``, ``theta``, ``phi``, the parameters and the functions
    `expressions.OF_ANGLES`. Among these is ``wrapped``, which takes whole turns off an angle: what is left is -pi to pi.
    Anything else raises `InputError`.
    """

    expression: str
    parameters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        expressions.refuse_names(self.parameters, _WHERE)
        if twice := set(self.parameters) & set(MEMBERS):
            raise InputError(Problem(_WHERE, "parameters named otherwise", f"`{min(twice)}`", "It is a coordinate: rename it."))
        if len(self._coordinates) != 1:
            expected, remedy = "exactly one of r, theta and phi", "A term is of one distance, one angle or one torsion."
            raise InputError(Problem(_WHERE, expected, " and ".join(self._coordinates) or f"`{self.expression}`", remedy))

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"bonded potential `{self.expression}`"

    @cached_property
    def tree(self) -> ast.expr:
        """The text, taken apart."""
        return expressions.parsed(self.expression, (*MEMBERS, *self.parameters), _WHERE, expressions.OF_ANGLES)

    @cached_property
    def _coordinates(self) -> list[Coordinate]:
        used = {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)}
        return [name for name in sorted(MEMBERS) if name in used]

    @property
    def coordinate(self) -> Coordinate:
        """What it is a function of."""
        return self._coordinates[0]

    @property
    def members(self) -> int:
        """Atoms of a term."""
        return MEMBERS[self.coordinate]

    @cached_property
    def module(self) -> Any:
        """The functions of `bonded_template.py` for this formula, generated now where the cache does not have them."""
        built_in = [_TEMPLATE.with_name(name).read_text(encoding="utf-8") for name in _BUILT_IN]
        digest = digest_document([self.expression, self.parameters, version("numba"), version("sympy"), *built_in])
        path = jit.kernel_path(digest)
        if not path.exists():
            jit.keep_source(path, generate(self))
        return jit.load_module(path)


def generate(potential: BondedPotential) -> str:
    """The source of a potential's kernel module; the same text in every process."""
    import sympy

    q = sympy.Symbol("q", positive=True) if potential.coordinate == "r" else sympy.Symbol("q", real=True)
    names = {name: sympy.Symbol(f"p[{place}]", real=True) for place, name in enumerate(potential.parameters)}
    u = expressions.symbolic(potential.expression, names | {potential.coordinate: q}, _WHERE, expressions.OF_ANGLES)
    slope = sympy.diff(u, q)
    shared, (value, pull) = _shared([u, slope])
    both = [*shared, f"return float({value}), float({pull})"]
    shared, results = _shared([slope, *(sympy.diff(u, p) for p in names.values())])
    all_of_them = [*shared, *(f"out[{place}] = {result}" for place, result in enumerate(results))]
    parts = [f"coordinate = COORDINATES[{list(MEMBERS).index(potential.coordinate)}]", "", ""]
    for head, body in (("energy_and_slope(q, p)", both), ("slopes(q, p, out)", all_of_them)):
        parts += ["@exact_kernel", f"def {head}:", *(f"    {line}" for line in body), "", ""]
    title = f'"""Bonded terms of {potential.expression}. Generated; do not edit."""\n\nimport math\n'
    rest = _TEMPLATE.read_text(encoding="utf-8").split("from __future__ import annotations\n", 1)[1]
    return title + MARKED.sub(lambda _: "\n".join(parts), rest)


def _shared(values: list[sympy.Expr]) -> tuple[list[str], list[str]]:
    """Assignments of what several values have in common, and the values, as Python."""
    from sympy import cse, numbered_symbols

    shared, results = cse(values, symbols=numbered_symbols("t"))  # in canonical order: no hash of this process is in the text
    return [f"{symbol} = {_printed(value)}" for symbol, value in shared], [_printed(value) for value in results]


def _printed(value: sympy.Expr) -> str:
    """Python source of an expression, its numbers as doubles but for whole ones of ordinary size."""
    from sympy.printing.pycode import PythonCodePrinter

    class Printer(PythonCodePrinter):
        def _print_Integer(self, number: Any) -> str:  # the name SymPy looks for
            return str(int(number)) if abs(int(number)) < _LARGEST else self._print_Rational(number)

        def _print_Rational(self, number: Any) -> str:
            try:
                return repr(int(number.p) / int(number.q))
            except OverflowError:
                return "math.inf" if number > 0 else "-math.inf"

    return str(Printer({"fully_qualified_modules": True, "user_functions": {"wrapped": "wrapped"}}).doprint(value))
