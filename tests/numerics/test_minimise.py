"""Minimisers against minima that are known: clusters, a crystal, a quadratic form."""

import math

import numpy as np
import pytest

from manybody.core.errors import InputError
from manybody.numerics.minimise import fire, l_bfgs
from manybody.numerics.pairs import LENNARD_JONES

MINIMISERS = [fire, l_bfgs]
LENNARD_JONES_KERNEL = LENNARD_JONES.bind({"epsilon": 1.0, "sigma": 1.0})
GOLDEN = (1 + math.sqrt(5)) / 2


def lennard_jones(box, cutoff):
    """Energy, shifted to zero at the cutoff, and forces of atoms in a periodic cube."""
    shift = LENNARD_JONES_KERNEL.energy(cutoff)

    def evaluate(x):
        forces, energy, _, pairs = LENNARD_JONES_KERNEL.evaluate(np.ascontiguousarray(x), np.full(3, box), cutoff)
        return energy - shift * pairs, forces

    return evaluate


def icosahedron():
    """A centre and twelve corners at distance 1.1."""
    corners = [(0, s, t * GOLDEN) for s in (-1, 1) for t in (-1, 1)]
    ring = np.array([np.roll(corner, shift) for corner in corners for shift in range(3)])
    return np.vstack([np.zeros(3), 1.1 * ring / np.linalg.norm(ring[0])])


def truncated_octahedron():
    """38 atoms of an fcc lattice about an octahedral hole: shells at 1, sqrt(3) and sqrt(5), with nearest distance 1.1."""
    grid = np.stack(np.meshgrid(*[np.arange(-5, 6)] * 3, indexing="ij"), -1).reshape(-1, 3)
    sites = grid[grid.sum(axis=1) % 2 == 1]
    return 1.1 / math.sqrt(2) * sites[(sites**2).sum(axis=1) <= 5]


@pytest.mark.parametrize("minimise", MINIMISERS)
@pytest.mark.parametrize(
    ("start", "energy"), [(icosahedron, -44.326801), (truncated_octahedron, -173.928427)], ids=["13 atoms", "38 atoms"]
)
def test_clusters_reach_their_global_minima(minimise, start, energy):
    """Energies of the Cambridge Cluster Database; the shift of each pair is 4e-6 at a cutoff of 10."""
    x = start()
    x = x + 10 + 0.05 * np.random.default_rng(1).standard_normal(x.shape)
    found = minimise(lennard_jones(20.0, 10.0), x, 1e-8)
    assert found.converged
    assert found.largest_force <= 1e-8
    shift = LENNARD_JONES_KERNEL.energy(10.0) * len(x) * (len(x) - 1) / 2
    assert found.energy + shift == pytest.approx(energy, abs=1e-6)


@pytest.mark.parametrize("minimise", MINIMISERS)
def test_shaken_crystal_returns_to_its_lattice(minimise):
    """256 atoms, each displaced by a twentieth of the nearest distance: the energy falls back to the lattice's own."""
    cells, edge = 4, 4 * 4 ** (1 / 3)  # density 1
    corner = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    basis = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    sites = (corner + basis).reshape(-1, 3) * edge / cells
    evaluate = lennard_jones(edge, 2.35)  # halfway between two shells of the lattice
    found = minimise(evaluate, sites + 0.03 * np.random.default_rng(2).standard_normal(sites.shape), 1e-7)
    assert found.converged
    # A force of 1e-7 on each atom against the softest mode, of curvature above 1: at most 256 (1e-7)^2 in energy.
    assert found.energy == pytest.approx(evaluate(sites)[0], abs=1e-10)


@pytest.mark.parametrize("minimise", MINIMISERS)
def test_the_end_goes_downhill(minimise):
    x = icosahedron() + 10 + 0.1 * np.random.default_rng(3).standard_normal((13, 3))
    energies = minimise(lennard_jones(20.0, 10.0), x, 1e-6).energies
    slack = 4 * np.finfo(float).eps * abs(energies[-1])
    watched = energies if minimise is l_bfgs else energies[-8:]
    assert (np.diff(watched) <= slack).all()


@pytest.mark.parametrize("minimise", MINIMISERS)
def test_a_stiff_quadratic_form(minimise):
    """Curvatures from 1 to 1000."""
    stiffness = np.geomspace(1, 1000, 30).reshape(10, 3)
    found = minimise(lambda x: (float(0.5 * (stiffness * x**2).sum()), -stiffness * x), np.ones((10, 3)), 1e-6)
    assert found.converged
    assert np.abs(found.positions).max() <= 1e-6


@pytest.mark.parametrize("minimise", MINIMISERS)
def test_steps_are_counted_out(minimise):
    found = minimise(lennard_jones(20.0, 10.0), icosahedron() * 1.2 + 10, 1e-9, most_steps=3)
    assert not found.converged
    assert len(found.energies) == 4


@pytest.mark.parametrize("minimise", MINIMISERS)
def test_a_start_without_a_finite_energy_is_refused(minimise):
    x = icosahedron() + 10
    x[7] = x[3]
    with pytest.raises(InputError, match=r"start of a minimisation: expected finite energy and forces; got .* on atom \d+"):
        minimise(lennard_jones(20.0, 10.0), x, 1e-6)
