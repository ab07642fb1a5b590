"""What is measured of biased sampling: free-energy surfaces over torsions, and free energies of their basins. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from manybody.core.errors import InputError, Problem
from manybody.core.protocols import MeasureSpec, Samples
from manybody.core.spec import Spec, refuse
from manybody.core.study import Point
from manybody.core.task import Output
from manybody.engines.molecules.free_energy import free_energy, jackknifed
from manybody.engines.molecules.sampling import BiasedDynamics
from manybody.engines.molecules.spec import Molecule

Range = tuple[float, float]


class Region(Spec):
    """A part of a circle or a torus: a range in degrees of each torsion, from the first up to the second, through 180."""

    ranges: tuple[Range, ...] = Field(min_length=1, max_length=2, description="from, to for each torsion, degrees")

    def cells(self, bins: int) -> np.ndarray:
        """Which cells of a grid from -180 degrees on have their centres inside: [bins, bins], or [bins, 1] of one torsion."""
        centres = -180 + 360 * (np.arange(bins) + 0.5) / bins
        inside = [(centres - low) % 360 < (high - low) % 360 for low, high in self.ranges]
        return inside[0][:, None] & (inside[1][None, :] if len(inside) == 2 else np.ones((1, 1), dtype=bool))


# The Ramachandran basins of alanine dipeptide in vacuum, with borders along the ridges between them.
EQUATORIAL = Region(ranges=((-115.0, -20.0), (-60.0, 110.0)))  # C7eq
EXTENDED = Region(ranges=((155.0, -115.0), (110.0, -120.0)))  # C5
AXIAL = Region(ranges=((35.0, 105.0), (-140.0, 40.0)))  # C7ax


class _BasinFreeEnergy(MeasureSpec):
    """-kT log of the population of one region over that of another; pseudo-values of the jackknife as samples."""

    unit: ClassVar[str] = "kJ/mol"
    methods: ClassVar[tuple[str, ...]] = ("biased-dynamics",)

    region: Region = Field(description="the basin")
    reference: Region = Field(description="the basin it is compared with")

    @model_validator(mode="after")
    def _alike(self) -> _BasinFreeEnergy:
        if len(self.region.ranges) != len(self.reference.ranges):
            refuse("reference", "as many torsions as the region has", f"{len(self.reference.ranges)}", "Give a range each.")
        return self

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a block, whose mean is the estimate and whose scatter is its error."""
        system, method, found = _populations(point, outputs)
        region, reference = (part.cells(method.bins) for part in (self.region, self.reference))
        values = jackknifed(
            lambda share: free_energy(float(share[region].sum()), float(share[reference].sum()), system.temperature), found
        )
        return _blocks(method, values)


class FreeEnergyDifference(_BasinFreeEnergy):
    """Free energy of one region of the torsions less that of another."""

    summary: ClassVar[str] = "free energy of one region of the torsions less that of another"
    symbol: ClassVar[str] = "dF"

    name: Literal["free-energy-difference"] = "free-energy-difference"


class AxialFreeEnergy(_BasinFreeEnergy):
    """Free energy of the basin C7ax of a dipeptide less that of C7eq."""

    summary: ClassVar[str] = "free energy of a dipeptide's C7ax basin less that of C7eq"
    symbol: ClassVar[str] = "F(C7ax)-F(C7eq)"

    name: Literal["axial-free-energy"] = "axial-free-energy"
    region: Region = Field(AXIAL, description="the basin")
    reference: Region = Field(EQUATORIAL, description="the basin it is compared with")


class ExtendedFreeEnergy(_BasinFreeEnergy):
    """Free energy of the extended basin C5 of a dipeptide less that of C7eq."""

    summary: ClassVar[str] = "free energy of a dipeptide's extended basin C5 less that of C7eq"
    symbol: ClassVar[str] = "F(C5)-F(C7eq)"

    name: Literal["extended-free-energy"] = "extended-free-energy"
    region: Region = Field(EXTENDED, description="the basin")
    reference: Region = Field(EQUATORIAL, description="the basin it is compared with")


class FreeEnergySurface(MeasureSpec):
    """-kT log of a cell's population over that of a whole region, for the cells of a grid over one or two torsions.

    Cells more than `depth` above the lowest are left open (NaN), as are those whose samples all come from one block: neither
    has an error that could be believed.
    """

    summary: ClassVar[str] = "free-energy surface over one or two torsions (Ramachandran plot)"
    symbol: ClassVar[str] = "F(phi, psi)"
    unit: ClassVar[str] = "kJ/mol"
    methods: ClassVar[tuple[str, ...]] = ("biased-dynamics",)

    name: Literal["free-energy-surface"] = "free-energy-surface"
    cells: int = Field(36, ge=6, le=180, description="cells along each torsion; a divisor of the method's bins")
    depth: float = Field(8.0, gt=1, description="how far above the lowest cell free energies are told, kT")
    reference: Region = Field(EQUATORIAL, description="the region that populations are told relative to")

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One curve a block over all cells; `axis` [cells, torsions] holds their centres in degrees."""
        system, method, found = _populations(point, outputs)
        if method.bins % self.cells:
            expected = f"a divisor of the method's {method.bins} bins"
            raise InputError(
                Problem("cells of `free-energy-surface`", expected, f"{self.cells}", "Take half or a third of them.")
            )
        kT, reference = system.temperature, self.reference.cells(method.bins)

        def surface(share: np.ndarray) -> np.ndarray:
            return free_energy(_coarse(share, self.cells).ravel(), float(share[reference].sum()), kT)

        values = jackknifed(surface, found)
        whole = surface(found[0])
        values[:, whole > whole.min() + self.depth * kT] = np.nan
        values[:, np.isnan(values).any(axis=0)] = np.nan
        return _blocks(method, values, _centres(self.cells, len(method.torsions)))


def _coarse(share: np.ndarray, cells: int) -> np.ndarray:
    """Populations of fewer cells: [cells, cells], or [cells, 1] of one torsion."""
    rows = np.asarray(share.reshape(cells, -1, share.shape[1]).sum(axis=1))
    return rows if share.shape[1] == 1 else np.asarray(rows.reshape(cells, cells, -1).sum(axis=2))


def _centres(cells: int, torsions: int) -> np.ndarray:
    """Centres of the cells in degrees, [cells^torsions, torsions], or [cells] of one torsion."""
    along = -180 + 360 * (np.arange(cells) + 0.5) / cells
    if torsions == 1:
        return along
    return np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1).reshape(-1, 2)


def _populations(point: Point, outputs: Sequence[Output]) -> tuple[Molecule, BiasedDynamics, np.ndarray]:
    assert isinstance(point.system, Molecule)
    assert isinstance(point.method, BiasedDynamics)
    return point.system, point.method, np.asarray(outputs[0].arrays["populations"], dtype=np.float64)


def _blocks(method: BiasedDynamics, values: np.ndarray, axis: np.ndarray | None = None) -> Samples:
    """One unweighted value a block of the duration."""
    return Samples(values, np.ones(len(values)), method.duration / math.prod((method.windows, method.blocks)), axis)
