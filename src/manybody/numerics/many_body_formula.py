"""Many-body potentials from formulas: text in, compiled energies, forces and strain derivatives out.

    E = sum_(pairs) u2(r) + sum_i sum_(j < k) u3(r, s, c) + sum_i F(rho_i),   rho_i = sum_j f(r)

r and s are the distances of two neighbours of atom i, c is the cosine of the angle between them. SymPy differentiates the texts
and shares common subexpressions; the result replaces the formula in `many_body_template.py`, and the module so made is kept on
disk by digest. `plain_many_body.py` is the same by autograd.

Sources: F. H. Stillinger and T. A. Weber, Phys. Rev. B 31, 5262 (1985); M. W. Finnis and J. E. Sinclair, Phil. Mag. A 50, 45
(1984); A. P. Sutton and J. Chen, Phil. Mag. Lett. 61, 139 (1990).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from manybody.core.digest import digest_document
from manybody.core.errors import InputError, Problem
from manybody.numerics import expressions, jit
from manybody.numerics.pairs import MARKED

if TYPE_CHECKING:
    import sympy

    from manybody.numerics.many_body import Rows

Array = NDArray[np.float64]

VARIABLES = {"pair": ("r", "r2"), "triple": ("r", "s", "c"), "density": ("r", "r2"), "embedding": ("rho",)}
# Neighbours within this share of the cutoff count as beyond it: where a formula such as exp(1/(r - a)) ends at a, it must not
# be asked at a, nor behind it, for the sake of a last bit. One that ends smoothly has nothing there, to 1e-20 of its size.
EDGE = 1e-10
NEAREST, NEAR_END, LEFT = 0.4, 1e-4, 1e-6  # shares of the cutoff, and of the energy halfway, by which formulas are judged

_TEMPLATE = Path(__file__).with_name("many_body_template.py")
_BUILT_IN = ("expressions.py", "jit.py", "many_body_formula.py")


_parsed = lru_cache(maxsize=256)(expressions.parsed)  # the same few texts, for hundreds of values


@dataclass(frozen=True)
class ManyBodyPotential:
    """u2(r), u3(r, s, c), f(r) and F(rho) as texts, and their parameters by name; `r2` is r^2.

    u3 must be the same with r and s exchanged. Parameters are kept by name in order: the same formula is the same kernel. Texts
    are what `expressions.parsed` takes; anything else raises `InputError`.
    """

    name: str
    pair: str = "0"
    triple: str = "0"
    density: str = "0"
    embedding: str = "0"
    parameters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = f"many-body potential `{self.name}`"
        object.__setattr__(self, "parameters", tuple(sorted(self.parameters)))
        expressions.refuse_names(self.parameters, where)
        taken = sorted({name for names in VARIABLES.values() for name in names} & set(self.parameters))
        if taken:
            came, remedy = f"a parameter `{taken[0]}`", "Name it in another way."
            raise InputError(Problem(where, "parameters that are no variables of a formula", came, remedy))
        for part in VARIABLES:
            self.tree(part)
        if (self.embedding == "0") != (self.density == "0"):
            came = "one of them"
            raise InputError(Problem(where, "both a density and an embedding energy, or neither", came, "Write the other too."))

    def tree(self, part: str) -> ast.expr:
        """The text of a part of the potential, taken apart."""
        where = f"many-body potential `{self.name}`, {part}"
        return _parsed(getattr(self, part), (*VARIABLES[part], *self.parameters), where)

    @property
    def digest(self) -> str:
        """The identity of the generated kernel: the formulas and all the code it is made with."""
        texts = [_TEMPLATE.with_name(name).read_text(encoding="utf-8") for name in (_TEMPLATE.name, *_BUILT_IN)]
        formulas = [getattr(self, part) for part in VARIABLES]
        return digest_document(["many-body", *formulas, *self.parameters, version("numba"), version("sympy"), *texts])

    def bind(
        self, values: Mapping[str, float], cutoff: float, switch: float | None = None, density_cutoff: float | None = None
    ) -> ManyBodyKernel:
        """The compiled kernel with a value for each parameter.

        cutoff: of pairs, triples and densities, the latter to `density_cutoff` where it is given. From `switch` on all of them
        fade to zero at the cutoff by 1 - x^3 (10 - 15 x + 6 x^2). Raises `InputError` for other parameters, and for formulas
        that have no finite value within the cutoff, do not end there or take the sides of an angle for different.
        """
        where = f"many-body potential `{self.name}`"
        if set(values) != set(self.parameters):
            came, expected = ", ".join(values) or "none", f"values for {', '.join(self.parameters) or 'no parameter'}"
            raise InputError(Problem(where, expected, came, "Give each of them, and no other."))
        if switch is not None and not 0 < switch < cutoff:
            raise InputError(Problem(where, f"a switch below the cutoff, {cutoff:g}", f"{switch:g}", "Lower it."))
        if switch is not None and density_cutoff is not None:
            came, remedy = "both", "Leave one of them out."
            raise InputError(Problem(where, "a switch, or a cutoff of densities of their own", came, remedy))
        kernel = ManyBodyKernel(
            self,
            {name: float(values[name]) for name in self.parameters},
            float(cutoff),
            float(cutoff if switch is None else switch),
            float(cutoff if density_cutoff is None else density_cutoff),
        )
        kernel.refuse_unless_sound()
        return kernel


@dataclass(frozen=True)
class ManyBodyKernel:
    """A potential with its parameters, and where it ends; compiled where it is first evaluated."""

    potential: ManyBodyPotential
    values: dict[str, float]
    cutoff: float
    switch: float
    dense: float

    @property
    def reach(self) -> float:
        """How far an atom sees."""
        return max(self.cutoff, self.dense) if self.potential.density != "0" else self.cutoff

    @cached_property
    def module(self) -> Any:
        """The functions of `many_body_template.py` for this potential; generated now where the disk does not have them."""
        path = jit.kernel_path(self.potential.digest)
        if not path.exists():
            jit.keep_source(path, generate(self.potential))
        return jit.load_module(path)

    def value(self, part: str, *variables: float) -> float:
        """One of the formulas in double precision, without the switch; r, then s and c, or rho."""
        names = dict(zip((name for name in VARIABLES[part] if name != "r2"), variables, strict=True))
        squared = {"r2": names["r"] ** 2} if "r" in names else {}
        return expressions.in_floats(self.potential.tree(part), names | squared | self.values)

    def evaluate(self, positions: Array, rows: Rows) -> tuple[float, Array, Array, int]:
        """Energy; forces [atoms, 3]; strain derivative of the energy [3, 3]; and an atom.

        positions [atoms, 3]; rows: those of `many_body.whole_rows` for `reach` or more. The atom is -1, or the first whose
        energy is not finite, which is so where atoms overlap; nothing else counts then.
        """
        listed, atoms = rows.listed, len(positions)
        x, energies, strained = rows.extended(positions), np.empty(atoms), np.zeros((3, 3))
        sorted_forces = np.zeros_like(x)
        values = np.array([self.values[name] for name in self.potential.parameters], dtype=np.float64)
        ends = ((self.switch, self.cutoff), self.cutoff * (1 - EDGE), self.dense * (1 - EDGE))
        self.module.sums(x, rows.start, rows.partner, values, *ends, energies, sorted_forces, strained)
        bad = np.flatnonzero(~np.isfinite(energies))
        folded = sorted_forces[:, :atoms]
        for axis in range(3):
            folded[axis] += np.bincount(listed.source, sorted_forces[axis, atoms:], minlength=atoms)
        forces = np.empty((atoms, 3))
        forces[listed.order] = folded.T
        return float(energies.sum()), forces, strained, int(listed.order[bad[0]]) if len(bad) else -1

    # --- what is refused ---------------------------------------------------------------------------------------------

    def refuse_unless_sound(self) -> None:
        """Raise `InputError` where formulas are not finite, do not end at their cutoffs, or u3 is not symmetric."""
        for part, cutoff in (("pair", self.cutoff), ("density", self.dense), ("triple", self.cutoff)):
            places = cutoff * np.linspace(NEAREST, 1 - NEAR_END, 25)
            others = [(s, c) for s in cutoff * np.array([0.5, 0.63, 0.81]) for c in (-0.9, -0.2, 0.3, 0.95)]
            table = np.array([
                [self.value(part, r, *rest) for rest in (others if part == "triple" else [()])] for r in map(float, places)
            ])  # fmt: skip
            self._refuse_table(part, cutoff, places, table)
        for near, far, c in ((0.5, 0.8, -0.4), (0.6, 0.9, 0.7), (0.45, 0.7, 0.1)):
            r, s = near * self.cutoff, far * self.cutoff
            one, other = self.value("triple", r, s, c), self.value("triple", s, r, c)
            if abs(one - other) > 1e-9 * (abs(one) + abs(other)):
                came = f"{one:.6g} and {other:.6g} with {r:.4g} and {s:.4g} for them"
                self._refuse("triple", "the same energy with r and s exchanged", came, "Write it with both sides alike.")

    def _refuse_table(self, part: str, cutoff: float, places: Array, table: Array) -> None:
        """Judge the values [places, others] of a part."""
        bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
        if len(bad):
            came = f"none at r = {places[bad[0]]:.6g}"
            self._refuse(part, f"a finite value up to the cutoff, {cutoff:g}", came, "Lower the cutoff, or mend the formula.")
        sizes = np.abs(table).max(axis=1)
        if self.switch == self.cutoff and sizes[-1] > LEFT * np.median(sizes):
            came = f"{sizes[-1]:.3g} just before it, and {np.median(sizes):.3g} in the middle"
            remedy = "Have it end with its slope, give `switch`, or move the cutoff to where it ends."
            self._refuse(part, f"nothing left at the cutoff, {cutoff:g}", came, remedy)

    def _refuse(self, part: str, expected: str, came: str, remedy: str) -> NoReturn:
        raise InputError(Problem(f"many-body potential `{self.potential.name}`, {part}", expected, came, remedy))


STILLINGER_WEBER = ManyBodyPotential(
    "stillinger-weber",
    pair="A*epsilon*(B*(sigma/r)**p - (sigma/r)**q)*exp(sigma/(r - a*sigma))",
    triple="strength*epsilon*(c + 1/3)**2*exp(gamma*sigma/(r - a*sigma) + gamma*sigma/(s - a*sigma))",
    parameters=("epsilon", "sigma", "a", "strength", "gamma", "A", "B", "p", "q"),
)
"""Tetrahedral bonds, up to a sigma; `strength` is what the paper calls lambda."""

SUTTON_CHEN = ManyBodyPotential(
    "sutton-chen",
    pair="epsilon*(a/r)**n",
    density="(a/r)**m",
    embedding="-weight*epsilon*sqrt(rho)",
    parameters=("epsilon", "a", "weight", "n", "m"),
)
"""Metals by inverse powers; `weight` is what the paper calls c. It has no end: give a switch."""

FINNIS_SINCLAIR = ManyBodyPotential(
    "finnis-sinclair",
    pair="(r - end)**2*(c0 + c1*r + c2*r2)",
    density="(r - reach)**2",
    embedding="-A*sqrt(rho)",
    parameters=("end", "c0", "c1", "c2", "reach", "A"),
)
"""Metals by polynomials: pairs up to `end`, the paper's c, densities up to `reach`, the paper's d."""


# --- generation ------------------------------------------------------------------------------------------------------


def generate(potential: ManyBodyPotential) -> str:
    """The source of a potential's kernel module."""
    import sympy

    parameters = {name: sympy.Symbol(f"p[{place}]", real=True) for place, name in enumerate(potential.parameters)}
    hoisted: dict[Any, Any] = {}
    functions: list[str] = []
    for part, names in VARIABLES.items():
        lengths = {name: sympy.Symbol(name, positive=True) for name in names if name not in ("r2", "c")}
        symbols = lengths | ({"c": sympy.Symbol("c", real=True)} if "c" in names else {})
        squared = {"r2": symbols["r"] ** 2} if "r2" in names else {}
        text = getattr(potential, part)
        value = sympy.sympify(expressions.symbolic(text, symbols | squared | parameters, f"many-body potential, {part}"))
        wanted = [value, *(sympy.diff(value, symbol) for symbol in symbols.values())]
        functions += ["@exact_kernel", f"def {part}({', '.join([*symbols, 'k'])}):", *_body(wanted, symbols, hoisted), "", ""]
    head = [
        f"TRIPLES, EMBEDDED = {potential.triple != '0'}, {potential.density != '0'}", "", "",
        "@exact_kernel", "def coefficients(p):",
        f"    return ({', '.join(sympy.pycode(value) for value in hoisted) or '0.0'},)", "", "",
    ]  # fmt: skip
    title = f'"""Many-body sums of `{potential.name}`. Generated; do not edit."""\n\n'
    template = _TEMPLATE.read_text(encoding="utf-8").split("from __future__ import annotations\n", 1)[1]
    return title + MARKED.sub(lambda _: "\n".join([*head, *functions]), template)


