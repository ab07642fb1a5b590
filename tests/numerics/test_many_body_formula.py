"""Many-body formulas: kernels against autograd, LAMMPS, symmetries and the pair kernel; what ends, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manybody.core.errors import InputError
from manybody.numerics import jit, plain_many_body
from manybody.numerics.many_body import whole_rows
from manybody.numerics.many_body_formula import FINNIS_SINCLAIR, STILLINGER_WEBER, ManyBodyKernel, ManyBodyPotential
from manybody.numerics.pairs import LENNARD_JONES

SI = {
    "epsilon": 2.1683, "sigma": 2.0951, "a": 1.8, "strength": 21.0, "gamma": 1.2, "A": 7.049556277, "B": 0.6022245584, "p": 4,
    "q": 0,
}  # fmt: skip
SILICON = STILLINGER_WEBER.bind(SI, SI["a"] * SI["sigma"])
EVERYTHING = ManyBodyPotential(
    "everything",
    pair=LENNARD_JONES.expression,
    triple="strength*(1 + 3*c**2 - c)*exp(-r - s) + strength*sqrt(r*s)*tanh(c)/(r2s + r + s)",
    density="exp(-(r2 - 1))*erf(r)",
    embedding="-weight*sqrt(rho) + weight*log(1 + rho)*rho",
    parameters=("epsilon", "sigma", "strength", "weight", "r2s"),
)
VALUES = {"epsilon": 1.3, "sigma": 0.9, "strength": 0.8, "weight": 0.7, "r2s": 0.5}
ALL = np.array([True, True, True])
CLOSE = 2e-12  # of the sizes of sums of some hundred terms, in another order


def evaluated(kernel: ManyBodyKernel, x: np.ndarray, cell: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, int]:
    return kernel.evaluate(x, whole_rows(x, cell, ALL, kernel.reach, 0.0))


def points(atoms: int, edge: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Atoms near the sites of a grid, partly outside of a triclinic cell with edges of about `edge`."""
    generator = np.random.default_rng(seed)
    side = math.ceil(atoms ** (1 / 3))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)[:atoms] / side
    cell = edge * np.array([[1.0, 0.1, 0.0], [0.3, 0.9, -0.1], [-0.2, 0.25, 1.1]])
    return (grid + generator.uniform(-0.12, 0.12, grid.shape) / side + generator.integers(-2, 3, grid.shape)) @ cell, cell


@pytest.mark.parametrize(
    ("kernel", "atoms", "edge"),
    [
        (SILICON, 16, 6.5),
        (SILICON, 1, 2.4),  # sees only images of itself
        (SILICON, 2, 3.0),
        (EVERYTHING.bind(VALUES, 2.5, 1.8), 20, 3.0),
        (EVERYTHING.bind(VALUES, 2.5, 1.8), 1, 1.1),
        (ManyBodyKernel(EVERYTHING, VALUES, 1.7, 1.7, 2.5), 20, 3.0),  # densities reach further than the rest
        (ManyBodyKernel(EVERYTHING, VALUES, 2.5, 2.5, 1.7), 20, 3.0),
    ],
    ids=lambda value: getattr(getattr(value, "potential", None), "name", str(value)),
)
def test_kernels_are_what_autograd_makes_of_the_formulas(kernel: ManyBodyKernel, atoms: int, edge: float) -> None:
    x, cell = points(atoms, edge, seed=3)
    energy, forces, strained, bad = evaluated(kernel, x, cell)
    expected, pushed, pulled = plain_many_body.derivatives(kernel, torch.tensor(x), torch.tensor(cell))
    assert bad == -1
    assert energy == pytest.approx(expected, rel=CLOSE)
    size = np.abs(pulled.numpy()).max()
    assert forces == pytest.approx(pushed.numpy(), abs=CLOSE * max(size, np.abs(forces).max()))
    assert strained == pytest.approx(pulled.numpy(), abs=CLOSE * size)
    assert strained == pytest.approx(strained.T, abs=CLOSE * size)


