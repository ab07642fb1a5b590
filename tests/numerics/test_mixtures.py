"""Kernels of mixtures against their plain twin and the kernel of one species: any cell, any cutoff, any way to cut off."""

import numpy as np
import pytest
import torch

from manybody.core.errors import InputError
from manybody.numerics.bricks import add_lattice_images, lower_triangular, shrinkage, wrap_into_brick
from manybody.numerics.bricks import sheared as sheared_cell
from manybody.numerics.clusters import sort_in_space
from manybody.numerics.mixtures import TREATMENTS, MixturePotential, generate, mixed
from manybody.numerics.pairs import LENNARD_JONES, PairPotential, formula
from manybody.numerics.plain_mixtures import PlainMixture

SIGMA, EPSILON = np.array([[1.0, 0.8], [0.8, 0.88]]), np.array([[1.0, 1.5], [1.5, 0.5]])
KOB_ANDERSEN = MixturePotential(LENNARD_JONES, 2).bind({"sigma": SIGMA, "epsilon": EPSILON}, 2.5 * SIGMA)
CELLS = {
    "brick": (216, np.diag([5.2, 5.6, 6.1])),
    "triclinic": (216, np.array([[5.4, 0.0, 0.0], [2.6, 5.4, 0.0], [-1.0, 2.0, 5.6]])),
    "turned": (125, np.array([[4.1, 0.4, 0.9], [1.5, 4.2, -0.4], [-1.0, 1.2, 4.4]])),
    "tilted beyond half": (64, np.array([[3.6, 0.0, 0.0], [9.1, 3.7, 0.0], [4.2, -5.3, 3.9]])),
    "smaller than the cutoff": (8, np.array([[1.9, 0.0, 0.0], [0.7, 2.0, 0.0], [0.2, 0.3, 1.8]])),
    "one atom": (1, np.array([[1.2, 0.0, 0.0], [0.5, 1.1, 0.0], [0.1, 0.4, 1.3]])),
}


