"""Smooth particle-mesh Ewald: Coulomb forces of a periodic system in O(N log N).

    U_rec = 1/2 sum_(m != 0) G(m) |Q^(m)|^2,   G(m) = 4 pi / (V k^2) exp(-k^2 / 4 alpha^2) B(m),   k = 2 pi m cell^-T

with Q^ the transform of the charges spread over the mesh by B-splines, and B the product of 1 / |Euler spline|^2. The
rest of the sum is that of `ewald.py`, whose conventions hold here. Source: U. Essmann et al., J. Chem. Phys. 103
(1995) 8577.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manybody.core.errors import InputError, Problem
from manybody.numerics import mesh as meshes
from manybody.numerics.bsplines import euler_moduli
from manybody.numerics.ewald import Coulomb, background_energy, checked, direct_energy, inverse_cell, self_energy
from manybody.numerics.lattice_list import LatticeList, lattice_list
from manybody.numerics.pme_kernels import convolve, mode_virial, subtract_excluded
from manybody.numerics.pme_parameters import SINGLE_PRECISION_LIMIT, PMEParameters, choose
from manybody.numerics.screened import DirectSum, ScreenedPairs

Array = NDArray[np.float64]

CLUSTERS_A_PART = 16  # about 0.1 ms: far more than handing out a part costs, and little to wait for at the end

__all__ = ["PMEParameters", "PMEPlan", "influence", "mesh_energy", "pme_energy"]

# --- the formula -----------------------------------------------------------------------------------------------


def influence(cell: Tensor, alpha: float, shape: tuple[int, int, int], order: int) -> Tensor:
    """G(m) for m of a real transform, [x, y, z // 2 + 1]; 0 at m = 0 (tin foil).  Differentiable in `cell`."""
    x, y, z = (torch.as_tensor(m, dtype=cell.dtype, device=cell.device) for m in mode_numbers(shape))
    m = torch.stack(torch.meshgrid(x, y, z, indexing="ij"), -1)
    square = ((2 * math.pi * m @ torch.linalg.inv(cell).T) ** 2).sum(-1)
    zero = square == 0
    safe = torch.where(zero, torch.ones_like(square), square)
    volume = torch.abs(torch.linalg.det(cell))
    kernel = 4 * math.pi / volume * torch.exp(-safe / (4 * alpha**2)) / safe
    bx, by, bz = (torch.as_tensor(1 / euler_moduli(n, order), dtype=cell.dtype, device=cell.device) for n in shape)
    smear = bx[:, None, None] * by[None, :, None] * bz[None, None, : shape[2] // 2 + 1]
    return torch.where(zero, torch.zeros_like(kernel), kernel * smear)


def mode_numbers(shape: tuple[int, int, int]) -> tuple[Array, Array, Array]:
    """The integers m along each axis of a real transform of `shape`."""
    x, y, z = shape
    along_x, along_y, along_z = np.fft.fftfreq(x, 1 / x), np.fft.fftfreq(y, 1 / y), np.fft.rfftfreq(z, 1 / z)
    return np.asarray(along_x, np.float64), np.asarray(along_y, np.float64), np.asarray(along_z, np.float64)


def mesh_energy(positions: Tensor, charges: Tensor, cell: Tensor, parameters: PMEParameters) -> Tensor:
    """U_rec: the plain twin of the compiled path, and the one for CUDA. Differentiable in all three tensors; returns []."""
    shape, order = parameters.mesh, parameters.order
    charge_mesh = meshes.spread_points(positions @ torch.linalg.inv(cell), charges, shape, order)
    power = torch.fft.rfftn(charge_mesh).abs() ** 2
    twice = torch.full((shape[2] // 2 + 1,), 2.0, dtype=power.dtype, device=power.device)  # -m is not stored
    twice[0] = 1.0
    if shape[2] % 2 == 0:
        twice[-1] = 1.0
    return 0.5 * (influence(cell, parameters.alpha, shape, order) * power * twice).sum()


def pme_energy(positions: Tensor, charges: Tensor, cell: Tensor, parameters: PMEParameters) -> Tensor:
    """The whole PME energy in plain tensors, the direct sum over all pairs: an oracle for some hundred atoms.  Returns []."""
    energy = direct_energy(positions, charges, cell, parameters.alpha, parameters.cutoff)
    energy = energy + mesh_energy(positions, charges, cell, parameters)
    return energy + self_energy(charges, parameters.alpha) + background_energy(charges, cell, parameters.alpha)


# --- the compiled path -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exclusions:
    """Pairs [pairs, 2] that interact only in part: kept [pairs] is 0 for an excluded pair, the 1-4 factor for a scaled one.

    The nearest image of a pair is meant, and its whole 1/r is taken off, so excluded atoms must not coincide.
    """

    pairs: NDArray[np.int64]
    kept: Array

    def __post_init__(self) -> None:
        if self.pairs.shape != (len(self.kept), 2):
            came = f"pairs of shape {self.pairs.shape}, kept of shape {self.kept.shape}"
            raise InputError(Problem("exclusions", "pairs [n, 2] and kept [n]", came, "Give one factor for each pair."))
        if (self.pairs[:, 0] == self.pairs[:, 1]).any():
            raise InputError(Problem("exclusions", "two different atoms", "an atom with itself", "Take the pair out."))


class PMEPlan:
    """All that does not change from step to step: influence function, polynomial, room to work in.

    charges: [atoms]; cell: [3, 3]. A plan is cheap to make (`with_cell` for a barostat) and keeps no state between calls
    but its work space, so one plan serves one thread. Same input, same bits, whatever the number of threads.
    """

    def __init__(
        self,
        charges: Array,
        cell: Array,
        parameters: PMEParameters,
        coulomb_constant: float = 1.0,
        exclusions: Exclusions | None = None,
        remove_net_force: bool = False,
        measured_error: float | None = None,
        threads: int = 1,
    ) -> None:
        _, self.charges, self.cell = checked(np.zeros((len(charges), 3)), charges, cell)
        self.parameters, self.coulomb_constant = parameters, coulomb_constant
        self.exclusions, self.remove_net_force, self.measured_error = exclusions, remove_net_force, measured_error
        self.inverse = inverse_cell(self.cell)
        self.volume = abs(float(np.linalg.det(self.cell)))
        self.total_charge = float(self.charges.sum())
        tolerance = 1e-6 if parameters.single else 0.0  # as much as rounding to single precision costs
        self._pairs = ScreenedPairs(parameters.alpha, parameters.cutoff, parameters.single, tolerance)
        shape = parameters.mesh
        self._influence = influence(torch.from_numpy(self.cell), parameters.alpha, shape, parameters.order).numpy()
        self.sums_mesh = True
        self.threads = threads
        self._helpers = ThreadPoolExecutor(threads - 1, "pme") if threads > 1 else None
        self._padded = np.empty((shape[0], shape[1], shape[2] + meshes.PAD))
        self._mesh = np.empty(shape)
        self._weights, self._slopes = np.empty((2, len(charges), 3, meshes.PAD))

    @classmethod
    def for_accuracy(
        cls,
        charges: Array,
        cell: Array,
        relative_error: float,
        positions: Array | None = None,
        skin: float | None = None,
        single: bool | None = None,
        cutoff: float | None = None,
        coulomb_constant: float = 1.0,
        exclusions: Exclusions | None = None,
        threads: int = 1,
    ) -> PMEPlan:
        """The cheapest plan whose root-mean-square force error is `relative_error` of the root-mean-square force.

        With positions [atoms, 3] the error is measured against a much tighter sum and the plan corrected until it
        holds (`plan.measured_error`). Without, the typical force is that of neighbours at the mean distance, and the
        error is an estimate. `skin` defaults to a tenth of the cutoff, `single` to whether the error allows it.
        """
        if not 1e-12 <= relative_error < 1:
            expected = "a relative error from 1e-12 to 1"
            raise InputError(Problem("relative_error", expected, f"{relative_error!r}", "Ask for 1e-4 for dynamics."))
        single = relative_error >= SINGLE_PRECISION_LIMIT if single is None else single
        density = len(charges) / abs(float(np.linalg.det(cell)))
        skin = 0.35 * density ** (-1 / 3) if skin is None else skin
        typical = float(np.mean(np.asarray(charges) ** 2)) * density ** (2 / 3)
        if positions is None:
            parameters = choose(charges, cell, relative_error * typical, skin, single, cutoff)
            return cls(charges, cell, parameters, coulomb_constant, exclusions, threads=threads)
        positions, charges, cell = checked(positions, charges, cell)

        def candidate(error: float) -> PMEPlan:
            return cls(
                charges, cell, choose(charges, cell, error, skin, single, cutoff), coulomb_constant, exclusions, threads=threads
            )

        return _calibrate(candidate, positions, relative_error, typical)

    def with_cell(self, cell: Array) -> PMEPlan:
        """The same plan in another cell: same mesh shape, alpha and cutoff."""
        return PMEPlan(
            self.charges, cell, self.parameters, self.coulomb_constant, self.exclusions, self.remove_net_force,
            self.measured_error, self.threads,
        )  # fmt: skip

    def scaled(self, factor: float) -> PMEPlan:
        """The same plan in a cell `factor` times as long, with alpha / factor and the cutoff times it, at no cost.

        The sum in other units of length: its error relative to the forces stays what it is. Both plans share the room to
        work in, so they serve one thread together.
        """
        plan = copy.copy(self)
        was = self.parameters
        plan.parameters = replace(was, alpha=was.alpha / factor, cutoff=was.cutoff * factor)
        plan.cell, plan.inverse, plan.volume = self.cell * factor, self.inverse / factor, self.volume * factor**3
        plan._influence = self._influence / factor
        plan._pairs = self._pairs.scaled(factor)
        return plan

    def without_mesh(self) -> PMEPlan:
        """The plan of the direct sum and the exclusions alone: what changes fast when atoms move. The rest is `mesh`."""
        plan = copy.copy(self)
        plan.sums_mesh = False
        return plan

    def mesh(self, positions: Array) -> Coulomb:
        """The smooth rest of `without_mesh`: the sum on the mesh, self energy and background; no virial."""
        positions, _, _ = checked(positions, self.charges, self.cell)
        gradients, potentials, _ = self._smooth(positions, False)
        c = self.coulomb_constant
        return Coulomb(0.5 * c * float(self.charges @ potentials), -c * gradients, c * potentials, np.full((3, 3), np.nan))

    def neighbours(self, positions: Array, near: LatticeList | None = None) -> LatticeList:
        """The neighbour list of positions [atoms, 3]: `near` itself while it still holds, or a new one."""
        if near is not None and near.still_holds(positions):
            return near
        return lattice_list(positions, self.cell, self.parameters.cutoff, self.parameters.skin)

    def evaluate(self, positions: Array, near: LatticeList | None = None, virial: bool = False) -> Coulomb:
        """Energy, forces, potentials of positions [atoms, 3]; the virial where asked for (NaN otherwise).

        `near` is a list that holds for these positions (`neighbours`); without it one is made.
        """
        positions, _, _ = checked(positions, self.charges, self.cell)
        near = near if near is not None else self.neighbours(positions)
        direct = self._pairs.start(positions, self.charges, near, virial)
        work = _Parts(direct)
        helpers = [self._helpers.submit(work.run) for _ in range(self.threads - 1)] if self._helpers else []
        gradients, potentials, total = self._smooth(positions, virial) if self.sums_mesh else _nothing(len(positions))
        work.run()
        for helper in helpers:
            helper.result()
        forces = direct.forces - gradients
        potentials += direct.potentials
        total = total + direct.virial() if virial else np.full((3, 3), np.nan)
        energy = 0.5 * float(self.charges @ potentials)
        if self.exclusions is not None:
            pairs, kept = self.exclusions.pairs, self.exclusions.kept
            energy += subtract_excluded(positions, self.charges, self.cell, self.inverse, pairs, kept, forces, potentials, total)
        c = self.coulomb_constant
        if c != 1.0:
            forces, potentials, total = c * forces, c * potentials, c * total
        return Coulomb(c * energy, forces, potentials, total)

    def _smooth(self, positions: Array, virial: bool) -> tuple[Array, Array, Array]:
        """All but the direct sum: gradients [atoms, 3] of the energy, potentials [atoms], virial [3, 3]."""
        alpha, order, shape = self.parameters.alpha, self.parameters.order, self.parameters.mesh
        points = meshes.stencils(positions, self.inverse, np.array(shape), order, self._weights, self._slopes)
        meshes.spread(points, self.charges, order, self._padded, self._mesh)
        with _one_torch_thread():
            spectrum = torch.fft.rfftn(torch.from_numpy(self._mesh)).numpy()
        share = np.zeros((3, 3))
        if virial:
            share = mode_virial(spectrum, self._influence, *mode_numbers(shape), self.inverse, alpha, shape[2])
        convolve(spectrum, self._influence)
        with _one_torch_thread():
            field = torch.fft.irfftn(torch.from_numpy(spectrum), s=shape, norm="forward").numpy()
        potentials, gradients = np.empty(len(self.charges)), np.empty((len(self.charges), 3))
        meshes.gather(points, field, self.inverse, order, self._padded, potentials, gradients)
        gradients *= self.charges[:, None]
        if self.remove_net_force:
            gradients -= gradients.mean(axis=0)
        background = -math.pi / (alpha**2 * self.volume)
        potentials += background * self.total_charge - 2 * alpha / math.sqrt(math.pi) * self.charges
        return gradients, potentials, share + 0.5 * background * self.total_charge**2 * np.eye(3)


def _nothing(atoms: int) -> tuple[Array, Array, Array]:
    return np.zeros((atoms, 3)), np.zeros(atoms), np.zeros((3, 3))


class _Parts:
    """Hands out parts of a direct sum until none is left, to whoever asks."""

    def __init__(self, direct: DirectSum) -> None:
        self._direct = direct
        self._number = max(1, direct.clusters // CLUSTERS_A_PART)
        self._next = itertools.count()  # `next` on it is atomic under the interpreter lock

    def run(self) -> None:
        """Compute parts until all are taken."""
        clusters, number = self._direct.clusters, self._number
        while (part := next(self._next)) < number:
            self._direct.part(clusters * part // number, clusters * (part + 1) // number)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Keep a transform in the calling thread: the others are busy with the direct sum."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _calibrate(candidate: Callable[[float], PMEPlan], positions: Array, relative_error: float, typical: float) -> PMEPlan:
    """The plan whose measured error is just below the requested one: the estimate is scaled until it is.

    The estimate assumes charges at random; in a crystal the truth may be several times smaller or larger. The reference
    is a plan in double precision with a hundredth of the estimated error, so the measured one is known to some percent.
    """
    typical = _rms(candidate(1e-2 * typical).evaluate(positions).forces) or typical
    ask = relative_error * typical / abs(candidate(typical).coulomb_constant)
    reference: Array | None = None
    best: PMEPlan | None = None
    for _ in range(6):
        plan = candidate(ask)
        if reference is None:
            reference = _tighter(plan, candidate(ask / 100)).evaluate(positions).forces
        error = _rms(plan.evaluate(positions).forces - reference) / _rms(reference)
        plan.measured_error = error
        if error <= relative_error:
            best = plan
            if error > 0.7 * relative_error:
                break
        elif best is not None:
            break
        ask *= 0.85 * relative_error / max(error, 1e-3 * relative_error)
    if best is None:
        expected = f"an error that {'single' if plan.parameters.single else 'double'} precision can reach"
        raise InputError(Problem("relative_error", expected, f"{relative_error:g}", "Ask for more, or take single=False."))
    return best


def _tighter(plan: PMEPlan, other: PMEPlan) -> PMEPlan:
    """`other` in double precision."""
    parameters = replace(other.parameters, single=False)
    return PMEPlan(plan.charges, plan.cell, parameters, plan.coulomb_constant, plan.exclusions)


def _rms(forces: Array) -> float:
    """Root of the mean squared force."""
    return math.sqrt(float((forces**2).sum()) / len(forces))
