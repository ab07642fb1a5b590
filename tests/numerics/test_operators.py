"""Pair sums as torch operators: gradients against the plain twin, and what torch asks of an operator."""

import numpy as np
import pytest
import torch
from torch import nn

from manybody.core.errors import InputError
from manybody.numerics import operators
from manybody.numerics.bonded_formulas import BondedPotential
from manybody.numerics.formula_terms import plain_energy
from manybody.numerics.operators import pair_energy, pair_forces, plain_pair_energy, pme_energy
from manybody.numerics.pair_sums import CompiledSums, Formula, PlainSums, pair_values
from manybody.numerics.pairs import LENNARD_JONES, PairPotential
from manybody.numerics.pme import PMEParameters
from manybody.numerics.pme import pme_energy as plain_pme_energy
from manybody.numerics.programs import fused

CUTOFF = 2.9  # of a cell of about 3: atoms meet several images of each other, and their own
FORMULA = Formula(LENNARD_JONES.expression, LENNARD_JONES.parameters)
SHAPES = [
    (LENNARD_JONES, {"epsilon": 1.3, "sigma": 0.9}),
    (
        PairPotential("morse", "depth*(1 - exp(-a*(r - place)))**2", ("depth", "a", "place")),
        {"depth": 0.7, "a": 2.0, "place": 1.1},
    ),
    (PairPotential("screened", "charge*erfc(a*r)/r - sqrt(2)*log(r)", ("charge", "a")), {"charge": 1.5, "a": 0.8}),
    (PairPotential("bare", "1/r2"), {}),
]


