"""What is measured of atoms: energy, pressure, structure, motion, and the constants of a crystal. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from manybody.core.errors import InputError, Problem
from manybody.core.protocols import ClosedForm, MeasureSpec, Samples
from manybody.core.study import Point
from manybody.core.task import Output
from manybody.engines.atoms.closed_forms import at_rest, closed_form
from manybody.engines.atoms.diamond import BONDS, DiamondCrystal
from manybody.engines.atoms.known_answers import BravaisCrystal
from manybody.engines.atoms.spec import GIGAPASCAL, KELVIN, AtomsDynamics, AtomsStatics, AtomsSystem, Crystal

SOURCE = "lattice sums of the potential's own functions, M. S. Daw and M. I. Baskes, Phys. Rev. B 29, 6443 (1984)"
SIGMAS = 4.0  # standard errors of one run allowed between it and theory
# Motion strains a crystal by about kT / (B Omega) in energy, and strain changes its stiffness by the pressure derivative of the
# bulk modulus, about 6 in metals: harmonic theory is off by about that product. Twice it is allowed: 1 % for copper at 100 K.
ANHARMONIC = 12.0
SLACK_FROM = f"{ANHARMONIC:g} kT over the bulk modulus times an atom's volume, for anharmonic terms, and {SIGMAS:g} errors"


class AtomsEnergy(MeasureSpec):
    """Potential energy an atom, eV."""

    summary: ClassVar[str] = "potential energy an atom"
    symbol: ClassVar[str] = "U/N"
    unit: ClassVar[str] = "eV"
    methods: ClassVar[tuple[str, ...]] = ("atoms-dynamics",)

    name: Literal["atoms-energy"] = "atoms-energy"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        return _plain(point, _joined(outputs, "potential_energy") / _system(point).count)


class AtomsPressure(MeasureSpec):
    """Pressure, GPa: (2 K + W) / (3 V), W the virial of the model's stress."""

    summary: ClassVar[str] = "pressure of atoms in a periodic cell, from the model's stress"
    symbol: ClassVar[str] = "p"
    unit: ClassVar[str] = "GPa"
    methods: ClassVar[tuple[str, ...]] = ("atoms-dynamics",)

    name: Literal["atoms-pressure"] = "atoms-pressure"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        return _plain(point, _pressure(outputs) / GIGAPASCAL)


class PotentialShare(MeasureSpec):
    """Potential energy above that at rest, over 3/2 kT for each of N - 1 atoms: 1 for a harmonic crystal (equipartition)."""

    summary: ClassVar[str] = "vibrational potential energy over 3/2 kT an atom (equipartition)"
    symbol: ClassVar[str] = "(U - U_0) / (3/2 (N - 1) kT)"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("atoms-dynamics",)
    systems: ClassVar[tuple[str, ...]] = ("crystal",)

    name: Literal["potential-share"] = "potential-share"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        system = _crystal(point)
        rest = float(outputs[0].document["static_energy"])
        vibrations = 3 * system.count - 3  # the crystal as a whole has no potential energy
        return _plain(point, (_joined(outputs, "potential_energy") - rest) / (0.5 * vibrations * system.temperature))

    def exact(self, point: Point) -> ClosedForm | None:
        """1, with a thermostat, but for what is anharmonic."""
        system, method = _crystal(point), _dynamics(point)
        crystal = closed_form(system)
        if crystal is None or method.thermostat == "none":
            return None
        return ClosedForm(1.0, _slack(system, method, crystal), SLACK_FROM, "equipartition theorem")