def test_silicon_is_that_of_lammps() -> None:
    recorded = json.loads((Path(__file__).parent / "lammps-silicon.json").read_text())
    energy, forces, strained, _ = evaluated(SILICON, np.array(recorded["positions"]), np.array(recorded["cell"]))
    # -1/3 has eighteen digits in its file, and its unit of pressure eight
    assert energy == pytest.approx(recorded["energy"], rel=1e-13)
    assert forces == pytest.approx(np.array(recorded["forces"]), abs=1e-11)
    virial = [recorded["virial"][word] for word in ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")]
    assert -strained[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] == pytest.approx(virial, rel=1e-10)


def test_silicon_is_bound_by_two_epsilon_an_atom() -> None:
    # Tetrahedral angles cost nothing, and the pair energy is -epsilon at 2^(1/6) sigma, to the ten digits of A and B.
    edge = 4 / math.sqrt(3) * 2 ** (1 / 6) * SI["sigma"]
    half = [(0, 0, 0), (0, 2, 2), (2, 0, 2), (2, 2, 0), (1, 1, 1), (1, 3, 3), (3, 1, 3), (3, 3, 1)]
    energy, forces, strained, _ = evaluated(SILICON, edge / 4 * np.array(half, dtype=float), edge * np.eye(3))
    assert energy == pytest.approx(-16 * SI["epsilon"], rel=1e-10)
    assert np.abs(forces).max() < 1e-12
    assert np.abs(strained).max() < 1e-6 * SI["epsilon"]
    assert edge == pytest.approx(5.431, abs=5e-4)


def test_tungsten_of_finnis_and_sinclair_has_the_constants_it_was_made_for() -> None:
    # Their parameters were fitted to a cohesive energy of 8.90 eV at a lattice constant of 3.1652 angstroms.
    given = {"end": 3.25, "c0": 47.1346499, "c1": -33.7665655, "c2": 6.2541999, "reach": 4.400224, "A": 1.896373}
    kernel = FINNIS_SINCLAIR.bind(given, 3.25, density_cutoff=4.400224)
    sites = torch.tensor([[0.0, 0, 0], [1.5826, 1.5826, 1.5826]], dtype=torch.float64)
    energy, _, strained = plain_many_body.derivatives(kernel, sites, 3.1652 * torch.eye(3, dtype=torch.float64))
    assert energy / 2 == pytest.approx(-8.90, abs=1e-5)
    assert float(strained.abs().max()) / 2 < 1e-4
    assert kernel.reach == 4.400224


def test_forces_and_strain_derivatives_are_slopes_of_the_energy() -> None:
    kernel, (x, cell), generator = EVERYTHING.bind(VALUES, 2.5, 1.8), points(12, 2.6, seed=8), np.random.default_rng(9)
    _, forces, strained, _ = evaluated(kernel, x, cell)
    along, strain, h = generator.normal(size=x.shape), generator.normal(size=(3, 3)), 1e-5
    ways = [(x + sign * h * along, cell) for sign in (-1, 1)]
    down, up = (evaluated(kernel, *way)[0] for way in ways)
    # h^2/6 times a third derivative of some 1e3 per angstrom^3 and atom, and round-off over h
    assert (up - down) / (2 * h) == pytest.approx(-(forces * along).sum(), rel=1e-6)
    ways = [(x @ (np.eye(3) + sign * h * strain), cell @ (np.eye(3) + sign * h * strain)) for sign in (-1, 1)]
    down, up = (evaluated(kernel, *way)[0] for way in ways)
    assert (up - down) / (2 * h) == pytest.approx((strained * strain).sum(), rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), atoms=st.integers(1, 9), repeat=st.sampled_from([(1, 1, 1), (2, 1, 1), (1, 2, 3)]))
def test_nothing_changes_with_the_frame_the_names_or_the_cell(seed: int, atoms: int, repeat: tuple[int, int, int]) -> None:
    generator = np.random.default_rng(seed)
    x, cell = points(atoms, 2.3 * math.ceil(atoms ** (1 / 3)), seed)
    energy, forces, strained, _ = evaluated(SILICON, x, cell)
    turn, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    new = generator.permutation(atoms)
    hops = np.stack(np.meshgrid(*map(np.arange, repeat), indexing="ij"), -1).reshape(-1, 1, 3) @ cell
    moved = ((x[new] + hops).reshape(-1, 3) + generator.uniform(-9, 9, 3)) @ turn
    images = len(hops)
    image, pushed, pulled, _ = evaluated(SILICON, moved, np.array(repeat)[:, None] * cell @ turn)
    size = max(1.0, abs(energy), float(np.abs(strained).max()))
    assert image == pytest.approx(images * energy, abs=1e-10 * images * size)
    assert pushed == pytest.approx(np.tile(forces[new] @ turn, (images, 1)), abs=1e-10 * size)
    assert pulled == pytest.approx(images * turn.T @ strained @ turn, abs=1e-10 * images * size)
    assert np.abs(forces.sum(axis=0)).max() < 1e-10 * size


