import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manybody.core.errors import InputError
from manybody.numerics.ewald import (
    EwaldParameters,
    direct_error,
    ewald,
    ewald_energy,
    half_modes,
    image_shifts,
    reciprocal_error,
    surface_energy,
)

FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
HEX = np.array([[0.5, -0.5 * math.sqrt(3), 0], [0.5, 0.5 * math.sqrt(3), 0], [0, 0, math.sqrt(8 / 3)]])
THIRD, U = 0.5 / math.sqrt(3), 3 / 8
WURTZITE = np.array(
    [[0.5, THIRD, 0], [0.5, -THIRD, 0.5 * HEX[2, 2]], [0.5, THIRD, U * HEX[2, 2]], [0.5, -THIRD, (0.5 + U) * HEX[2, 2]]]
)

# name: cell, positions, charges, nearest distance, formula units, constant A of E = -A / d each formula unit.
# rock salt: OEIS A085469; caesium chloride: OEIS A181152; zinc blende: OEIS A182566; wurtzite: Y. Sakamoto, J. Chem.
# Phys. 28 (1958) 164 (u = 3/8, c/a = sqrt(8/3)); fluorite: from two of the others, as the test below derives; one charge
# in a simple cubic cell with its background: H. Hasimoto, J. Fluid Mech. 5 (1959) 317, 2.837297 for twice the energy.
ROCK_SALT, CAESIUM_CHLORIDE, ZINC_BLENDE = 1.7475645946331821906, 1.7626747730709883979, 1.6380550533887894237
CRYSTALS = {
    "rock salt": (FCC, [[0, 0, 0], [0.5, 0.5, 0.5]], [1, -1], 0.5, 1, ROCK_SALT),
    "caesium chloride": (np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [1, -1], math.sqrt(3) / 2, 1, CAESIUM_CHLORIDE),
    "zinc blende": (FCC, [[0, 0, 0], [0.25, 0.25, 0.25]], [1, -1], math.sqrt(3) / 4, 1, ZINC_BLENDE),
    "wurtzite": (HEX, WURTZITE, [1, 1, -1, -1], U * HEX[2, 2], 2, 1.64132162737),
    "fluorite": (FCC, [[0, 0, 0], [0.25, 0.25, 0.25], [0.75, 0.75, 0.75]], [2, -1, -1], math.sqrt(3) / 4, 1, 5.038784879848),
    "simple cubic in a background": (np.eye(3), [[0, 0, 0]], [1], 1.0, 1, 2.837297479480619 / 2),
}
PERFECT = EwaldParameters(alpha=3.2, cutoff=2.0, mode_cutoff=41.0)  # both sums converged to 1e-17


@pytest.mark.parametrize("name", CRYSTALS)
def test_madelung_constants(name: str) -> None:
    cell, positions, charges, distance, units, constant = CRYSTALS[name]
    result = ewald(np.array(positions, float), np.array(charges, float), cell, PERFECT)
    # 1e-11: the published digits of wurtzite; the others agree to 1e-13
    assert -result.energy * distance / units == pytest.approx(constant, abs=1e-11)


def test_fluorite_is_a_sum_of_other_lattices() -> None:
    """Fluorite = two zinc blendes less the caesium-chloride-like pair of anions, by superposition of charges.

    Charges (2, -1, -1) on sites A, B, C of the f.c.c. lattice: with pair energies E(AB) = E(AC) of zinc blende, E(BC) of
    rock salt and the self energy of each lattice in a background, which cancels: E = 2 E_ab + 2 E_ac - E_bc.
    """
    a = 1.0
    zinc_blende = -ZINC_BLENDE / (math.sqrt(3) / 4 * a)
    rock_salt = -ROCK_SALT / (0.5 * a)
    cell, positions, charges, *_ = CRYSTALS["fluorite"]
    result = ewald(np.array(positions), np.array(charges, float), cell, PERFECT)
    assert result.energy == pytest.approx(4 * zinc_blende - rock_salt, abs=1e-12)