class ThermalExpansion(MeasureSpec):
    """Linear expansion coefficient of the crystal at rest, 1e-6/K: (p(T) - p_0) / (3 B T), at the volume that it has.

    dp/dT at constant volume is the volume's expansion coefficient times the bulk modulus; p_0 and B are those of the crystal
    at rest. At low temperature this is the coefficient at T -> 0 of classical atoms; further terms go as T.
    """

    summary: ClassVar[str] = "linear thermal expansion coefficient, from the thermal pressure and the bulk modulus"
    symbol: ClassVar[str] = "alpha"
    unit: ClassVar[str] = "1e-6/K"
    methods: ClassVar[tuple[str, ...]] = ("atoms-dynamics",)
    systems: ClassVar[tuple[str, ...]] = ("crystal",)

    name: Literal["thermal-expansion"] = "thermal-expansion"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a sample."""
        system, known = _crystal(point), outputs[0].document
        kelvins = system.temperature / KELVIN
        thermal = _pressure(outputs) - float(known["static_pressure"])
        if _dynamics(point).thermostat == "langevin":  # its centre of mass is hot too, as an ideal gas of one particle
            thermal = thermal - system.temperature / system.lattice_constant**3 / math.prod(system.repeat)
        return _plain(point, 1e6 * thermal / (3 * float(known["static_bulk_modulus"]) * kelvins))

    def exact(self, point: Point) -> ClosedForm | None:
        """From the potential's lattice vibrations in the same cells, but for what is anharmonic."""
        system, method = _crystal(point), _dynamics(point)
        crystal = closed_form(system)
        if crystal is None or method.thermostat == "none":
            return None
        value = 1e6 * KELVIN * crystal.thermal_pressure(system.repeat) / (3 * crystal.bulk_modulus)
        slack = value * _slack(system, method, crystal)
        return ClosedForm(value, slack, SLACK_FROM, "quasi-harmonic lattice dynamics of the same cells")


class AtomsDistribution(MeasureSpec):
    """g(r): pairs of atoms at distance r over what an ideal gas of the same density has, up to `range`."""

    summary: ClassVar[str] = "radial distribution function of atoms in a periodic cell"
    symbol: ClassVar[str] = "g(r)"
    unit: ClassVar[str] = ""
    methods: ClassVar[tuple[str, ...]] = ("atoms-dynamics",)

    name: Literal["atoms-distribution"] = "atoms-distribution"
    bins: int = Field(100, ge=4, le=10_000, description="intervals of r")
    range: float = Field(6.0, gt=0, le=20, description="largest r, angstroms")

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One curve a stored configuration; `axis` holds the centres of the bins."""
        from manybody.numerics.many_body import rows_within  # compiled: only where it is measured

        edges = np.linspace(0.0, self.range, self.bins + 1)
        cell, pbc = outputs[0].arrays["cell"], outputs[0].arrays["pbc"]
        curves = []
        for frame in _joined(outputs, "frames"):
            pairs, shifts = rows_within(frame, cell, pbc, self.range, 0.0).pairs()
            distance = np.linalg.norm(frame[pairs[1]] + shifts - frame[pairs[0]], axis=1)
            curves.append(np.histogram(distance, edges)[0])
        count, volume = len(outputs[0].arrays["numbers"]), abs(float(np.linalg.det(cell)))
        ideal = 0.5 * count * (count - 1) / volume * 4 / 3 * math.pi * np.diff(edges**3)
        values = np.array(curves) / ideal
        return Samples(values, np.ones(len(values)), _dynamics(point).frame_every, 0.5 * (edges[1:] + edges[:-1]))


class AtomsDisplacement(MeasureSpec):
    """<|x(t + lag) - x(t)|^2> over all atoms, angstrom^2, the lag being `lag` stored configurations."""

    summary: ClassVar[str] = "mean square displacement of atoms over a lag between stored configurations"
    symbol: ClassVar[str] = "<dr^2>"
    unit: ClassVar[str] = "angstrom^2"
    methods: ClassVar[tuple[str, ...]] = ("atoms-dynamics",)

    name: Literal["atoms-displacement"] = "atoms-displacement"
    lag: int = Field(1, ge=1, description="stored configurations between the two positions")

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value a pair of configurations of one segment."""
        values = []
        for output in outputs:
            frames = np.asarray(output.arrays["frames"], dtype=np.float64)
            values.append(((frames[self.lag :] - frames[: -self.lag]) ** 2).sum(axis=2).mean(axis=1))
        joined = np.concatenate(values)
        return Samples(joined, np.ones(len(joined)), _dynamics(point).frame_every)


