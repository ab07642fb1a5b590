"""Pair kernels generated from a formula: text in, compiled energies, forces and virials out.

A potential u(r) is an expression in ``r`` (or ``r2``) and named parameters. SymPy differentiates it and shares common
subexpressions; the result replaces the formula in `pair_template.py`, and the module so made is kept on disk by digest.
Where it is already there SymPy is not even imported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol

import numpy as np

from manybody.core.digest import digest_document
from manybody.core.errors import InputError, Problem
from manybody.numerics import expressions, jit

if TYPE_CHECKING:
    import sympy

Precision = Literal["double", "mixed"]

_TEMPLATE = Path(__file__).with_name("pair_template.py")
# what the generated code is made of besides
_BUILT_IN = ("clusters.py", "expressions.py", "integrators.py", "jit.py", "neighbours.py", "pairs.py", "registers.py")
MARKED = re.compile(r"# --- formula ---\n.*?# --- end of formula ---\n", re.DOTALL)
_PRECISION = re.compile(r"# --- precision ---\n.*?# --- end of precision ---\n", re.DOTALL)


@dataclass(frozen=True)
class PairPotential:
    """A pair energy u(r) as text, such as ``4*epsilon*((sigma/r)**12 - (sigma/r)**6)``, and its parameters by name.

    The text is arithmetic (``+ - * / **``) of numbers, ``r``, ``r2`` = r^2, the parameters and `expressions.FUNCTIONS`;
    anything else raises `InputError`.
    """

    name: str
    expression: str
    parameters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w .+-]+", self.name):  # it stands in generated files
            self._refuse("a name of letters, digits, spaces and . + -", f"`{self.name[:40]}`", "Give it another one.")
        expressions.refuse_names(self.parameters, self._where)
        expressions.parsed(self.expression, ("r", "r2", *self.parameters), self._where)

    @property
    def _where(self) -> str:
        return f"pair potential `{self.name}`"

    def _refuse(self, expected: str, came: str, remedy: str) -> NoReturn:
        raise InputError(Problem(self._where, expected, came, remedy))

    @property
    def digest(self) -> str:
        """The identity of the generated kernel: the formula and all the code it is compiled with."""
        return kernel_digest(self.expression, self.parameters)

    def source(self) -> str:
        """The text of the generated kernel."""
        return generate(self)

    def bind(self, values: Mapping[str, float], precision: Precision = "double") -> PairKernel:
        """The compiled kernel with a value for each parameter.

        precision: what pair forces are computed in. With ``mixed`` it is single; coordinates, the forces on atoms, energies
        and virials are double all the same.
        """
        if set(values) != set(self.parameters):
            self._refuse(
                f"values for {', '.join(self.parameters)}", ", ".join(values) or "none", "Give each of them, and no other."
            )
        generated = MixedPrecision(self) if precision == "mixed" else self
        return PairKernel(generated, np.array([float(values[name]) for name in self.parameters]))


@dataclass(frozen=True)
class MixedPrecision:
    """What the kernel of a potential with pair forces in single precision is generated from (`Generated`)."""

    potential: PairPotential

    @property
    def name(self) -> str:
        """The potential's."""
        return self.potential.name

    @property
    def digest(self) -> str:
        """The identity of the kernel."""
        return kernel_digest(self.potential.expression, self.potential.parameters, "mixed")

    def source(self) -> str:
        """The text of the kernel."""
        return _PRECISION.sub(lambda _: _single(self.potential), generate(self.potential))


class Generated(Protocol):
    """What a kernel is made from: a formula, or a look-up in a table."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def digest(self) -> str:
        """The identity of the kernel's text."""

    def source(self) -> str:
        """The kernel's text."""


