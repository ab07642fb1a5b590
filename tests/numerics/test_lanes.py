"""Systems side by side in SIMD lanes: the forces of a formula, whoever else is there, and what cannot be done is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from manybody.core.errors import InputError
from manybody.numerics.lanes import LaneKernel
from manybody.numerics.pairs import LENNARD_JONES, PairPotential
from manybody.numerics.plain_pairs import PlainPairs

UNITS = {"epsilon": 1.0, "sigma": 1.0}
MORSE = PairPotential("morse", "depth*(exp(-2*a*(r - r0)) - 2*exp(-a*(r - r0)))", ("depth", "a", "r0"))


def liquids(systems: int, atoms: int, edges: np.ndarray, seed: int) -> np.ndarray:
    """Positions [systems, atoms, 3] on lattices that are a little disturbed, some atoms outside their box."""
    generator = np.random.default_rng(seed)
    cells = int(np.ceil(atoms ** (1 / 3)))
    sites = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:atoms] / cells
    return (sites + generator.uniform(-0.2, 0.2, (systems, atoms, 3)) / cells + generator.integers(-2, 3, (atoms, 3))) * edges


@pytest.mark.parametrize(
    ("potential", "values", "systems", "atoms"),
    [(LENNARD_JONES, UNITS, *size) for size in [(1, 1), (1, 2), (3, 17), (8, 64), (11, 65)]]
    + [(MORSE, {"depth": 2.0, "a": 5.0, "r0": 1.1}, 3, 17)],
)
def test_forces_energy_and_virial_are_those_of_the_plain_sum(potential, values, systems, atoms):
    edges = np.array([4.6, 4.9, 5.2])
    positions = liquids(systems, atoms, edges, atoms)
    forces, totals = LaneKernel(potential, np.array([values[name] for name in potential.parameters])).evaluate(
        positions, edges, 2.2
    )
    assert forces.shape == positions.shape
    for system in range(systems):
        plain = PlainPairs(potential, values).evaluate(torch.from_numpy(positions[system]), torch.from_numpy(edges), 2.2)
        scale = max(1.0, float(plain[0].abs().max()))
        np.testing.assert_allclose(forces[system], plain[0].numpy(), rtol=0, atol=1e-13 * atoms * scale)
        np.testing.assert_allclose(totals[:, system], plain[1:], rtol=1e-12, atol=1e-12 * atoms)


def test_the_bits_of_a_system_do_not_depend_on_the_others():
    edges = np.full(3, 4.7)
    positions = liquids(8, 64, edges, 1)
    kernel = LaneKernel(LENNARD_JONES, np.ones(2))
    forces, totals = kernel.evaluate(positions, edges, 2.2)
    backwards, reversed_totals = kernel.evaluate(positions[::-1].copy(), edges, 2.2)
    alone, own = kernel.evaluate(positions[5:6], edges, 2.2)
    np.testing.assert_array_equal(backwards[::-1], forces)
    np.testing.assert_array_equal(reversed_totals[:, ::-1], totals)
    np.testing.assert_array_equal(alone[0], forces[5])
    np.testing.assert_array_equal(own[:, 0], totals[:, 5])


@pytest.mark.parametrize(("atoms", "cutoff", "words"), [(209, 1.0, "at most 208 atoms"), (8, 2.4, "half the box, 2.35")])
def test_what_it_is_not_made_for_is_refused(atoms, cutoff, words):
    with pytest.raises(InputError, match=words):
        LaneKernel(LENNARD_JONES, np.ones(2)).evaluate(np.zeros((1, atoms, 3)), np.full(3, 4.7), cutoff)