# --- statics ---------------------------------------------------------------------------------------------------------


class LatticeConstant(MeasureSpec):
    """Edge of the cubic cell at the minimum of the equation of state, angstroms."""

    summary: ClassVar[str] = "lattice constant of a cubic crystal, from its equation of state"
    symbol: ClassVar[str] = "a"
    unit: ClassVar[str] = "angstrom"
    methods: ClassVar[tuple[str, ...]] = ("atoms-statics",)
    systems: ClassVar[tuple[str, ...]] = ("crystal",)

    name: Literal["lattice-constant"] = "lattice-constant"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value."""
        system = _crystal(point)
        per_cell = system.count / math.prod(system.repeat)
        return _ground(math.cbrt(float(outputs[-1].document["volume"]) * per_cell))

    def exact(self, point: Point) -> ClosedForm | None:
        """Where the pressure of the lattice sum vanishes."""
        return _closed(point, lambda crystal: crystal.edge, 1e-6)


class CohesiveEnergy(MeasureSpec):
    """Energy that it takes to part the crystal into single atoms, eV an atom."""

    summary: ClassVar[str] = "cohesive energy an atom, against single atoms of the same model"
    symbol: ClassVar[str] = "E_c"
    unit: ClassVar[str] = "eV"
    methods: ClassVar[tuple[str, ...]] = ("atoms-statics",)

    name: Literal["cohesive-energy"] = "cohesive-energy"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value."""
        found = outputs[-1].document
        if "isolated_energy" not in found:
            came = f"`{_system(point).energy.name}`, which has none"
            raise InputError(Problem(self.name, "a model with an energy of single atoms", came, "Leave this measure out."))
        return _ground(float(found["isolated_energy"]) - float(found["energy"]))

    def exact(self, point: Point) -> ClosedForm | None:
        """The lattice sum's."""
        return _closed(point, lambda crystal: -crystal.energy, 1e-6)


class BulkModulus(MeasureSpec):
    """Bulk modulus at the minimum of Birch and Murnaghan's equation of state, GPa."""

    summary: ClassVar[str] = "bulk modulus, from Birch and Murnaghan's equation of state"
    symbol: ClassVar[str] = "B"
    unit: ClassVar[str] = "GPa"
    methods: ClassVar[tuple[str, ...]] = ("atoms-statics",)

    name: Literal["bulk-modulus"] = "bulk-modulus"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value."""
        return _ground(float(outputs[-1].document["bulk_modulus"]) / GIGAPASCAL)

    def exact(self, point: Point) -> ClosedForm | None:
        """The derivative of the lattice sum's pressure."""
        return _closed(point, lambda crystal: crystal.bulk_modulus / GIGAPASCAL, 2e-4)


class ElasticC11(MeasureSpec):
    """c11, GPa, from the stresses of small strains: extrapolated to none."""

    summary: ClassVar[str] = "elastic constant c11, from stresses of small strains"
    symbol: ClassVar[str] = "c11"
    unit: ClassVar[str] = "GPa"
    methods: ClassVar[tuple[str, ...]] = ("atoms-statics",)

    name: Literal["elastic-c11"] = "elastic-c11"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value."""
        return _ground(float(np.diag(_stiffness(outputs))[:3].mean()))

    def exact(self, point: Point) -> ClosedForm | None:
        """The lattice sum's."""
        return _closed(point, lambda crystal: crystal.elastic()[0] / GIGAPASCAL, 3e-4)


class ElasticC12(MeasureSpec):
    """c12, GPa, from the stresses of small strains: extrapolated to none."""

    summary: ClassVar[str] = "elastic constant c12, from stresses of small strains"
    symbol: ClassVar[str] = "c12"
    unit: ClassVar[str] = "GPa"
    methods: ClassVar[tuple[str, ...]] = ("atoms-statics",)

    name: Literal["elastic-c12"] = "elastic-c12"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value."""
        return _ground(float(_stiffness(outputs)[[0, 0, 1], [1, 2, 2]].mean()))

    def exact(self, point: Point) -> ClosedForm | None:
        """The lattice sum's."""
        return _closed(point, lambda crystal: crystal.elastic()[1] / GIGAPASCAL, 3e-4)