def test_pairs_alone_are_those_of_the_pair_kernel() -> None:
    values = VALUES | {"strength": 0.0, "weight": 0.0}
    kernel = ManyBodyKernel(EVERYTHING, values, 2.5, 2.5, 2.5)  # cut off where something is left, as the pair kernel does
    box = np.array([5.2, 5.6, 6.0])
    x = points(120, 1.0, seed=4)[0] @ np.linalg.inv(points(120, 1.0, seed=4)[1]) * box
    energy, forces, strained, _ = evaluated(kernel, x, np.diag(box))
    pushed, expected, virial, _ = LENNARD_JONES.bind({name: VALUES[name] for name in ("epsilon", "sigma")}).evaluate(x, box, 2.5)
    assert energy == pytest.approx(expected, rel=1e-11)
    assert forces == pytest.approx(pushed, abs=1e-11 * np.abs(pushed).max())
    assert -np.trace(strained) == pytest.approx(virial, rel=1e-11)


def test_what_ends_smoothly_stays_finite_at_its_end_and_beyond() -> None:
    end, cell = SI["a"] * SI["sigma"], 40.0 * np.eye(3)
    for kernel in (SILICON, STILLINGER_WEBER.bind(SI, math.nextafter(end, 9.0)), STILLINGER_WEBER.bind(SI, end * (1 + 4e-16))):
        for r in (
            end,
            math.nextafter(end, 0),
            math.nextafter(end, 9),
            *end * (1 + np.array([-1e-3, -1e-9, -1e-14, 1e-14, 1e-9])),
        ):
            x = np.array([[0.0, 0, 0], [r, 0, 0], [0.0, 2.3, 0]])
            energy, forces, strained, bad = evaluated(kernel, x, cell)
            one = kernel.value("pair", 2.3)
            assert bad == -1
            assert energy == pytest.approx(one + (kernel.value("pair", math.hypot(r, 2.3)) if math.hypot(r, 2.3) < end else 0.0))
            assert abs(forces[1, 0]) < 1e-12
            assert np.isfinite(strained).all()
    x = np.zeros((2, 3))
    assert evaluated(SILICON, x, cell)[3] in (0, 1)  # two atoms in one place


def test_an_atom_alone_has_no_energy_and_a_kernel_is_made_once() -> None:
    kernel = EVERYTHING.bind(VALUES, 2.5, 1.8)
    energy, forces, strained, bad = evaluated(kernel, np.zeros((1, 3)), 9.0 * np.eye(3))
    assert (energy, bad) == (0.0, -1)
    assert not forces.any()
    assert not strained.any()
    assert EVERYTHING.bind(VALUES | {"weight": 0.1}, 2.5, 1.9).module is kernel.module
    assert jit.kernel_path(EVERYTHING.digest).is_file()
    x, cell = points(20, 3.0, seed=5)
    assert evaluated(kernel, x, cell)[1].tobytes() == evaluated(kernel, x, cell)[1].tobytes()


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ({"pair": "r.real"}, "column 1: expected arithmetic"),
        ({"pair": "__import__('os')"}, "expected one of the functions"),
        ({"triple": "r*s*theta"}, "column 5: expected one of .*; got theta"),
        ({"embedding": "r*rho", "density": "r"}, "embedding, column 1"),
        ({"pair": "k*r", "parameters": ("k", "c")}, "a parameter `c`"),
        ({"density": "exp(-r)"}, "both a density and an embedding"),
    ],
)
def test_formulas_that_are_none_are_refused(texts: dict[str, str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        ManyBodyPotential("bad", **texts)


@pytest.mark.parametrize(
    ("texts", "cutoffs", "told"),
    [
        ({"pair": "1/r**12"}, (3.0,), "nothing left at the cutoff, 3; got"),
        ({"pair": "(3 - r)"}, (3.0,), "nothing left"),  # a force that jumps
        ({"pair": STILLINGER_WEBER.pair, "parameters": tuple(SI)}, (5.0,), "nothing left"),  # beyond the pole at its end
        ({"pair": "sqrt(2 - r)"}, (3.0,), "a finite value up to the cutoff"),
        ({"triple": "(3 - r)**2*(3 - s)**2*c*r"}, (3.0,), "the same energy with r and s exchanged"),
        ({"triple": "c*exp(-r - s)"}, (3.0,), "triple: expected nothing left"),
        ({"pair": "1/r"}, (3.0, 3.0), "a switch below the cutoff"),
        ({"density": "1/r", "embedding": "rho"}, (3.0, 2.0, 4.0), "a cutoff of densities of their own"),
    ],
)
def test_formulas_that_do_not_suit_their_cutoff_are_refused(texts: dict[str, str], cutoffs: tuple[float, ...], told: str) -> None:
    potential = ManyBodyPotential("bad", **texts)
    with pytest.raises(InputError, match=told):
        potential.bind({name: SI[name] for name in potential.parameters}, *cutoffs)
    with pytest.raises(InputError, match="Give each of them, and no other"):
        potential.bind({"nothing": 1.0}, *cutoffs)