def _body(values: list[sympy.Expr], symbols: Mapping[str, sympy.Symbol], hoisted: dict[Any, Any]) -> list[str]:
    """The lines of a function that returns `values`; what has no variable in it is `hoisted` into the coefficients."""
    import sympy

    variables = tuple(symbols.values())
    shared, results = sympy.cse([_hoist(value, variables, hoisted) for value in values], symbols=sympy.numbered_symbols("t"))
    lines = [f"    {symbol} = {sympy.pycode(value)}" for symbol, value in shared]
    return [*lines, f"    return {', '.join(f'float({sympy.pycode(value)})' for value in results)}"]


def _hoist(value: sympy.Expr, variables: tuple[sympy.Symbol, ...], hoisted: dict[Any, Any]) -> sympy.Expr:
    """`value` with its largest parts that have no variable in them replaced by coefficients."""
    import sympy

    if value.is_Number:
        return value
    if not value.has(*variables):
        return hoisted.setdefault(value, sympy.Symbol(f"k[{len(hoisted)}]", real=True))
    if not value.args:
        return value
    if value.is_Add or value.is_Mul:
        constant, rest = value.as_independent(*variables, as_Add=value.is_Add)
        return value.func(*(_hoist(part, variables, hoisted) for part in (constant, *value.func.make_args(rest))))
    return value.func(*(_hoist(part, variables, hoisted) for part in value.args))