def liquid(atoms: int, cell: np.ndarray, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Points on a jittered grid in a cell, far from the origin, a fifth of them of species 1."""
    generator = np.random.default_rng(seed)
    side = int(np.ceil(atoms ** (1 / 3) - 1e-9))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)[:atoms] / side
    sites = grid + generator.uniform(-0.1, 0.1, grid.shape) / side
    return sites @ cell + generator.uniform(-20, 20, 3), (generator.random(atoms) < 0.2).astype(np.int64)


@pytest.mark.parametrize("name", CELLS)
def test_every_image_counts_in_any_cell(name):
    """Forces, energy and virial are the plain sum over all images within the cutoffs, differentiated by autograd."""
    atoms, cell = CELLS[name]
    x, species = liquid(atoms, cell)
    ours, plain = KOB_ANDERSEN.evaluate(x, species, cell), PlainMixture(KOB_ANDERSEN).evaluate(x, species, cell)
    scale = max(1.0, np.abs(plain.forces).max())
    assert ours.pairs == plain.pairs > 0
    assert np.abs(ours.forces - plain.forces).max() <= 1e-12 * scale
    assert ours.energy == pytest.approx(plain.energy, rel=1e-12)
    np.testing.assert_allclose(ours.virial, plain.virial, rtol=0, atol=1e-12 * np.abs(plain.virial).max())


def test_the_choice_of_lattice_vectors_does_not_matter():
    """The same crystal told by other vectors: what the flip of a sheared cell rests on."""
    atoms, cell = CELLS["triclinic"]
    x, species = liquid(atoms, cell)
    other = np.array([[1, 0, 0], [3, 1, 0], [-2, 1, 1]]) @ cell
    first, second = KOB_ANDERSEN.evaluate(x, species, cell), KOB_ANDERSEN.evaluate(x, species, other)
    assert first.energy == pytest.approx(second.energy, rel=1e-12)
    np.testing.assert_allclose(first.forces, second.forces, rtol=0, atol=1e-11 * np.abs(first.forces).max())


def test_two_species_alike_are_one():
    """With equal tables the kernel of one species gives the same."""
    x, species = liquid(300, np.diag([6.9, 7.1, 7.3]))
    box = np.array([6.9, 7.1, 7.3])
    alike = MixturePotential(LENNARD_JONES, 2).bind({"sigma": np.full((2, 2), 1.0), "epsilon": np.full((2, 2), 1.0)}, 2.5)
    single = LENNARD_JONES.bind({"epsilon": 1.0, "sigma": 1.0})
    forces, energy, virial, pairs = single.evaluate(x, box, 2.5)
    ours = alike.evaluate(x, species, np.diag(box))
    assert ours.pairs == pairs
    assert ours.energy == pytest.approx(energy - single.energy(2.5) * pairs, rel=1e-12)
    assert np.trace(ours.virial) == pytest.approx(virial, rel=1e-12)
    assert np.abs(ours.forces - forces).max() <= 1e-12 * np.abs(forces).max()


@pytest.mark.parametrize("treatment", TREATMENTS)
def test_a_pair_is_cut_off_as_the_treatment_says(treatment, tmp_path):
    """The generated functions of a pair, run as plain Python, against torch; and what each treatment promises at the end."""
    begins = 2.0 * SIGMA if treatment == "switched" else None
    kernel = MixturePotential(LENNARD_JONES, 2, treatment).bind({"epsilon": EPSILON, "sigma": SIGMA}, 2.5 * SIGMA, begins)
    functions = interpreted(kernel.mixture)
    table = functions["tabulated"](kernel.parameters)
    cuts = functions["cuts_of"](table, kernel.cutoffs, kernel.begins)
    cutoff = 2.5 * SIGMA[0, 1]
    plain = PlainMixture(kernel)
    r = torch.tensor([0.75, 1.0, 1.7, 1.9, cutoff * (1 - 1e-9)], dtype=torch.float64, requires_grad=True)
    energies = plain.pair_energy(r, 0, 1)
    (slopes,) = torch.autograd.grad(energies.sum(), r)
    for at, energy, slope in zip(r.tolist(), energies.tolist(), slopes.tolist(), strict=True):
        c, row = functions["loaded"](table[0, 1]), cuts[0, 1]
        assert functions["cut_energy"](at**2, 1 / at**2, c, row) == pytest.approx(energy, rel=1e-12, abs=1e-14)
        force = functions["cut_force"](at**2, 1 / at**2, c, functions["_force_cut"](row)) * at
        assert force == pytest.approx(-slope, rel=1e-12, abs=1e-12)
    jumps, kinks = abs(energies[-1].item()), abs(slopes[-1].item())
    assert (jumps > 1e-3) == (treatment == "plain")
    assert (kinks > 1e-3) == (treatment in ("plain", "shifted"))


def interpreted(mixture: MixturePotential) -> dict[str, object]:
    """The functions of a mixture's kernel without compiling them."""
    text = generate(mixture).replace("@kernel", "").replace("@spread", "")
    names: dict[str, object] = {}
    exec(compile(text, "kernel", "exec"), names)
    return names


def test_mixing_rules():
    sigma, epsilon = mixed("lorentz-berthelot", np.array([1.0, 0.5]), np.array([1.0, 4.0]))
    np.testing.assert_allclose(sigma, [[1.0, 0.75], [0.75, 0.5]])
    np.testing.assert_allclose(epsilon, [[1.0, 2.0], [2.0, 4.0]])
    sigma, _ = mixed("geometric", np.array([1.0, 0.25]), np.array([1.0, 1.0]))
    np.testing.assert_allclose(sigma, [[1.0, 0.5], [0.5, 0.25]])


def test_coefficients_are_counted():
    assert formula(LENNARD_JONES)[1] == 4  # of r^-12 and r^-6, in the energy and in the force
    assert formula(PairPotential("ramp", "r2"))[1] == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"values": {"sigma": SIGMA}}, "tables for epsilon, sigma; got sigma"),
        ({"values": {"sigma": SIGMA, "epsilon": [[1.0, 2.0], [1.0, 1.0]]}}, r"symmetric table \[2, 2\] of numbers for epsilon"),
        ({"values": {"sigma": SIGMA, "epsilon": np.ones((3, 3))}}, "Give one row a species"),
        ({"cutoffs": -1.0}, "cutoffs above 0"),
        ({"begins": 1.0}, "a switch only where the treatment is `switched`"),
        ({"treatment": "switched"}, "where the switch begins"),
        ({"treatment": "switched", "begins": 3.0}, "begins below the cutoff"),
        ({"treatment": "cut"}, "one of plain, shifted"),
        ({"species": 0}, "1 to 16 species"),
    ],
)
def test_what_cannot_be_bound_is_refused(changes, said):
    asked = {"species": 2, "treatment": "shifted", "values": {"sigma": SIGMA, "epsilon": EPSILON}, "cutoffs": 2.5, "begins": None}
    asked |= changes
    with pytest.raises(InputError, match=said):
        MixturePotential(LENNARD_JONES, asked["species"], asked["treatment"]).bind(
            asked["values"], asked["cutoffs"], asked["begins"]
        )


