"""Fluids of one kind of particle that interact in pairs: what molecular dynamics asks of them, and one of any potential.

Typed, torch-free. Reduced units: masses are 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import Field, SerializeAsAny, model_validator

from manybody.core.protocols import SystemSpec
from manybody.core.spec import refuse
from manybody.core.units import Length, NumberDensity, Temperature
from manybody.engines.particles.pair_choices import (
    BuckinghamPotential,
    FormulaPotential,
    LennardJonesPotential,
    MorsePotential,
    SoftCorePotential,
    SoftRepulsionPotential,
    TablePotential,
    WeeksChandlerAndersenPotential,
    YukawaPotential,
)

HOT = 3.0  # of the temperature asked for: beyond what any crystal of repelling spheres stands, and half an order slower steps
Treatment = Literal["corrected", "plain", "shifted"]
Potential = Annotated[
    SerializeAsAny[
        FormulaPotential
        | TablePotential
        | LennardJonesPotential
        | WeeksChandlerAndersenPotential
        | MorsePotential
        | BuckinghamPotential
        | YukawaPotential
        | SoftCorePotential
        | SoftRepulsionPotential
    ],
    Field(discriminator="name"),
]


class PairFluid(SystemSpec, ABC):
    """N particles of mass 1 in a periodic cube that interact in pairs up to a cutoff.

    Dynamics is that of energies shifted to zero at the cutoff. What is measured is of energies that are higher by
    `edge_energy` a pair within it, and has the tails of all pairs beyond, which a member knows.
    """

    symmetries: ClassVar[tuple[str, ...]] = ("translation", "permutation", "cubic rotation")
    conserved: ClassVar[tuple[str, ...]] = ("energy", "momentum")

    temperature: Temperature = Field(gt=0, examples=[0.85], description="temperature")
    density: NumberDensity = Field(gt=0, le=2.0, examples=[0.776], description="particles per volume")
    atoms: int = Field(500, ge=32, le=10_000_000, description="number of particles")
    cutoff: Length = Field(3.0, gt=1.0, description="pairs further apart do not interact; must exceed sigma and fit half the box")

    @property
    def box(self) -> float:
        """Edge of the periodic cube, in sigma."""
        return math.cbrt(self.atoms / self.density)

    @property
    def melting_temperature(self) -> float:
        """What a lattice is heated to, for it to become a fluid within a short time."""
        return HOT * self.temperature

    @property
    @abstractmethod
    def edge_energy(self) -> float:
        """What is added to each pair's energy after dynamics: u(cutoff), or 0 where the shifted energy is what is meant."""

    @abstractmethod
    def energy_tail(self, density: float) -> float:
        """The energy a particle of pairs beyond the cutoff at g(r) = 1, where the system has it; else 0."""

    @abstractmethod
    def pressure_tail(self, density: float) -> float:
        """The pressure of pairs beyond the cutoff at g(r) = 1, where the system has it; else 0."""

    @model_validator(mode="after")
    def _cutoff_fits(self) -> PairFluid:
        if self.cutoff > self.box / 2:
            atoms = math.ceil((2 * self.cutoff) ** 3 * self.density)
            refuse(
                "cutoff",
                f"at most half the box, {self.box / 2:.4g}",
                f"{self.cutoff:g}",
                f"Lower the cutoff, or take at least {atoms} atoms at this density.",
            )
        return self


class SimpleFluid(PairFluid):
    """A fluid of any pair potential: one by name, a formula, or a table from a file."""

    summary: ClassVar[str] = "particles in a periodic box with any pair potential: by name, by formula or from a table"

    name: Literal["simple-fluid"] = "simple-fluid"
    density: NumberDensity = Field(gt=0, examples=[0.5], description="particles per volume")
    cutoff: Length = Field(3.0, gt=0, description="pairs further apart do not interact; at most half the box")
    potential: Potential = Field(
        examples=[{"name": "formula", "expression": "epsilon*(sigma/r)**12", "parameters": {"epsilon": 1.0, "sigma": 1.0}}],
        description="the energy of a pair: one of those by name, `formula` or `table`",
    )
    treatment: Treatment = Field(
        "corrected", description="beyond the cutoff: `corrected` (added at g(r) = 1), `plain` (nothing), or `shifted` to 0 there"
    )

    @property
    def edge_energy(self) -> float:
        """u(cutoff), or 0 where energies are shifted."""
        return 0.0 if self.treatment == "shifted" else self.potential.energy(self.cutoff)

    def energy_tail(self, density: float) -> float:
        """2 pi rho int_rc^inf u r^2 dr, by quadrature; 0 unless `corrected`."""
        return 2 * math.pi * density * self._beyond

    def pressure_tail(self, density: float) -> float:
        """-(2 pi/3) rho^2 int_rc^inf u' r^3 dr = (2 pi/3) rho^2 (u(rc) rc^3 + 3 int_rc^inf u r^2 dr); 0 unless `corrected`."""
        edge = self.potential.energy(self.cutoff) * self.cutoff**3 if self._is_corrected else 0.0
        return 2 / 3 * math.pi * density**2 * (edge + 3 * self._beyond)

    @property
    def _is_corrected(self) -> bool:
        return self.treatment == "corrected" and self.potential.end is None

    @property
    def _beyond(self) -> float:
        return self.potential.integral_beyond(self.cutoff) if self._is_corrected else 0.0

    @model_validator(mode="after")
    def _potential_is_known_there(self) -> SimpleFluid:
        if not self.potential.is_at_hand:
            return self  # the document of a study from elsewhere: tasks refuse what is not there
        end, called = self.potential.end, self.potential.name
        if end is not None and self.cutoff > end * (1 + 1e-12):
            refuse("cutoff", f"at most {end!r}, where `{called}` ends", f"{self.cutoff!r}", "Lower it.")
        if not math.isfinite(self.potential.energy(self.cutoff)):
            refuse("potential", f"a finite energy at the cutoff, {self.cutoff:g}", "none", "Mend its parameters, or the cutoff.")
        if self.treatment == "corrected" and end is None and not self.potential.falls_fast(self.cutoff):
            expected = "a potential that falls faster than r^-3, for its tail to be finite"
            refuse("treatment", expected, f"`{called}`", "Take `plain` or `shifted`.")
        if self.treatment == "corrected" and isinstance(self.potential, TablePotential):
            refuse("treatment", "`plain` or `shifted`: a table knows nothing of what lies beyond it", "corrected", "Take one.")
        return self