def crystal():
    """Nine atoms off the sites of a lattice, far from the origin, in a triclinic cell; kinds 0 and 1; tables of parameters."""
    generator = torch.Generator().manual_seed(3)
    cell = torch.tensor([[3.2, 0, 0], [0.4, 3.0, 0], [-0.3, 0.5, 3.4]], dtype=torch.float64, requires_grad=True)
    sites = torch.cartesian_prod(*[torch.arange(3.0, dtype=torch.float64)] * 3)[::3] / 3
    shaken = sites + 0.03 * torch.rand(sites.shape, generator=generator, dtype=torch.float64)
    positions = (shaken @ cell.detach() + torch.tensor([5.0, -7.0, 2.0])).requires_grad_()
    epsilon = torch.tensor([[1.0, 0.7], [0.6, 1.2]], dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    return positions, cell, epsilon, sigma, torch.arange(9) % 2


def table_of(values):
    """Parameters as the operators take them, all kinds alike."""
    return torch.tensor(list(values), dtype=torch.float64).reshape(1, 1, -1)


def worst(ours, theirs):
    """The largest difference, over the largest number."""
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("shifted", [False, True])
def test_energy_and_two_derivatives_are_those_of_the_plain_formula(shifted):
    *leaves, species = crystal()
    positions, cell, epsilon, sigma = leaves
    generator = torch.Generator().manual_seed(4)
    found = []
    weights = [torch.rand(leaf.shape, generator=generator, dtype=torch.float64) for leaf in leaves]
    for energy_of in (pair_energy, plain_pair_energy):
        energy = energy_of(LENNARD_JONES, positions, cell, {"epsilon": epsilon, "sigma": sigma}, CUTOFF, species, shifted)
        first = torch.autograd.grad(energy, leaves, create_graph=True)
        along = sum((weight * gradient).sum() for weight, gradient in zip(weights, first, strict=True))
        found.append([energy.detach()[None], *(g.detach() for g in first), *torch.autograd.grad(along, leaves)])
    assert worst(*found) < 1e-12


def test_gradcheck_passes_for_both_derivatives():
    positions, cell, epsilon, sigma, species = crystal()

    def energy(x, h, e, s):
        return pair_energy(LENNARD_JONES, x, h, {"epsilon": e, "sigma": s}, CUTOFF, species, shifted=True)

    # A finite difference must not carry a pair across the cutoff, where the force jumps.
    assert torch.autograd.gradcheck(energy, (positions, cell, epsilon, sigma))
    assert torch.autograd.gradgradcheck(energy, (positions, cell, epsilon, sigma), atol=1e-4)


@pytest.mark.parametrize(("potential", "values"), SHAPES, ids=lambda value: getattr(value, "name", ""))
def test_the_path_of_other_devices_is_the_plain_formula_for_any_potential(potential, values):
    positions, cell, *_ = crystal()
    energy = plain_pair_energy(potential, positions, cell, values, CUTOFF, shifted=True)
    sums = PlainSums(
        Formula(potential.expression, potential.parameters), positions.detach(), cell.detach(), table_of(values.values()),
        torch.zeros(9, dtype=torch.int64), CUTOFF, True,
    )  # fmt: skip
    assert sums.energy().item() == pytest.approx(energy.item(), rel=1e-12)
    assert worst(sums.gradients()[:2], torch.autograd.grad(energy, (positions, cell))) < 1e-12


def test_both_implementations_of_every_operator_agree():
    positions, cell, epsilon, sigma, species = (tensor.detach() for tensor in crystal())
    table = torch.stack([0.5 * (epsilon + epsilon.T), sigma.expand(2, 2)], dim=-1)
    along = [torch.rand_like(positions), torch.rand_like(cell), torch.ones_like(table)]
    compiled, plain = (kind(FORMULA, positions, cell, table, species, CUTOFF, True) for kind in (CompiledSums, PlainSums))
    assert compiled.energy().item() == pytest.approx(plain.energy().item(), rel=1e-13)
    assert worst(compiled.gradients(), plain.gradients()) < 1e-12
    assert worst(compiled.curvature(*along), plain.curvature(*along)) < 1e-12


def test_torch_s_own_checks_of_operators_pass():
    positions, cell, epsilon, sigma, species = crystal()
    table = torch.stack([epsilon, sigma.expand(2, 2)], dim=-1).detach().requires_grad_()
    arguments = (positions, cell, table, species, CUTOFF, False, FORMULA.expression, "epsilon,sigma")
    charges = torch.linspace(-1, 1, 9, dtype=torch.float64, requires_grad=True)
    for operator, given in (
        (operators._pair_energy, arguments),
        (operators._pair_gradients, arguments),
        (operators._pme, (positions, charges, cell, 2.0, 1.5, 4, [8, 8, 8], False, 1.0)),
    ):
        assert set(torch.library.opcheck(operator, given).values()) == {"SUCCESS"}


def test_bonded_terms_are_differentiable_twice_in_positions_and_parameters():
    rng = np.random.default_rng(8)
    potential = BondedPotential("k*(cos(phi) - cos(phi0))**2 + tanh(sin(phi))", ("k", "phi0"))
    atoms = torch.from_numpy(np.array([rng.permutation(9)[:4] for _ in range(20)]))
    leaves = [torch.tensor(rng.normal(size=shape), requires_grad=True) for shape in ((9, 3), (20, 2))]
    weights = [torch.rand_like(leaf) for leaf in leaves]
    found = []
    for energy_of in (operators.bonded_energy, plain_energy):
        energy = energy_of(potential, leaves[0], atoms, leaves[1])
        first = torch.autograd.grad(energy, leaves, create_graph=True)
        along = sum((weight * gradient).sum() for weight, gradient in zip(weights, first, strict=True))
        found.append([energy.detach()[None], *(g.detach() for g in first), *torch.autograd.grad(along, leaves)])
    assert worst(*found) < 1e-11
    given = (leaves[0], atoms, leaves[1], potential.expression, "k,phi0")
    assert worst(found[0][1:3], operators._plain_bonded_gradients(*given)) < 1e-11
    for operator in (operators._bonded_energy, operators._bonded_gradients):
        assert set(torch.library.opcheck(operator, given).values()) == {"SUCCESS"}
    with pytest.raises(InputError, match=r"atoms \[terms, 4\]"):
        operators.bonded_energy(potential, leaves[0], atoms[:, :3], leaves[1])


class Model(nn.Module):
    """Energy and forces with a depth to learn."""

    def __init__(self):
        super().__init__()
        self.epsilon = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, positions, cell):
        arguments = (LENNARD_JONES, positions, cell, {"epsilon": self.epsilon, "sigma": 0.9}, CUTOFF)
        return pair_energy(*arguments), pair_forces(*arguments)


