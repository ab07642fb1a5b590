import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manybody.core.errors import InputError
from manybody.numerics.ewald import EwaldParameters, ewald
from manybody.numerics.lattice_list import lattice_list
from manybody.numerics.mesh import PAD, gather, read_points, spread, spread_points, stencils
from manybody.numerics.pme import Exclusions, PMEParameters, PMEPlan, pme_energy
from manybody.numerics.pme_parameters import choose, mesh_error, mesh_size
from manybody.numerics.screened import DOUBLE_TERMS, SINGLE_TERMS, ScreenedPairs, fit_smooth_part, smooth_part

EDGE = 12.0
ORDINARY = PMEParameters(alpha=0.75, cutoff=5.0, order=6, mesh=(32, 32, 32), skin=0.5)


def ions(seed: int, atoms: int = 120, neutral: bool = True, skew: float = 1.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random ions in a random triclinic cell, no two closer than about a third of the mean distance: forces are typical."""
    random = np.random.default_rng(seed)
    cell = EDGE * np.eye(3) + random.uniform(-skew, skew, (3, 3))
    sites = math.ceil(atoms ** (1 / 3))
    grid = np.stack(np.meshgrid(*[np.arange(sites)] * 3, indexing="ij"), -1).reshape(-1, 3)
    chosen = random.permutation(grid)[:atoms] + random.uniform(-0.33, 0.33, (atoms, 3))
    charges = random.choice([-1.0, 1.0], atoms) * random.uniform(0.5, 1.5, atoms)
    return chosen / sites @ cell, charges - (charges.mean() if neutral else 0), cell


def exact(x: np.ndarray, q: np.ndarray, c: np.ndarray):
    return ewald(x, q, c, EwaldParameters(0.75, 8.5, 9.5))  # both sums converged to 1e-17


def rms(forces: np.ndarray) -> float:
    return math.sqrt((forces**2).sum() / len(forces))


# --- the parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [3, 4, 5, 8])
@pytest.mark.parametrize("shape", [(8, 9, 10), (24, 16, 12)])
def test_spreading_and_reading_agree_with_their_twins(order: int, shape: tuple[int, int, int]) -> None:
    x, q, c = ions(1, 40)
    inverse = np.linalg.inv(c)
    points = stencils(x, inverse, np.array(shape), order, np.zeros((40, 3, PAD)), np.zeros((40, 3, PAD)))
    mesh, padded = np.empty(shape), np.empty((*shape[:2], shape[2] + PAD))
    spread(points, q, order, padded, mesh)
    positions = torch.tensor(x, requires_grad=True)
    expected = spread_points(positions @ torch.tensor(inverse), torch.tensor(q), shape, order)
    assert np.abs(mesh - expected.detach().numpy()).max() < 1e-14
    assert mesh.sum() == pytest.approx(q.sum(), abs=1e-12)  # weights of a point add up to one
    field = np.random.default_rng(2).normal(size=shape)
    values, gradients = np.empty(40), np.empty((40, 3))
    gather(points, field, inverse, order, padded, values, gradients)
    read = read_points(positions @ torch.tensor(inverse), torch.tensor(field), order)
    (slope,) = torch.autograd.grad(read.sum(), positions)
    assert np.abs(values - read.detach().numpy()).max() < 1e-13
    assert np.abs(gradients - slope.numpy()).max() < 1e-12


@pytest.mark.parametrize("reach", [2.5, 3.0, 3.5])
def test_the_polynomial_stands_in_for_the_error_function(reach: float) -> None:
    for terms in (*SINGLE_TERMS, *DOUBLE_TERMS):
        c, error = fit_smooth_part(0.5, reach / 0.5, terms)
        r = np.linspace(0, reach / 0.5, 500)
        value = np.polyval(c, 2 * (r * 0.5 / reach) ** 2 - 1)
        # W' is integrated over at most reach^2, and the error is in units of 4 / (3 sqrt(pi)); some round-off on top
        assert np.abs(value - smooth_part((0.5 * r) ** 2)).max() < error * reach**2 + 1e-13
    assert fit_smooth_part(0.5, reach / 0.5, DOUBLE_TERMS[-1])[1] < 1e-12


@pytest.mark.parametrize("cutoff", [1.5, 4.0, 14.0])
def test_the_list_holds_every_pair_once_from_each_side(cutoff: float) -> None:
    """Also where the cutoff exceeds the cell, so that an atom meets several images of another and of itself."""
    x, _, c = ions(3, 20)
    c, x = c / 2, x / 2 + np.random.default_rng(1).integers(-2, 3, (20, 3)) @ (c / 2)
    near = lattice_list(x, c, cutoff)
    sorted_x = x[near.order] - near.offset.T
    extended = np.concatenate([sorted_x, sorted_x[near.source] + near.shift.T])
    found = 0
    for cluster in range(len(near.first) - 1):
        entries = near.entries[near.start[cluster] : near.start[cluster + 1]]
        assert len(set(entries)) == len(entries)
        members = np.arange(near.first[cluster], near.first[cluster + 1])
        distance = np.linalg.norm(extended[members][:, None] - extended[entries][None], axis=-1)
        found += ((distance < cutoff) & (distance > 0)).sum()
    n = np.stack(np.meshgrid(*[np.arange(-9, 10)] * 3, indexing="ij"), -1).reshape(-1, 3) @ c
    d = (x[:, None] - x[None]).reshape(-1, 3)
    distances = np.linalg.norm(d[:, None] + n[None], axis=-1)
    assert found == ((distances < cutoff) & (distances > 1e-9)).sum()


def test_a_list_holds_until_an_atom_has_moved_half_the_skin() -> None:
    x, _, c = ions(4, 30)
    near = lattice_list(x, c, 4.0, 0.6)
    assert near.still_holds(x + np.array([0.29, 0, 0]))
    assert not near.still_holds(x + np.eye(30)[:, :1] * 0.31)
    assert not near.still_holds(x + np.eye(30)[:, :1] * np.nan)
    with pytest.raises(InputError, match="cutoff comparable to the cell"):
        lattice_list(x, c, 1000.0)


# --- the whole -------------------------------------------------------------------------------------------------


@settings(max_examples=5, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), neutral=st.booleans(), exponent=st.integers(3, 6))
def test_requested_error_is_met_in_random_boxes(seed: int, neutral: bool, exponent: int) -> None:
    x, q, c = ions(seed, neutral=neutral)
    error = 10.0**-exponent
    plan = PMEPlan.for_accuracy(q, c, error, x)
    truth = exact(x, q, c)
    result = plan.evaluate(x, virial=True)
    assert plan.measured_error is not None
    got = rms(result.forces - truth.forces) / rms(truth.forces)
    assert plan.measured_error <= error
    assert got < 1.1 * error  # measured against a reference that is right to some percent of the error
    # An energy that errs by dU has the virial of one that errs: both follow the force error times a distance an atom
    slack = 3 * error * rms(truth.forces) * EDGE * len(q)
    assert result.energy == pytest.approx(truth.energy, abs=slack)
    assert np.abs(result.virial - truth.virial).max() < slack


@pytest.mark.parametrize("order", [4, 5, 6, 7, 8])
@pytest.mark.parametrize("neutral", [True, False])
def test_the_compiled_path_agrees_with_its_plain_twin_and_its_derivatives(order: int, neutral: bool) -> None:
    """Forces, potentials and virial are the derivatives of the energy, the mesh included: they conserve it exactly."""
    x, q, c = ions(6, 40, neutral)
    parameters = replace(ORDINARY, order=order, mesh=(18, 20, 24))
    result = PMEPlan(q, c, parameters).evaluate(x, virial=True)
    positions, charges = torch.tensor(x, requires_grad=True), torch.tensor(q, requires_grad=True)
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    whole = torch.eye(3) + strain
    energy = pme_energy(positions @ whole, charges, torch.tensor(c) @ whole, parameters)
    by_position, by_charge, by_strain = torch.autograd.grad(energy, (positions, charges, strain))
    assert result.energy == pytest.approx(energy.item(), abs=1e-11)
    assert np.abs(result.forces + by_position.numpy()).max() < 1e-11
    assert np.abs(result.potentials - by_charge.numpy()).max() < 1e-11
    assert np.abs(result.virial + by_strain.numpy()).max() < 1e-10


def test_forces_and_virial_are_finite_differences_of_the_energy() -> None:
    x, q, c = ions(7, 40)
    near_cutoff = replace(ORDINARY, cutoff=7.0)  # erfc(alpha r_c) = 1e-13: no jump where a pair crosses the cutoff
    plan = PMEPlan(q, c, near_cutoff)
    result = plan.evaluate(x, virial=True)
    step = 1e-4
    random = np.random.default_rng(3)
    for _ in range(3):
        u = random.normal(size=x.shape)
        rise = plan.evaluate(x + step * u).energy - plan.evaluate(x - step * u).energy
        assert -rise / (2 * step) == pytest.approx(float((result.forces * u).sum()), rel=1e-6)
        strain = step * random.normal(size=(3, 3))
        up, down = np.eye(3) + strain, np.eye(3) - strain
        rise = plan.with_cell(c @ up).evaluate(x @ up).energy - plan.with_cell(c @ down).evaluate(x @ down).energy
        assert -rise / 2 == pytest.approx(float((result.virial * strain).sum()), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("order", [4, 6, 8])
def test_the_error_falls_with_the_power_of_the_mesh_that_the_order_says(order: int) -> None:
    """A spline of order n errs by h^n in the potential, and by h^(n - 1) in the force, which is its derivative."""
    x, q, c = ions(8, skew=0.0)
    truth = exact(x, q, c)
    meshes = np.array([40, 48, 60])
    results = [PMEPlan(q, c, PMEParameters(0.75, 8.5, order, (m, m, m))).evaluate(x) for m in meshes.tolist()]
    potentials = [rms(result.potentials - truth.potentials) for result in results]
    forces = [rms(result.forces - truth.forces) for result in results]
    # (k / (G - k))^n averaged over both signs of k is (k / G)^n (1 + n (n + 1) / 2 (k / G)^2 ...): the slope is steeper by
    # n (n + 1) (k h / 2 pi)^2 at the mode that counts most, k^2 = 2 n alpha^2, where k^(2 n) exp(-k^2 / 2 alpha^2) peaks.
    steeper = order * (order + 1) * 2 * order * (0.75 * EDGE / 48 / (2 * math.pi)) ** 2
    for errors, power in ((potentials, order), (forces, order - 1)):
        slope = -np.polyfit(np.log(meshes), np.log(errors), 1)[0]
        assert power - 0.1 < slope < power + steeper + 0.1


@pytest.mark.parametrize("order", [4, 6, 7, 8])
def test_the_estimate_of_the_mesh_error_is_right_for_uncorrelated_charges(order: int) -> None:
    random = np.random.default_rng(9)
    q, c = np.repeat([1.0, -1.0], 100), EDGE * np.eye(3)
    x = random.random((200, 3)) * EDGE
    truth = exact(x, q, c).forces
    plan = PMEPlan(q, c, PMEParameters(0.75, 8.5, order, (30, 30, 30)))
    assert rms(plan.evaluate(x).forces - truth) == pytest.approx(mesh_error(q, EDGE**3, 0.75, EDGE / 30, order), rel=0.15)


def test_moving_everything_changes_nothing_beyond_the_mesh_error() -> None:
    """The mesh breaks translation invariance; its estimated force error bounds by how much."""
    x, q, c = ions(10)
    plan = PMEPlan(q, c, ORDINARY)
    bound = 3 * mesh_error(q, abs(np.linalg.det(c)), ORDINARY.alpha, EDGE / 32, ORDINARY.order)
    here = plan.evaluate(x)
    for shift in np.random.default_rng(4).uniform(-20, 20, (3, 3)):
        there = plan.evaluate(x + shift)
        assert rms(there.forces - here.forces) < bound
    whole = plan.evaluate(x + np.array([2, -1, 1]) @ c / 32 * 4)  # by whole mesh points: the same to round-off
    assert np.abs(whole.forces - here.forces).max() < 1e-10


def test_the_net_force_is_a_mesh_error_and_can_be_taken_off() -> None:
    x, q, c = ions(11)
    plan = PMEPlan(q, c, ORDINARY)
    net = np.linalg.norm(plan.evaluate(x).forces.sum(axis=0))
    bound = mesh_error(q, abs(np.linalg.det(c)), ORDINARY.alpha, EDGE / 32, ORDINARY.order)
    assert 1e-12 < net < 3 * math.sqrt(len(q)) * bound  # independent errors of the atoms add up as a random walk
    free = PMEPlan(q, c, ORDINARY, remove_net_force=True)
    assert np.linalg.norm(free.evaluate(x).forces.sum(axis=0)) < 1e-11


def test_single_precision_pairs_err_by_a_millionth() -> None:
    x, q, c = ions(12)
    double = PMEPlan(q, c, ORDINARY).evaluate(x, virial=True)
    single = PMEPlan(q, c, replace(ORDINARY, single=True)).evaluate(x, virial=True)
    # 2^-24 for each of some hundred terms, and forces that cancel
    assert rms(single.forces - double.forces) < 3e-6 * rms(double.forces)
    assert single.energy == pytest.approx(double.energy, rel=3e-6)


def test_threads_do_not_change_a_bit() -> None:
    x, q, c = ions(13, 700)
    one = PMEPlan(q, c, ORDINARY).evaluate(x, virial=True)
    for threads in (2, 3):
        many = PMEPlan(q, c, ORDINARY, threads=threads).evaluate(x, virial=True)
        assert many.energy == one.energy
        assert (many.forces == one.forces).all()
        assert (many.virial == one.virial).all()


def test_a_kept_list_gives_the_forces_of_a_new_one() -> None:
    x, q, c = ions(14)
    plan = PMEPlan(q, c, ORDINARY)
    near = plan.neighbours(x)
    moved = x + np.random.default_rng(5).uniform(-0.14, 0.14, x.shape)
    assert plan.neighbours(moved, near) is near
    assert np.abs(plan.evaluate(moved, near).forces - plan.evaluate(moved).forces).max() < 1e-12
    assert plan.neighbours(x + np.eye(len(x))[:, :1], near) is not near


def test_exclusions_take_whole_pairs_off() -> None:
    """A rigid dumbbell whose ends do not see each other: the Ewald sum less 1 / r of the pair, scaled 1-4 pairs in part."""
    x, q, c = ions(15, 60)
    pairs, kept = np.array([[0, 1], [2, 7], [59, 3]]), np.array([0.0, 0.5, 1 / 1.2])
    x[1] = x[0] + np.array([0.4, 0.3, 0.2]) + c[0]  # the nearest image is what is meant
    precise = PMEParameters(0.75, 7.5, 8, (60, 60, 60))
    result = PMEPlan(q, c, precise, exclusions=Exclusions(pairs, kept)).evaluate(x, virial=True)
    truth = exact(x, q, c)
    positions = torch.tensor(x, requires_grad=True)
    d = positions[pairs[:, 0]] - positions[pairs[:, 1]]
    d = d - torch.round(d.detach() @ torch.tensor(np.linalg.inv(c))) @ torch.tensor(c)
    removed = (torch.tensor((1 - kept) * q[pairs].prod(1)) / torch.linalg.norm(d, dim=1)).sum()
    (slope,) = torch.autograd.grad(removed, positions)
    assert result.energy == pytest.approx(truth.energy - removed.item(), abs=1e-6)
    assert np.abs(result.forces - (truth.forces + slope.numpy())).max() < 1e-6
    assert result.energy == pytest.approx(0.5 * float(q @ result.potentials), abs=1e-9)
    assert np.trace(result.virial) == pytest.approx(result.energy, abs=1e-5)  # Euler's theorem holds for it as well


def test_units_enter_once() -> None:
    x, q, c = ions(16)
    plain = PMEPlan(q, c, ORDINARY).evaluate(x, virial=True)
    scaled = PMEPlan(q, c, ORDINARY, coulomb_constant=138.935).evaluate(x, virial=True)
    for name in ("energy", "forces", "potentials", "virial"):
        assert np.allclose(138.935 * getattr(plain, name), getattr(scaled, name), rtol=1e-13, atol=1e-13)
    assert np.isnan(PMEPlan(q, c, ORDINARY).evaluate(x).virial).all()  # not asked for, not given


def test_parameters_without_positions_are_an_estimate() -> None:
    x, q, c = ions(17)
    plan = PMEPlan.for_accuracy(q, c, 1e-4)
    assert plan.measured_error is None
    truth = exact(x, q, c).forces
    assert rms(plan.evaluate(x).forces - truth) < 5e-4 * rms(truth)
    tighter = choose(q, c, 1e-8)
    assert tighter.alpha * tighter.cutoff > plan.parameters.alpha * plan.parameters.cutoff
    assert [mesh_size(n) for n in (3, 21, 25, 33, 41, 43, 101)] == [8, 24, 32, 36, 48, 48, 108]


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: PMEParameters(0.5, 5.0, 9, (32, 32, 32)), "spline order"),
        (lambda: PMEParameters(0.5, 5.0, 6, (32, 5, 32)), "at least 6 points"),
        (lambda: PMEParameters(math.nan, 5.0, 6, (32, 32, 32)), "alpha"),
        (lambda: PMEPlan.for_accuracy(np.ones(4), np.eye(3), 2.0), "relative_error"),
        (lambda: PMEPlan(np.ones(4), np.eye(3), ORDINARY).evaluate(np.zeros((3, 3))), "charges"),
        (lambda: PMEPlan(np.ones(4), EDGE * np.eye(3), ORDINARY).evaluate(np.full((4, 3), np.inf)), "exploded"),
        (lambda: Exclusions(np.array([[0, 0]]), np.zeros(1)), "itself"),
        (lambda: Exclusions(np.array([[0, 1]]), np.zeros(2)), "one factor for each pair"),
        (lambda: ScreenedPairs(0.5, 5.0) and choose(np.ones(4), np.eye(3), 0.0), "force_error"),
    ],
)
def test_wrong_input_is_named(make, word: str) -> None:
    with pytest.raises(InputError, match=word):
        make()