def test_what_cannot_be_evaluated_is_refused():
    x, species = liquid(64, np.diag([4.0, 4.0, 4.0]))
    cell = np.diag([4.0, 4.0, 4.0])
    with pytest.raises(InputError, match=r"finite positions .* for atom 3"):
        KOB_ANDERSEN.evaluate(np.where(np.arange(64)[:, None] == 3, np.nan, x), species, cell)
    with pytest.raises(InputError, match="a species from 0 to 1"):
        KOB_ANDERSEN.evaluate(x, species + 1, cell)
    with pytest.raises(InputError, match="span a volume"):
        KOB_ANDERSEN.evaluate(x, species, np.ones((3, 3)))
    with pytest.raises(InputError, match="comparable to the cell"):
        KOB_ANDERSEN.evaluate(x, species, 0.01 * cell)
    x[9] = x[41]
    with pytest.raises(InputError, match="atoms that do not coincide; got no finite force on atom"):
        KOB_ANDERSEN.evaluate(x, species, cell)


def test_a_cell_is_turned_into_a_lower_triangle():
    cell = CELLS["turned"][1]
    rotation, triangle = lower_triangular(cell)
    np.testing.assert_allclose(triangle @ rotation, cell, atol=1e-13)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-14)
    assert (np.diag(triangle) > 0).all()
    np.testing.assert_array_equal(np.triu(triangle, 1), 0)


def test_wrapping_moves_by_the_lattice_into_the_brick():
    _, cell = CELLS["tilted beyond half"]
    x = np.random.default_rng(3).uniform(-30, 30, (3, 50))
    wrapped = x.copy()
    wrap_into_brick(wrapped, cell)
    assert (wrapped >= 0).all()
    assert (wrapped < np.diag(cell)[:, None] * (1 + 1e-12)).all()
    hops = (wrapped - x).T @ np.linalg.inv(cell)
    np.testing.assert_allclose(hops, np.rint(hops), atol=1e-11)


def test_images_are_those_within_reach():
    """As many images of single atoms as a plain count finds, in a tilted cell narrower than the reach."""
    _, cell = CELLS["smaller than the cutoff"]
    x = np.random.default_rng(4).uniform(0, 1, (3, 12)) * np.diag(cell)[:, None]
    reach = 2.3
    clusters = add_lattice_images(x, cell, np.arange(13, dtype=np.int32), reach)
    hops = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3, indexing="ij"), -1).reshape(-1, 3)
    moved = x.T[:, None] + (hops @ cell)[None]
    near = ((moved >= -reach) & (moved <= np.diag(cell) + reach)).all(axis=2)
    assert clusters.source.size == near.sum() - 12  # the atoms themselves are no images
    assert sort_in_space(x, np.diag(cell).copy())[0].size == 12


def test_a_sheared_cell_is_the_same_crystal():
    cell = CELLS["triclinic"][1]
    grown = sheared_cell(cell, 1.37)
    whole = cell.copy()
    whole[:, 0] += 1.37 * cell[:, 1]
    hops = grown @ np.linalg.inv(whole)
    np.testing.assert_allclose(hops, np.rint(hops), atol=1e-12)
    assert abs(np.linalg.det(hops)) == pytest.approx(1.0)
    assert abs(grown[1, 0]) <= 0.5 * grown[0, 0]
    for strain in (-0.7, 0.01, 1.3):
        deformation = np.eye(3)
        deformation[0, 1] = strain
        assert shrinkage(strain) == pytest.approx(np.linalg.svd(deformation, compute_uv=False)[-1], rel=1e-12)