def test_export_and_compile_accept_the_operators():
    positions, cell, *_ = crystal()
    model = Model()
    energy, forces = model(positions, cell)
    exported = torch.export.export(model, (positions.detach(), cell.detach()))
    assert {"manybody.pair_energy.default", "manybody.pair_gradients.default"} <= {str(n.target) for n in exported.graph.nodes}
    assert worst(exported.module()(positions, cell), (energy, forces)) < 1e-14
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    again, _ = compiled(positions, cell)
    assert worst(torch.autograd.grad(again, (positions, cell)), torch.autograd.grad(energy, (positions, cell))) < 1e-14


def test_a_depth_is_learned_from_forces():
    """The derivative of a loss of forces by a parameter goes through the operator of second derivatives."""
    positions, cell, *_ = crystal()
    wanted = 1.7 * pair_forces(LENNARD_JONES, positions, cell, {"epsilon": 1.0, "sigma": 0.9}, CUTOFF).detach()
    model = Model()
    loss = (model(positions, cell)[1] - wanted).square().sum()
    (slope,) = torch.autograd.grad(loss, model.epsilon)
    assert model.epsilon.item() - slope.item() * 0.7 / (2 * loss.item()) * 0.7 == pytest.approx(1.7, rel=1e-10)  # a parabola


def test_particle_mesh_ewald_has_the_gradients_of_its_twin():
    positions, cell, *_ = crystal()
    charges = torch.linspace(-1, 1, 9, dtype=torch.float64, requires_grad=True)
    parameters = PMEParameters(alpha=2.0, cutoff=2.5, order=8, mesh=(32, 32, 32))
    leaves = (positions, charges, cell)
    found = []
    for energy_of in (pme_energy, plain_pme_energy):
        energy = energy_of(positions, charges, cell, parameters)
        found.append([energy.detach()[None], *torch.autograd.grad(energy, leaves)])
    assert worst(*found) < 1e-10


def test_single_precision_comes_back_as_it_came():
    positions, cell, *_ = (tensor.detach().float() for tensor in crystal())
    energy = pair_energy(LENNARD_JONES, positions, torch.tensor([3.0, 3.1, 3.2]), {"epsilon": 1, "sigma": 0.9}, 1.4)
    assert energy.dtype == torch.float32
    assert pair_forces(LENNARD_JONES, positions, cell, {"epsilon": 1, "sigma": 0.9}, 1.4).dtype == torch.float32


def test_what_does_not_fit_is_refused():
    positions, cell, *_ = (tensor.detach() for tensor in crystal())
    given = {"epsilon": 1.0, "sigma": 0.9}
    with pytest.raises(InputError, match="values for epsilon, sigma; got epsilon"):
        pair_energy(LENNARD_JONES, positions, cell, {"epsilon": 1.0}, CUTOFF)
    with pytest.raises(InputError, match="a cell \\[3, 3\\]"):
        pair_energy(LENNARD_JONES, positions, cell[0, 0], given, CUTOFF)
    with pytest.raises(InputError, match="Mix parameters"):
        pair_energy(LENNARD_JONES, positions, cell, given | {"sigma": torch.ones(9)}, CUTOFF)
    positions[4, 1] = torch.nan
    with pytest.raises(InputError, match="1 positions that are not"):
        pair_energy(LENNARD_JONES, positions, cell, given, CUTOFF)


def test_what_is_put_together_on_cuda_is_one_program_for_any_number_of_pairs_and_gives_the_same():
    """As on an accelerator, but for the last stage, which makes machine code of it."""
    plain = pair_values(FORMULA, 1)
    together = fused(plain, backend="aot_eager")
    generator = torch.Generator().manual_seed(6)
    for count in (40, 67):
        squares, *p = 1 + torch.rand(3, count, generator=generator, dtype=torch.float64)
        assert torch.allclose(together(squares, *p), plain(squares, *p), rtol=1e-13)