@dataclass(frozen=True)
class PairKernel:
    """A potential with its parameters, compiled. `module` holds the functions of `pair_template.py`."""

    potential: Generated
    values: np.ndarray = field(compare=False)

    @cached_property
    def module(self) -> Any:
        """The generated module; generated now where the cache does not have it."""
        path = jit.kernel_path(self.potential.digest)
        if not path.exists():
            jit.keep_source(path, self.potential.source())
        jit.start_threads()
        return jit.load_module(path)

    def energy(self, r: float) -> float:
        """u(r), not shifted."""
        coefficients = self.module.coefficients(self.values)
        return float(self.module.pair_energy(r * r, 1.0 / (r * r), coefficients))

    def force(self, r: float) -> float:
        """-u'(r)."""
        coefficients = self.module.coefficients(self.values)
        return float(r * self.module.pair_force(r * r, 1.0 / (r * r), coefficients))

    def evaluate(
        self, positions: np.ndarray, box: np.ndarray, cutoff: float, threads: int = 1
    ) -> tuple[np.ndarray, float, float, float]:
        """Forces [atoms, 3], energy (not shifted), virial (sum of r . f) and number of pairs within `cutoff`.

        positions [atoms, 3], box [3] (edges); `cutoff` at most half the shortest edge.
        """
        if not 0 < cutoff <= 0.5 * box.min() * (1 + 1e-12):
            where, came = f"pair potential `{self.potential.name}`", f"{cutoff:g}"
            raise InputError(Problem(where, f"a cutoff up to half the box, {0.5 * box.min():g}", came, "Lower it."))
        atoms = self.module.start(positions, np.zeros_like(positions), box, cutoff, (0.0, 0.0), self.values, threads)
        energy, virial, pairs = self.module.sums(atoms.extended, atoms.clusters, atoms.near, cutoff, self.values)
        return self.module.by_name(atoms.f, atoms.names), float(energy), float(virial), float(pairs)


LENNARD_JONES = PairPotential("lennard-jones", "4*epsilon*((sigma/r)**12 - (sigma/r)**6)", ("epsilon", "sigma"))


# --- generation ------------------------------------------------------------------------------------------------


def kernel_digest(*what: Any) -> str:
    """The identity of a kernel made from `what` is particular to it, and all the code it is compiled with."""
    texts = [_TEMPLATE.read_text(encoding="utf-8")]
    texts += [_TEMPLATE.with_name(name).read_text(encoding="utf-8") for name in _BUILT_IN]
    return digest_document([*what, version("numba"), *texts])


def kernel_source(title: str, functions: str) -> str:
    """The template with `functions` between its marks."""
    head = f'"""{title} Generated; do not edit."""\n\nimport math\n'
    body = _TEMPLATE.read_text(encoding="utf-8").split("from __future__ import annotations\n", 1)[1]
    return head + MARKED.sub(lambda _: functions, body)


def generate(potential: PairPotential) -> str:
    """The source of a potential's kernel module."""
    return kernel_source(f"Pair kernel of `{potential.name}`: {potential.expression}.", formula(potential)[0])


def formula(potential: PairPotential) -> tuple[str, int]:
    """The functions `coefficients`, `pair_energy` and `pair_force` of a potential, and the number of its coefficients."""
    energy, force, r = _energy_and_force(potential)
    hoisted: dict[Any, Any] = {}
    parts = [_body(expression, r, hoisted) for expression in (energy, force)]
    loads = [f"    {name} = parameters[{index}]" for index, name in enumerate(potential.parameters)]
    values = ", ".join(_printed(value, r) for value in hoisted) or "0.0"
    lines = ["@kernel", "def coefficients(parameters):", *loads, f"    return ({values},)", ""]
    for name, part in zip(("pair_energy", "pair_force"), parts, strict=True):
        lines += ["", "@kernel", f"def {name}(r2, inverse, c):", *part, ""]
    return "\n".join(lines) + "\n", max(1, len(hoisted))


def _energy_and_force(potential: PairPotential) -> tuple[sympy.Expr, sympy.Expr, sympy.Symbol]:
    """u(r), -u'(r)/r and r."""
    import sympy

    r = sympy.Symbol("r", positive=True)
    names = {name: sympy.Symbol(name, real=True) for name in potential.parameters}
    energy = expressions.symbolic(potential.expression, {"r": r, "r2": r**2} | names, f"pair potential `{potential.name}`")
    energy = _as_series(energy, r)
    return energy, _as_series(-sympy.diff(energy, r) / r, r), r


def _single(potential: PairPotential) -> str:
    """The part of the template about precision, for pairs in single precision: every number in the formula is rounded to it."""
    energy, force, r = _energy_and_force(potential)
    hoisted: dict[Any, Any] = {}
    _body(energy, r, hoisted)  # for its coefficients, which come first
    lines = _body(force, r, hoisted, "REAL({})")
    values = ", ".join(f"REAL(c[{index}])" for index in range(max(1, len(hoisted))))
    return "\n".join([
        "REAL, LANES, BLOCK, LOCAL = np.float32, 16, 256, True", "", "",
        "@kernel", "def near_coefficients(parameters):", "    c = coefficients(parameters)", f"    return ({values},)", "", "",
        "@kernel", "def near_force(r2, inverse, c):", *lines, "",
    ])  # fmt: skip


