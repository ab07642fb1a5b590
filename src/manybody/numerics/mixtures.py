"""Pair kernels of mixtures: one formula, parameters and a cutoff for each pair of species, any periodic cell.

The formula becomes code as in `pairs.py`; `mixture_template.py` is generated for the number of species and the way in which
the potential is cut off at r_c:

- plain: u(r) up to r_c, where it jumps;
- shifted: u(r) - u(r_c), whose force jumps;
- force-shifted: u(r) - u(r_c) - (r - r_c) u'(r_c), S. Toxvaerd and J. C. Dyre, J. Chem. Phys. 134, 081102 (2011);
- switched: u(r) S(t), t = (r^2 - r_s^2) / (r_c^2 - r_s^2) from 0 to 1, S = 1 - 10 t^3 + 15 t^4 - 6 t^5, from r_s on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from manybody.core.digest import digest_document
from manybody.core.errors import InputError, Problem
from manybody.numerics import jit
from manybody.numerics.bricks import lower_triangular, refuse_unreachable
from manybody.numerics.mixture_template import SAMPLE
from manybody.numerics.pairs import MARKED, PairPotential, formula

Array = NDArray[np.float64]
Treatment = Literal["plain", "shifted", "force-shifted", "switched"]
Mixing = Literal["lorentz-berthelot", "geometric"]

TREATMENTS: tuple[Treatment, ...] = ("plain", "shifted", "force-shifted", "switched")
_TEMPLATE = Path(__file__).with_name("mixture_template.py")
_BUILT_IN = (
    "bricks.py", "clusters.py", "integrators.py", "jit.py", "mixture_lists.py", "mixtures.py", "neighbours.py", "pairs.py",
    "registers.py", "sheared.py",
)  # fmt: skip


def arithmetic(values: Array) -> Array:
    """(v_a + v_b) / 2 for all pairs of species, [species, species]; Lorentz's rule for diameters."""
    return 0.5 * (values[:, None] + values[None, :])


def geometric(values: Array) -> Array:
    """sqrt(v_a v_b) for all pairs of species, [species, species]; Berthelot's rule for depths."""
    return np.sqrt(values[:, None] * values[None, :])


MIXING: Mapping[Mixing, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "lorentz-berthelot": (arithmetic, geometric),
    "geometric": (geometric, geometric),
}


def mixed(rule: Mixing, sigma: Array, epsilon: Array) -> tuple[Array, Array]:
    """Tables of sigma and epsilon [species, species] from those of each species [species]."""
    of_sigma, of_epsilon = MIXING[rule]
    return of_sigma(sigma), of_epsilon(epsilon)


@dataclass(frozen=True)
class Found:
    """What a configuration's pairs give: forces [atoms, 3], energy, virial [3, 3] (sum of r f), pairs within the cutoffs."""

    forces: Array
    energy: float
    virial: Array
    pairs: float


@dataclass(frozen=True)
class MixturePotential:
    """A formula between the atoms of `species` species, cut off by `treatment`; `threaded` for more threads than one."""

    potential: PairPotential
    species: int
    treatment: Treatment = "shifted"
    threaded: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.species <= 16:
            self._refuse("1 to 16 species", f"{self.species}", "Give each species a number from 0 on.")
        if self.treatment not in TREATMENTS:
            self._refuse(f"one of {', '.join(TREATMENTS)}", f"`{self.treatment}`", "Name how the potential is cut off.")

    def _refuse(self, expected: str, came: str, remedy: str) -> NoReturn:
        raise InputError(Problem(f"mixture of `{self.potential.name}`", expected, came, remedy))

    @property
    def digest(self) -> str:
        """The identity of the generated kernel: formula, species, treatment, and all the code it is compiled with."""
        texts = [path.read_text(encoding="utf-8") for path in (_TEMPLATE, *(_TEMPLATE.with_name(name) for name in _BUILT_IN))]
        asked = [self.potential.expression, self.potential.parameters, self.species, self.treatment, self.threaded]
        return digest_document([*asked, version("numba"), *texts])

    def bind(self, values: Mapping[str, Array], cutoffs: Array | float, begins: Array | float | None = None) -> MixtureKernel:
        """The compiled kernel with a table [species, species] for each parameter, for the cutoffs, and for where a switch begins.

        Tables are symmetric; a number stands for a table of equal ones. Raises `InputError` for anything else.
        """
        if set(values) != set(self.potential.parameters):
            names = ", ".join(self.potential.parameters)
            self._refuse(f"tables for {names}", ", ".join(values) or "none", "Give each of them, and no other.")
        tables = [self._table(name, values[name]) for name in self.potential.parameters]
        empty = np.empty((self.species, self.species, 0))
        parameters = np.stack(tables, axis=-1) if tables else empty
        cuts = self._table("cutoff", cutoffs)
        if not (cuts > 0).all():
            self._refuse("cutoffs above 0", f"{cuts.min():g}", "Give a distance for each pair of species.")
        switched = self._switch(cuts, begins)
        return MixtureKernel(self, np.ascontiguousarray(parameters), cuts, switched)

    def _switch(self, cuts: Array, begins: Array | float | None) -> Array:
        if self.treatment != "switched":
            if begins is not None:
                self._refuse("a switch only where the treatment is `switched`", f"`{self.treatment}`", "Leave out `begins`.")
            return 0.5 * cuts
        if begins is None:
            self._refuse("where the switch begins", "nothing", "Give `begins`, below the cutoff.")
        table = self._table("begins", begins)
        if not ((table >= 0) & (table < cuts)).all():
            self._refuse("a switch that begins below the cutoff", f"{table.tolist()}", f"The cutoffs are {cuts.tolist()}.")
        return table

    def _table(self, name: str, value: Array | float) -> Array:
        shape = (self.species, self.species)
        table = np.broadcast_to(np.asarray(value, dtype=np.float64), shape) if np.ndim(value) == 0 else np.asarray(value, float)
        if table.shape != shape or not np.isfinite(table).all() or not np.array_equal(table, table.T):
            self._refuse(f"a symmetric table {list(shape)} of numbers for {name}", f"{table.tolist()}", "Give one row a species.")
        return np.ascontiguousarray(table)


