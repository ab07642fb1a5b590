"""Couplings: slopes against finite differences, energies and forces against independent sums, and exact free energies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from manybody.core.errors import InputError
from manybody.numerics.alchemy import (
    CoupledBonds,
    CoupledCharges,
    CoupledEnergies,
    CoupledPairs,
    Coupling,
    Term,
    mesh_sum,
    softened,
    vacuum_sum,
)
from manybody.numerics.bonded import BondedTerms
from manybody.numerics.ewald import EwaldParameters, ewald_energy
from manybody.numerics.operators import plain_pair_energy
from manybody.numerics.pairs import LENNARD_JONES, PairPotential
from manybody.numerics.plain_pairs import PlainPairs
from manybody.numerics.pme import PMEParameters, pme_energy
from manybody.numerics.potentials import BUCKINGHAM, SOFT_CORE, YUKAWA, coupling_slope

CELL = np.array([[4.0, 0, 0], [0.4, 4.2, 0], [-0.3, 0.5, 3.9]])
PLACES = np.random.default_rng(4).uniform(0, 1, (12, 3)) @ CELL
SOLUTE, REST = np.array([0, 5, 7]), np.array([1, 2, 3, 4, 6, 8, 9, 10, 11])
SOFT = {"epsilon": 1.2, "sigma": 0.9, "alpha": 0.5}
MESH = PMEParameters(alpha=1.6, cutoff=1.8, mesh=(16, 16, 16), order=6, skin=0.1)
CHARGES = np.random.default_rng(5).uniform(-1, 1, (2, 12))


def pairs(potential: PairPotential, begin: dict[str, float], end: dict[str, float]) -> CoupledPairs:
    return CoupledPairs(potential, begin, end, SOLUTE, REST, CELL, 1.8)


def bonds(form: str, begin: list[list[float]], end: list[list[float]]) -> CoupledBonds:
    members = {"harmonic-bond": 2, "fene-bond": 2, "morse-bond": 2, "harmonic-angle": 3}.get(form, 4)
    atoms = np.arange(2 * members).reshape(2, members)
    return CoupledBonds(BondedTerms(form, atoms, np.array(begin)), BondedTerms(form, atoms, np.array(end)))


SOFT_YUKAWA = {"strength": 2.0, "kappa": 1.5, "radius": 1.0, "alpha": 0.3}
TERMS: dict[str, Term] = {
    "soft core": pairs(SOFT_CORE, {**SOFT, "coupling": 0.0}, {**SOFT, "coupling": 1.0}),
    "another size": pairs(SOFT_CORE, {**SOFT, "coupling": 1.0}, {**SOFT, "sigma": 0.7, "epsilon": 0.8, "coupling": 1.0}),
    "any formula": pairs(softened(YUKAWA), {**SOFT_YUKAWA, "coupling": 0.0}, {**SOFT_YUKAWA, "coupling": 1.0}),
    "charges on a mesh": CoupledCharges(*CHARGES, mesh_sum(CELL, MESH)),
    "charges in vacuum": CoupledCharges(np.zeros(12), CHARGES[0], vacuum_sum(1.7)),
    "spring": bonds("harmonic-bond", [[1.0, 0.5], [0.0, 1.0]], [[3.0, 0.8], [2.0, 1.0]]),
    "finite bond": bonds("fene-bond", [[1.0, 9.0], [0.0, 8.0]], [[3.0, 8.0], [2.0, 9.0]]),
    "angle": bonds("harmonic-angle", [[1.0, 0.5], [0.0, 1.0]], [[3.0, 0.8], [2.0, 1.0]]),
    "torsion": bonds("periodic-torsion", [[1.0, 2.0, 0.1], [0.0, 3.0, 0.0]], [[0.0, 2.0, 0.9], [2.0, 3.0, 1.0]]),
    "alkane": bonds("ryckaert-bellemans", [[0.0] * 6, [1.0] * 6], [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.5] * 6]),
    "improper": bonds("harmonic-improper", [[1.0, 0.2], [1.0, 0.4]], [[2.0, 0.3], [0.0, 0.4]]),
    "morse": bonds("morse-bond", [[1.0, 0.5, 1.0], [2.0, 0.7, 0.8]], [[2.0, 0.7, 1.2], [0.0, 0.7, 0.8]]),
    "energies": CoupledEnergies(None, lambda x: (float((x**4).sum()), -4 * x**3)),
}
TERMS["all together"] = Coupling((TERMS["soft core"], TERMS["charges on a mesh"], TERMS["spring"]))


@pytest.mark.parametrize("name", TERMS)
def test_slope_and_forces_are_derivatives_of_the_energy(name):
    """Central differences err by h^2 U'''/6 from truncation and eps |U| / h from rounding: with h = 1e-4, below 1e-6 of either.

    Particle-mesh forces are exact derivatives of the direct sum alone: tables and splines leave 1e-6 of the largest force.
    """
    term, here, h = TERMS[name], 0.37, 1e-4
    found = term.at(PLACES, here)
    behind, middle, ahead = term.energies(PLACES, [here - h, here, here + h])
    assert middle == pytest.approx(found.energy, rel=1e-12)
    size = max(1.0, abs(found.energy), abs(found.slope))
    assert found.slope == pytest.approx((ahead - behind) / (2 * h), abs=1e-6 * size)
    for atom, axis in ((0, 0), (5, 2)):
        moved = np.zeros_like(PLACES)
        moved[atom, axis] = h
        slope = (term.at(PLACES + moved, here).energy - term.at(PLACES - moved, here).energy) / (2 * h)
        assert found.forces[atom, axis] == pytest.approx(-slope, abs=2e-6 * max(1.0, np.abs(found.forces).max()))


@pytest.mark.parametrize("name", TERMS)
def test_foreign_energies_are_those_at_each_coupling(name):
    couplings = [0.0, 0.2, 0.75, 1.0]
    alone = [TERMS[name].at(PLACES, value).energy for value in couplings]
    np.testing.assert_allclose(TERMS[name].energies(PLACES, couplings), alone, rtol=1e-11, atol=1e-11)


def test_pairs_are_those_of_a_system_of_two_species():
    """The whole system's energy with the coupling in its table, less its value with nothing coupled, by the pairs' operator."""
    species = torch.zeros(12, dtype=torch.int64)
    species[torch.from_numpy(SOLUTE)] = 1
    x, cell = torch.from_numpy(PLACES), torch.from_numpy(CELL)

    def whole(coupling: torch.Tensor) -> torch.Tensor:
        table = torch.stack(
            [torch.stack([torch.ones_like(coupling), coupling]), torch.stack([coupling, torch.ones_like(coupling)])]
        )
        return plain_pair_energy(SOFT_CORE, x, cell, {**SOFT, "coupling": table}, 1.8, species, shifted=True)

    coupling = torch.tensor(0.37, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(whole(coupling), coupling)
    found = TERMS["soft core"].at(PLACES, 0.37)
    off = whole(torch.zeros_like(coupling))
    assert found.energy == pytest.approx((whole(coupling.detach()) - off).item(), rel=1e-11)
    assert found.slope == pytest.approx(slope.item(), rel=1e-11)


def test_slope_of_the_soft_core_is_that_by_hand():
    term = CoupledPairs(SOFT_CORE, {**SOFT, "coupling": 0.0}, {**SOFT, "coupling": 1.0}, SOLUTE, REST, CELL, 1.8, shifted=False)
    squares = term.squares(torch.from_numpy(PLACES)).numpy()
    by_hand = coupling_slope(squares[squares <= 1.8**2], 1.2, 0.9, 0.5, 0.4).sum()
    assert term.at(PLACES, 0.4).slope == pytest.approx(float(by_hand), rel=1e-12)


def test_a_softened_formula_is_the_formula_at_one_and_finite_at_zero():
    r2 = torch.tensor([0.0, 1e-8, 0.5, 1.0, 2.0], dtype=torch.float64)
    given = {"epsilon": 1.3, "sigma": 0.9}
    soft = softened(LENNARD_JONES)
    for coupling in (0.0, 0.3, 0.9):
        ours = PlainPairs(soft, {**given, "radius": 0.9, "alpha": 0.5, "coupling": coupling}).energy(r2)
        known = PlainPairs(SOFT_CORE, {**given, "alpha": 0.5, "coupling": coupling}).energy(r2)
        np.testing.assert_allclose(ours.numpy(), known.numpy(), rtol=1e-12)
    for potential, values in ((BUCKINGHAM, {"A": 90.0, "rho": 0.25, "C": 0.5}), (YUKAWA, {"strength": 2.0, "kappa": 1.5})):
        whole = PlainPairs(softened(potential), {**values, "radius": 1.0, "alpha": 0.5, "coupling": 1.0}).energy(r2[2:])
        np.testing.assert_allclose(whole.numpy(), PlainPairs(potential, values).energy(r2[2:]).numpy(), rtol=1e-12)
        assert torch.isfinite(
            PlainPairs(softened(potential), {**values, "radius": 1.0, "alpha": 0.5, "coupling": 0.5}).energy(r2)
        ).all()
    with pytest.raises(InputError, match="alpha, coupling"):
        softened(SOFT_CORE)


def test_the_slope_in_charges_is_that_of_plain_sums():
    """By autograd of the plain particle-mesh energy, which is the same sum, and of Ewald's, which it approximates."""
    x, cell = torch.from_numpy(PLACES), torch.from_numpy(CELL)
    coupling = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    first, last = torch.from_numpy(CHARGES)
    charges = first + coupling * (last - first)
    found = TERMS["charges on a mesh"].at(PLACES, 0.6)
    energy = pme_energy(x, charges, cell, MESH)
    (slope,) = torch.autograd.grad(energy, coupling)
    assert found.energy == pytest.approx(energy.item(), rel=1e-9)
    assert found.slope == pytest.approx(slope.item(), rel=1e-9)
    exact = ewald_energy(x, first + coupling * (last - first), cell, EwaldParameters.for_accuracy(CHARGES[0], CELL, 1e-9))
    (slope,) = torch.autograd.grad(exact, coupling)
    assert found.slope == pytest.approx(slope.item(), abs=1e-2 * abs(slope.item()))


def test_the_free_energy_of_a_spring_is_three_halves_of_kt_log_of_the_ratio():
    """F(1) - F(0) = int <dU/dl> dl of a spring k(l) in three dimensions: 3/2 kT log(k1/k0).

    <r^2> = 3 kT / k makes the integrand a closed form, 3/2 kT (k1 - k0) / k(l); each value comes from exact quadrature of
    the Boltzmann factor of the term's own energies and slopes along the bond.
    """
    kT, k0, k1 = 0.7, 1.0, 4.0
    spring = CoupledBonds(*(BondedTerms("harmonic-bond", np.array([[0, 1]]), np.array([[k, 0.0]])) for k in (k0, k1)))
    nodes, weights = np.polynomial.legendre.leggauss(80)
    r, parts = 4.0 * (nodes + 1), 4.0 * weights
    along = np.zeros((len(r), 2, 3))
    along[:, 1, 0] = r
    couplings, shares = np.polynomial.legendre.leggauss(16)
    work = 0.0
    for coupling, share in zip(0.5 * (couplings + 1), 0.5 * shares, strict=True):
        found = [spring.at(place, float(coupling)) for place in along]
        boltzmann = parts * r**2 * np.exp(-np.array([one.energy for one in found]) / kT)
        work += share * float(boltzmann @ np.array([one.slope for one in found])) / boltzmann.sum()
    assert work == pytest.approx(1.5 * kT * math.log(k1 / k0), rel=1e-8)


def test_what_cannot_be_coupled_is_refused():
    soft = {**SOFT, "coupling": 0.0}
    with pytest.raises(InputError, match="values for epsilon, sigma, alpha, coupling"):
        pairs(SOFT_CORE, SOFT, soft)
    with pytest.raises(InputError, match="half the cell"):
        CoupledPairs(SOFT_CORE, soft, soft, SOLUTE, REST, CELL, 2.5)
    with pytest.raises(InputError, match="some in both"):
        CoupledPairs(SOFT_CORE, soft, soft, SOLUTE, SOLUTE, CELL, 1.0)
    with pytest.raises(InputError, match="at 0 and at 1"):
        CoupledCharges(np.zeros(2), np.zeros(3), vacuum_sum())
    with pytest.raises(InputError, match="multiplicities"):
        bonds("periodic-torsion", [[1.0, 2.0, 0.0]] * 2, [[1.0, 3.0, 0.0]] * 2)
    with pytest.raises(InputError, match="one form"):
        CoupledBonds(TERMS["spring"].begin, TERMS["angle"].end)