def _as_series(expression: sympy.Expr, r: sympy.Symbol) -> sympy.Expr:
    """A sum of powers of r multiplied out, so that its coefficients can be computed ahead; anything else as it is."""
    import sympy

    expanded = sympy.expand(expression)
    terms = sympy.Add.make_args(expanded)
    is_series = all(_power(term.as_independent(r)[1], r) is not None for term in terms)
    return expanded if is_series else expression


def _power(expression: sympy.Expr, r: sympy.Symbol) -> int | None:
    """n where the expression is r**n."""
    base, exponent = expression.as_base_exp()
    if expression == 1:
        return 0
    return int(exponent) if base == r and exponent.is_Integer else None


def _body(expression: sympy.Expr, r: sympy.Symbol, hoisted: dict[Any, Any], number: str = "{}") -> list[str]:
    """The lines of a function that returns `expression`; what has no r in it is `hoisted` into the coefficients.

    `number` is how a number is written.
    """
    import sympy

    def coefficient(value: sympy.Expr) -> sympy.Expr:
        if value.is_Number:
            return value
        return hoisted.setdefault(value, sympy.Symbol(f"c[{len(hoisted)}]", real=True))

    terms = [term.as_independent(r) for term in sympy.Add.make_args(sympy.expand(expression))]
    powers = [_power(rest, r) for _, rest in terms]
    if all(power is not None and power % 2 == 0 and power <= 0 for power in powers):
        inverse = sympy.Symbol("inverse", positive=True)
        series = [
            (coefficient(value), -int(power) // 2) for (value, _), power in zip(terms, powers, strict=True) if power is not None
        ]
        result = sympy.horner(sympy.Add(*(value * inverse**power for value, power in series)), wrt=inverse)
        shared: list[Any] = []
    else:
        shared, results = sympy.cse(_hoist(expression, r, coefficient), symbols=sympy.numbered_symbols("t"))
        result = results[0]
    needs_r = any(part.has(r) for part in (result, *(value for _, value in shared)))
    lines = ["    r = math.sqrt(r2)"] if needs_r else []
    lines += [f"    {symbol} = {_printed(value, r, number)}" for symbol, value in shared]
    return [*lines, f"    return {_printed(result, r, number)}"]


def _hoist(expression: sympy.Expr, r: sympy.Symbol, coefficient: Any) -> sympy.Expr:
    """`expression` with its largest parts that have no r in them replaced by coefficients."""
    if not expression.has(r):
        return coefficient(expression)
    if not expression.args:
        return expression
    if expression.is_Add or expression.is_Mul:
        constant, rest = expression.as_independent(r, as_Add=expression.is_Add)
        parts = [_hoist(part, r, coefficient) for part in expression.func.make_args(rest)]
        return expression.func(coefficient(constant), *parts)
    return expression.func(*(part if part.is_Integer else _hoist(part, r, coefficient) for part in expression.args))


def _printed(expression: sympy.Expr, r: sympy.Symbol, number: str = "{}") -> str:
    """Python source of an expression, whole powers as products and even powers of r through r2 and its inverse."""
    from sympy.printing.pycode import PythonCodePrinter

    class Printer(PythonCodePrinter):
        def _print_Pow(self, power: Any, **settings: Any) -> str:  # the name SymPy looks for
            base, exponent = power.base, power.exp
            if not exponent.is_Integer or abs(int(exponent)) > 64:
                return str(super()._print_Pow(power, **settings))
            count = abs(int(exponent))
            if base == r:
                even, odd = divmod(count, 2)
                even += odd if exponent < 0 else 0  # 1/r = r / r2
                return "(" + "*".join([*(["r2" if exponent > 0 else "inverse"] * even), *(["r"] * odd)]) + ")"
            product = "(" + "*".join([f"({self._print(base)})"] * count) + ")"
            return product if exponent > 0 else f"({number.format('1.0')}/{product})"

        def _print_Mul(self, product: Any) -> str:  # a/b**2 through the printed power, not through a division
            return "(" + "*".join(f"({self._print(factor)})" for factor in product.args) + ")"

        def _print_Integer(self, value: Any) -> str:
            return number.format(f"{int(value)}.0")

        def _print_Rational(self, value: Any) -> str:
            return number.format(f"({value.p}.0/{value.q}.0)")

        def _print_Float(self, value: Any) -> str:
            return number.format(super()._print_Float(value))

    return str(Printer({"fully_qualified_modules": True}).doprint(expression))
