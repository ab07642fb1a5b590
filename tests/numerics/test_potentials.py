"""The library of pair potentials: closed forms, derivatives, and a free energy by thermodynamic integration."""

import math

import numpy as np
import pytest
import torch

from manybody.core.errors import InputError
from manybody.numerics.operators import plain_pair_energy
from manybody.numerics.pairs import LENNARD_JONES
from manybody.numerics.plain_pairs import PlainPairs
from manybody.numerics.potentials import (
    BUCKINGHAM,
    LIBRARY,
    MORSE,
    SOFT_CORE,
    SOFT_REPULSION,
    WCA,
    YUKAWA,
    coupling_slope,
    ends_at,
    named,
)

R = np.array([0.8, 0.95, 1.0, 1.1, 1.6])
EXP = np.exp(-1.5 * (R - 1.2))
X = 0.5 * 0.7 + (R / 0.9) ** 6
# potential, parameters, energy and force written by hand
FORMS = [
    (WCA, {"epsilon": 1.3, "sigma": 0.9}, 5.2 * ((0.9 / R) ** 12 - (0.9 / R) ** 6) + 1.3,
     5.2 * (12 * (0.9 / R) ** 12 - 6 * (0.9 / R) ** 6) / R),
    (MORSE, {"depth": 0.7, "a": 1.5, "place": 1.2}, 0.7 * (EXP**2 - 2 * EXP), 0.7 * 2 * 1.5 * (EXP**2 - EXP)),
    (BUCKINGHAM, {"A": 90.0, "rho": 0.25, "C": 0.5}, 90 * np.exp(-R / 0.25) - 0.5 / R**6,
     90 / 0.25 * np.exp(-R / 0.25) - 3 / R**7),
    (YUKAWA, {"strength": 2.0, "kappa": 1.5}, 2 * np.exp(-1.5 * R) / R, 2 * np.exp(-1.5 * R) * (1.5 / R + 1 / R**2)),
    (SOFT_CORE, {"epsilon": 1.3, "sigma": 0.9, "alpha": 0.5, "coupling": 0.3}, 4 * 1.3 * 0.3 * (1 / X**2 - 1 / X),
     4 * 1.3 * 0.3 * (2 / X**3 - 1 / X**2) * 6 * R**5 / 0.9**6),
    (SOFT_REPULSION, {"a": 25.0}, 12.5 * (1 - R) ** 2, 25 * (1 - R)),
]  # fmt: skip


@pytest.mark.parametrize(("potential", "values", "energy", "force"), FORMS, ids=[form[0].name for form in FORMS])
def test_energy_and_force_are_the_closed_form(potential, values, energy, force):
    plain, r2 = PlainPairs(potential, values), torch.from_numpy(R**2)
    assert plain.energy(r2).numpy() == pytest.approx(energy, rel=1e-12, abs=1e-14)
    assert R * plain.force_over_r(r2).numpy() == pytest.approx(force, rel=1e-11, abs=1e-13)


def test_what_ends_by_itself_ends_with_energy_and_force_at_zero():
    for potential, values, *_ in FORMS:
        end = ends_at(potential, list(values.values()))
        if end is not None:
            plain, r2 = PlainPairs(potential, values), torch.tensor([end**2], dtype=torch.float64)
            assert plain.energy(r2).item() == pytest.approx(0, abs=1e-14)
            assert plain.force_over_r(r2).item() == pytest.approx(0, abs=1e-12)
    assert {name for name, potential in LIBRARY.items() if ends_at(potential, [1.0] * 4)} == {WCA.name, SOFT_REPULSION.name}


def test_a_compiled_kernel_of_the_soft_core_is_finite_where_atoms_meet():
    kernel = SOFT_CORE.bind({"epsilon": 1.0, "sigma": 1.0, "alpha": 0.5, "coupling": 0.5})
    assert kernel.energy(1e-6) == pytest.approx(4 * 0.5 * (16 - 4))
    assert kernel.force(1e-6) == pytest.approx(0, abs=1e-25)
    whole = SOFT_CORE.bind({"epsilon": 1.3, "sigma": 0.9, "alpha": 0.5, "coupling": 1.0})
    assert whole.energy(1.1) == pytest.approx(5.2 * ((0.9 / 1.1) ** 12 - (0.9 / 1.1) ** 6), rel=1e-13)


def test_the_slope_in_the_coupling_is_that_of_all_pairs():
    generator = torch.Generator().manual_seed(2)
    x = 3 * torch.rand(8, 3, generator=generator, dtype=torch.float64)
    box, coupling = torch.full((3,), 3.0, dtype=torch.float64), torch.tensor(0.35, dtype=torch.float64, requires_grad=True)
    given = {"epsilon": 1.2, "sigma": 0.9, "alpha": 0.5}

    def energy(value):
        return plain_pair_energy(SOFT_CORE, x, box, {**given, "coupling": value}, 1.4)

    (slope,) = torch.autograd.grad(energy(coupling), coupling)
    h = 1e-5  # a central difference errs by h^2 u'''/6 and eps u / h: 1e-9 of these
    assert slope.item() == pytest.approx(((energy(0.35 + h) - energy(0.35 - h)) / (2 * h)).item(), rel=1e-7)
    apart = x[:, None] - x
    r2 = (apart - 3 * torch.round(apart / 3)).square().sum(-1)[*torch.triu_indices(8, 8, 1)]
    by_hand = coupling_slope(r2[r2 <= 1.4**2], 1.2, 0.9, 0.5, 0.35).sum()
    assert slope.item() == pytest.approx(by_hand.item(), rel=1e-12)


def test_thermodynamic_integration_gives_the_free_energy_of_a_pair():
    """F(1) - F(0) = int <du/dl> dl of two atoms in a sphere is -kT log of the ratio of their configuration integrals.

    u is 0 at coupling 0. Both sides by Gauss's rule, exact to round-off on these smooth integrands: nothing is sampled.
    """
    kT, edge = 0.8, 3.0
    nodes, weights = np.polynomial.legendre.leggauss(400)
    r, volume = 0.5 * edge * (nodes + 1), 0.5 * edge * weights
    volume = volume * 4 * math.pi * r**2
    points, parts = np.polynomial.legendre.leggauss(24)
    work = 0.0
    for point, part in zip(0.5 * (points + 1), 0.5 * parts, strict=True):
        values = {"epsilon": 1.0, "sigma": 1.0, "alpha": 0.5, "coupling": float(point)}
        boltzmann = volume * np.exp(-PlainPairs(SOFT_CORE, values).energy(torch.from_numpy(r**2)).numpy() / kT)
        work += part * float(boltzmann @ coupling_slope(r**2, 1.0, 1.0, 0.5, point)) / boltzmann.sum()
    lennard_jones = PlainPairs(LENNARD_JONES, {"epsilon": 1.0, "sigma": 1.0}).energy(torch.from_numpy(r**2)).numpy()
    exact = -kT * math.log(float(volume @ np.exp(-lennard_jones / kT)) / volume.sum())
    assert work == pytest.approx(exact, rel=1e-6)


def test_a_potential_is_found_by_its_name():
    assert named("yukawa") is YUKAWA
    with pytest.raises(InputError, match="one of lennard-jones, weeks-chandler-andersen"):
        named("stockmayer")