class ElasticC44(MeasureSpec):
    """c44, GPa, from the stresses of small strains: extrapolated to none."""

    summary: ClassVar[str] = "elastic constant c44, from stresses of small strains"
    symbol: ClassVar[str] = "c44"
    unit: ClassVar[str] = "GPa"
    methods: ClassVar[tuple[str, ...]] = ("atoms-statics",)

    name: Literal["elastic-c44"] = "elastic-c44"

    def samples(self, point: Point, outputs: Sequence[Output]) -> Samples:
        """One value."""
        return _ground(float(np.diag(_stiffness(outputs))[3:].mean()))

    def exact(self, point: Point) -> ClosedForm | None:
        """The lattice sum's."""
        return _closed(point, lambda crystal: crystal.elastic()[2] / GIGAPASCAL, 3e-4)


# --- theory ----------------------------------------------------------------------------------------------------------


def _slack(system: Crystal, method: AtomsDynamics, crystal: BravaisCrystal) -> float:
    """By what share a sound run may differ from harmonic theory: what is anharmonic, and chance.

    A potential energy spreads by sqrt(2 / freedom) of itself, and is redrawn about once in the thermostat's relaxation time.
    """
    soft = ANHARMONIC * system.temperature / (crystal.bulk_modulus * crystal.volume)
    spread = math.sqrt(2 / (3 * system.count - 3))
    return soft + SIGMAS * spread * math.sqrt(2 * method.thermostat_time / method.duration)


def _closed(point: Point, value: Callable[[BravaisCrystal | DiamondCrystal], float], relative: float) -> ClosedForm | None:
    """A constant of the relaxed crystal, where it has a closed form."""
    crystal, method = at_rest(_system(point)), point.method
    assert isinstance(method, AtomsStatics)
    if crystal is None or not method.cell:
        return None
    known = value(crystal)
    told = f"{relative:g} of the value, left of a fit to volumes within {method.range:g}, or of strains of {method.strain:g}"
    return ClosedForm(known, relative * abs(known), told, SOURCE if isinstance(crystal, BravaisCrystal) else BONDS)


def _system(point: Point) -> AtomsSystem:
    assert isinstance(point.system, AtomsSystem)
    return point.system


def _crystal(point: Point) -> Crystal:
    assert isinstance(point.system, Crystal)
    return point.system


def _dynamics(point: Point) -> AtomsDynamics:
    assert isinstance(point.method, AtomsDynamics)
    return point.method


def _stiffness(outputs: Sequence[Output]) -> np.ndarray:
    return np.asarray(outputs[-1].arrays["stiffness"], dtype=np.float64) / GIGAPASCAL


def _pressure(outputs: Sequence[Output]) -> np.ndarray:
    """(2 K + W) / (3 V) of every sample, eV/angstrom^3."""
    if "static_pressure" not in outputs[0].document:
        expected, came = "a model with a stress, and a cell that is periodic in every direction", "one without"
        raise InputError(Problem("pressure", expected, came, "Leave measures of pressure out, or choose another model."))
    volume = abs(float(np.linalg.det(outputs[0].arrays["cell"])))
    return np.asarray((2 * _joined(outputs, "kinetic_energy") + _joined(outputs, "virial")) / (3 * volume))


def _plain(point: Point, values: np.ndarray) -> Samples:
    """One unweighted value a sample."""
    return Samples(values, np.ones(len(values)), _dynamics(point).sample_every)


def _ground(value: float) -> Samples:
    """A value that no chance enters, twice: a standard error takes two samples, and that of a ground state is 0."""
    return Samples(np.full(2, value), np.ones(2), 1.0)


def _joined(outputs: Sequence[Output], name: str) -> np.ndarray:
    return np.concatenate([np.asarray(output.arrays[name], dtype=np.float64) for output in outputs])
