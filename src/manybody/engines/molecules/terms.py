"""Terms of one's own on molecules from files, by formula: restraints, or what a force field leaves out. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from manybody.core.errors import InputError, Problem
from manybody.core.spec import Spec, refuse
from manybody.core.units import is_quantity

if TYPE_CHECKING:
    from manybody.engines.molecules.topology import Topology
    from manybody.numerics.formula_terms import FormulaTerms

Value = float | str
Row = tuple[Annotated[int, Field(ge=0, lt=2**31)], ...]


class Term(Spec):
    """An energy that is a formula of one distance, angle or torsion, for each row of atoms, with parameters in units."""

    atoms: tuple[Row, ...] = Field(
        min_length=1, max_length=10_000, description="atoms of each term, counted from 0: [i, j], [i, j, k] or [i, j, k, l]"
    )
    expression: str = Field(
        description="energy of `r` (two atoms), `theta` (three, 0 to pi) or `phi` (four, -pi to pi), such as "
        "`k/2*wrapped(phi - phi0)**2`"
    )
    parameters: dict[str, Value | tuple[Value, ...]] = Field(
        {}, description="quantities by name, such as `500 kJ/mol` or `-60 degree`; one for all rows of atoms, or a list"
    )

    @model_validator(mode="before")
    @classmethod
    def _row_alone(cls, given: Any) -> Any:
        """A single row of atoms need not be a list of rows."""
        atoms = given.get("atoms") if isinstance(given, dict) else None
        alone = isinstance(atoms, list | tuple) and atoms and all(isinstance(atom, int) for atom in atoms)
        return given | {"atoms": [atoms]} if alone else given

    @model_validator(mode="after")
    def _is_an_energy(self) -> Term:
        for name, given in self.parameters.items():
            values = given if isinstance(given, tuple) else (given,) * len(self.atoms)
            if len(values) != len(self.atoms):
                expected = f"one value of `{name}`, or one for each of {len(self.atoms)} rows of atoms"
                refuse("parameters", expected, f"{len(values)}", "Give a list as long as `atoms`, or a single value.")
            if wrong := [value for value in values if isinstance(value, str) and not is_quantity(value)]:
                expected = f"`{name}` as a quantity such as `500 kJ/mol`, `0.3 nm` or `-60 degree`"
                refuse("parameters", expected, f"`{wrong[0]}`", "Write a number, a space and a unit.")
        try:
            self.compiled()
        except InputError as error:
            (problem,) = error.problems
            refuse("expression", f"{problem.expected} ({problem.where})", problem.came, problem.remedy)
        return self

    def compiled(self) -> FormulaTerms:
        """The terms as a force field takes them, in nm and kJ/mol. Raises `InputError` where the formula is no energy."""
        from manybody.engines.molecules.spec import MOLECULAR_UNITS  # which imports this module
        from manybody.numerics.bonded_formulas import BondedPotential  # these load torch: only where there are terms
        from manybody.numerics.dimensions import in_reduced_units
        from manybody.numerics.formula_terms import FormulaTerms

        potential = BondedPotential(self.expression, tuple(sorted(self.parameters)))
        odd = [row for row in self.atoms if len(row) != potential.members]
        if odd:
            expected = f"{potential.members} atoms a row for `{potential.coordinate}`"
            remedy = "r is of two atoms, theta of three, phi of four."
            raise InputError(Problem(potential.where, expected, f"{list(odd[0])}", remedy))
        columns = [self.parameters[name] for name in potential.parameters]
        rows = [tuple(each[n] if isinstance(each, tuple) else each for each in columns) for n in range(len(self.atoms))]
        known: dict[tuple[Value, ...], list[float]] = {}
        for row in rows:
            if row not in known:
                found = in_reduced_units(potential, dict(zip(potential.parameters, row, strict=True)), MOLECULAR_UNITS)
                known[row] = list(found.values())
        values = np.array([known[row] for row in rows], dtype=np.float64).reshape(len(rows), len(columns))
        return FormulaTerms(potential, np.array(self.atoms, dtype=np.int64), values)


def with_terms(topology: Topology, terms: Sequence[Term], boxed: bool) -> Topology:
    """A topology with terms added, named ``terms`` in its energies; as it is where there are none.

    Raises `InputError` for atoms that there are not, and in a box for atoms of several molecules, whose distance would depend
    on which of their images are meant.
    """
    if not terms:
        return topology
    added = tuple(term.compiled() for term in terms)
    for group in added:
        if group.atoms.max() >= topology.atoms:
            expected, came = f"atoms from 0 to {topology.atoms - 1}", f"{int(group.atoms.max())}"
            raise InputError(Problem(group.potential.where, expected, came, "Count them from 0, in the order of the files."))
        apart = (topology.molecule[group.atoms] != topology.molecule[group.atoms[:, :1]]).any(axis=1)
        if boxed and apart.any():
            came = f"{group.atoms[apart][0].tolist()}, which are of several"
            remedy = "Name atoms of one molecule, or take the system `molecule`."
            raise InputError(Problem(group.potential.where, "atoms of one molecule in a periodic box", came, remedy))
    return replace(topology, bonded={**topology.bonded, "terms": added})


@lru_cache(maxsize=4)
def topology_of(force_field: Path, coordinates: Path, content: str) -> Topology:
    """The topology in two files of a `content`, read once."""
    from manybody.engines.molecules.formats import read_molecule

    return read_molecule(force_field, coordinates)[0]