@pytest.mark.parametrize("name", CRYSTALS)
def test_forces_vanish_by_symmetry(name: str) -> None:
    cell, positions, charges, *_ = CRYSTALS[name]
    forces = ewald(np.array(positions, float), np.array(charges, float), cell, PERFECT).forces
    if name == "wurtzite":  # no centre of inversion: only the axis is left, and the pull on both species is opposite
        assert np.abs(forces[:, :2]).max() < 1e-12
        assert np.abs(forces.sum(axis=0)).max() < 1e-12
    else:
        assert np.abs(forces).max() < 1e-12


def system(seed: int, atoms: int, neutral: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random charges in a random triclinic cell of about 6^3."""
    random = np.random.default_rng(seed)
    cell = 6 * np.eye(3) + random.uniform(-1, 1, (3, 3))
    charges = random.normal(size=atoms)
    if neutral:
        charges -= charges.mean()
    return random.random((atoms, 3)) @ cell * 2 - 5, charges, cell


@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), atoms=st.integers(2, 12), neutral=st.booleans())
def test_compiled_sum_agrees_with_the_formula_and_its_derivatives(seed: int, atoms: int, neutral: bool) -> None:
    x, q, c = system(seed, atoms, neutral)
    parameters = EwaldParameters(alpha=0.9, cutoff=7.0, mode_cutoff=9.0)
    permittivity = 1.0 if neutral else math.inf
    result = ewald(x, q, c, parameters, permittivity=permittivity)
    positions, charges = torch.tensor(x, requires_grad=True), torch.tensor(q, requires_grad=True)
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    whole = torch.eye(3) + strain
    energy = ewald_energy(positions @ whole, charges, torch.tensor(c) @ whole, parameters, permittivity)
    by_position, by_charge, by_strain = torch.autograd.grad(energy, (positions, charges, strain))
    scale = 1 + float(np.abs(result.forces).max())  # atoms may come close: round-off grows with the force
    assert result.energy == pytest.approx(energy.item(), abs=1e-12 * scale)
    assert np.abs(result.forces + by_position.numpy()).max() < 1e-11 * scale
    assert np.abs(result.potentials - by_charge.numpy()).max() < 1e-11 * scale
    assert np.abs(result.virial + by_strain.numpy()).max() < 1e-10 * scale


@pytest.mark.parametrize("neutral", [True, False])
def test_nothing_depends_on_the_split(neutral: bool) -> None:
    x, q, c = system(3, 10, neutral)
    results = [ewald(x, q, c, EwaldParameters(alpha, 6.5 / alpha, 13 * alpha)) for alpha in (0.7, 1.0, 1.6)]
    for other in results[1:]:
        assert other.energy == pytest.approx(results[0].energy, abs=1e-12)
        assert np.abs(other.forces - results[0].forces).max() < 1e-11
        assert np.abs(other.virial - results[0].virial).max() < 1e-10


def test_coulomb_is_homogeneous() -> None:
    """U scales as 1 / length, so the trace of the virial is the energy itself (Euler's theorem), background included."""
    for neutral in (True, False):
        result = ewald(*system(5, 8, neutral), EwaldParameters(0.9, 7.5, 13.0))
        assert np.trace(result.virial) == pytest.approx(result.energy, abs=1e-11)


def test_a_moved_or_repeated_cell_is_the_same_crystal() -> None:
    x, q, c = system(7, 6)
    parameters = EwaldParameters(1.0, 6.5, 13.0)
    result = ewald(x, q, c, parameters)
    hopped = ewald(x + np.array([[1, -2, 3], *[[0, 0, 0]] * 5]) @ c + 0.3, q, c, parameters)
    assert hopped.energy == pytest.approx(result.energy, abs=1e-11)
    twice = ewald(np.concatenate([x, x + c[0]]), np.tile(q, 2), np.diag([2.0, 1, 1]) @ c, parameters)
    assert twice.energy == pytest.approx(2 * result.energy, abs=1e-10)
    assert np.abs(twice.forces[:6] - result.forces).max() < 1e-10


def test_a_sphere_of_cells_in_vacuum_has_the_surface_term() -> None:
    """The plain sum over cells within a large sphere tends to the sum with vacuum around it, not to tin foil."""
    x = np.array([[0, 0, 0], [0.2, 0, 0]])
    q, c = np.array([1.0, -1.0]), np.eye(3)
    n = np.stack(np.meshgrid(*[np.arange(-30, 31)] * 3, indexing="ij"), -1).reshape(-1, 3)
    n = n[(n**2).sum(1) <= 900]
    outer = n[(n**2).sum(1) > 0].astype(float)
    d = x[0] - x[1]
    plain = 2 * q[0] * q[1] / np.linalg.norm(d)
    plain += sum(q[i] * q[j] * (1 / np.linalg.norm(outer + x[i] - x[j], axis=1)).sum() for i in range(2) for j in range(2))
    vacuum = ewald(x, q, c, PERFECT, permittivity=1.0)
    foil = ewald(x, q, c, PERFECT)
    assert vacuum.energy == pytest.approx(0.5 * plain, abs=2e-4)  # the ragged surface of 10^5 cells
    difference = float(surface_energy(torch.tensor(x), torch.tensor(q), torch.tensor(c), 1.0))
    assert vacuum.energy - foil.energy == pytest.approx(difference, abs=1e-13)
    assert difference == pytest.approx(2 * math.pi / 3 * 0.04)


@pytest.mark.parametrize("error", [1e-3, 1e-6])
def test_requested_error_is_met_for_random_charges(error: float) -> None:
    random = np.random.default_rng(11)
    cell = np.diag([9.0, 10.0, 11.0])
    x, q = random.random((200, 3)) @ cell, np.repeat([1.0, -1.0], 100)
    exact = ewald(x, q, cell, EwaldParameters.for_accuracy(q, cell, 1e-11)).forces
    parameters = EwaldParameters.for_accuracy(q, cell, error)
    got = np.sqrt(((ewald(x, q, cell, parameters).forces - exact) ** 2).sum() / 200)
    assert 0.2 * error < got < 1.5 * error  # Kolafa and Perram's estimates are averages over configurations
    assert direct_error(q, 990.0, parameters.alpha, parameters.cutoff) <= error
    assert reciprocal_error(q, 990.0, parameters.alpha, parameters.mode_cutoff) <= error


def test_half_of_the_modes_and_all_images() -> None:
    cell = np.array([[3.0, 0, 0], [1, 4, 0], [0.5, -0.7, 5]])
    modes = {tuple(m) for m in half_modes(cell, 8.0)}
    assert not modes & {tuple(-np.array(m)) for m in modes}
    every = np.stack(np.meshgrid(*[np.arange(-12, 13)] * 3, indexing="ij"), -1).reshape(-1, 3)
    k = 2 * math.pi * every @ np.linalg.inv(cell).T
    inside = ((k**2).sum(1) <= 64) & (every != 0).any(1)
    assert 2 * len(modes) == inside.sum()
    assert {tuple(n) for n in image_shifts(cell, 1.0)} == {(0, 0, 0)}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"positions": np.array([[0, 0, 0], [np.nan, 0, 0]])}, r"positions\[1, 0\]"),
        ({"charges": np.ones(3)}, "charges"),
        ({"cell": np.ones((3, 3))}, "three independent"),
        ({"permittivity": 1.0, "charges": np.ones(2)}, "neutral cell"),
    ],
)
def test_wrong_input_is_named(change: dict[str, object], word: str) -> None:
    given = {"positions": np.eye(3)[:2], "charges": np.array([1.0, -1]), "cell": 2 * np.eye(3), "parameters": PERFECT} | change
    with pytest.raises(InputError, match=word):
        ewald(**given)


def test_parameters_must_be_positive() -> None:
    with pytest.raises(InputError, match="cutoff"):
        EwaldParameters(1.0, -1.0, 2.0)