@dataclass(frozen=True)
class MixtureKernel:
    """A mixture with its tables, compiled. `module` holds the functions of `mixture_template.py`.

    parameters [species, species, parameters]; cutoffs, begins [species, species].
    """

    mixture: MixturePotential
    parameters: Array = field(compare=False)
    cutoffs: Array = field(compare=False)
    begins: Array = field(compare=False)

    @property
    def longest(self) -> float:
        """The longest cutoff."""
        return float(self.cutoffs.max())

    @cached_property
    def module(self) -> Any:
        """The generated module; generated now where the cache does not have it."""
        path = jit.kernel_path(self.mixture.digest)
        if not path.exists():
            jit.keep_source(path, generate(self.mixture))
        jit.start_threads()
        return jit.load_module(path)

    def evaluate(self, positions: Array, species: NDArray[np.int64], cell: Array, threads: int = 1) -> Found:
        """Forces, energy, virial and pairs of positions [atoms, 3] of `species` [atoms] in a cell [3, 3], rows its vectors.

        Any cell and any cutoff will do: every image within the cutoff counts, those of an atom itself included. Raises
        `InputError` for what is no number, no species, or would take absurdly many images.
        """
        rotation, triangular = lower_triangular(cell)
        refuse_unreachable(triangular, self.longest, len(positions))
        x = np.ascontiguousarray(positions, dtype=np.float64)
        kinds = np.ascontiguousarray(species, dtype=np.int64)
        self._refuse_unsound(x, kinds)
        row, rest = np.empty((1, SAMPLE)), np.zeros_like(x)
        _, _, forces, _, _, atom = self.module.advance(
            np.ascontiguousarray(x @ rotation.T), rest, kinds, triangular, self.parameters, self.cutoffs, self.begins,
            (0.0, 0.0), 0.0, 0.0, False, 0, row, threads,
        )  # fmt: skip
        if atom >= 0:
            where, came = f"mixture of `{self.mixture.potential.name}`", f"no finite force on atom {atom}"
            raise InputError(Problem(where, "atoms that do not coincide", came, "Move them apart."))
        xx, yy, zz, xy, xz, yz = row[0, 2:8]
        virial = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        return Found(forces @ rotation, float(row[0, 0]), rotation.T @ virial @ rotation, float(row[0, 1]))

    def _refuse_unsound(self, x: Array, kinds: NDArray[np.int64]) -> None:
        where = f"mixture of `{self.mixture.potential.name}`"
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1)) if x.ndim == 2 and x.shape[1] == 3 and len(x) else np.array([0])
        if len(bad):
            came = (
                f"shape {list(x.shape)}" if x.ndim != 2 or x.shape[1:] != (3,) or not len(x) else f"{x[bad[0]]} for atom {bad[0]}"
            )
            raise InputError(Problem(where, "finite positions [atoms, 3]", came, "Start from a sound configuration."))
        if kinds.shape != x.shape[:1] or not ((kinds >= 0) & (kinds < self.mixture.species)).all():
            expected = f"a species from 0 to {self.mixture.species - 1} for each of {len(x)} atoms"
            came = f"shape {list(kinds.shape)}, {kinds.min()} to {kinds.max()}" if kinds.size else "none"
            raise InputError(Problem(where, expected, came, "Number the species from 0 on."))


def generate(mixture: MixturePotential) -> str:
    """The source of a mixture's kernel module."""
    body, count = formula(mixture.potential)
    loads = ", ".join(f"row[{index}]" for index in range(count))
    constants = f"SPECIES, TREATMENT, COEFFICIENTS = {mixture.species}, {TREATMENTS.index(mixture.treatment)}, {count}"
    spread = "threaded_kernel, prange" if mixture.threaded else "kernel, range"
    text = f"{constants}\nspread, shares = {spread}\n\n\n{body}\n\n@kernel\ndef loaded(row):\n    return ({loads},)\n\n"
    name = f"`{mixture.potential.name}`: {mixture.potential.expression}, {mixture.species} species, {mixture.treatment}"
    head = f'"""Pair kernel of a mixture of {name}. Generated; do not edit."""\n\n'
    rest = _TEMPLATE.read_text(encoding="utf-8").split("from __future__ import annotations\n", 1)[1]
    return head + MARKED.sub(lambda _: text, rest)
