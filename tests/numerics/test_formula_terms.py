"""Bonded terms by formula: against the built-in forms, their plain twins, finite differences and symmetries."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manybody.core.errors import InputError
from manybody.numerics.bonded import BondedTerms
from manybody.numerics.bonded_formulas import BondedPotential, generate
from manybody.numerics.formula_terms import FormulaTerms

ATOMS, TERMS = 12, 20

# Each built-in form as a formula; the bounds that its parameters are drawn from.
BUILT_IN = {
    "harmonic-bond": ("k/2*(r - r0)**2", ("k", "r0"), [1, 0.5], [5, 1]),
    "fene-bond": ("-k*longest**2/2*log(1 - (r/longest)**2)", ("k", "longest"), [1, 6], [5, 9]),
    "harmonic-angle": ("k/2*(theta - theta0)**2", ("k", "theta0"), [1, 1], [5, 2.5]),
    "periodic-torsion": ("k*(1 + cos(n*phi - phase))", ("k", "n", "phase"), [1, 1, 0], [5, 6, 3]),
    "ryckaert-bellemans": (
        "c0 - c1*cos(phi) + c2*cos(phi)**2 - c3*cos(phi)**3 + c4*cos(phi)**4 - c5*cos(phi)**5",
        ("c0", "c1", "c2", "c3", "c4", "c5"),
        [-3] * 6,
        [3] * 6,
    ),
    "harmonic-improper": ("k/2*wrapped(phi - phi0)**2", ("k", "phi0"), [1, -3], [5, 3]),
    "morse-bond": ("depth*(1 - exp(-a*(r - r0)))**2", ("depth", "a", "r0"), [1, 0.5, 0.5], [5, 1.5, 1.5]),
}
# What no built-in form is: an angle of fourth order, a torsion with a squared cosine, a wall that is flat below r0.
OWN = {
    "quartic-angle": ("k2*(theta - theta0)**2 + k4*(theta - theta0)**4", ("k2", "k4", "theta0"), [1, 1, 1], [5, 5, 2.5]),
    "squared-torsion": ("k*(cos(phi) - cos(phi0))**2 + tanh(sin(phi))", ("k", "phi0"), [1, -3], [5, 3]),
    "wall": ("k/8*(r - r0 + sqrt((r - r0)**2))**2", ("k", "r0"), [1, 1], [5, 3]),
}


def drawn(formula, rng):
    expression, names, low, high = formula
    parameters = rng.uniform(low, high, (TERMS, len(low)))
    if "n" in names:
        parameters[:, names.index("n")] = np.rint(parameters[:, names.index("n")])
    potential = BondedPotential(expression, names)
    atoms = np.array([rng.permutation(ATOMS)[: potential.members] for _ in range(TERMS)])
    return FormulaTerms(potential, atoms, parameters), rng.normal(size=(ATOMS, 3))


@pytest.mark.parametrize("form", BUILT_IN)
def test_built_in_forms_written_as_formulas_give_the_same(form):
    terms, x = drawn(BUILT_IN[form], np.random.default_rng(3))
    own, built_in = np.zeros_like(x), np.zeros_like(x)
    energy = BondedTerms(form, terms.atoms, terms.parameters).add_forces(x, built_in)
    assert terms.add_forces(x, own) == pytest.approx(energy, rel=1e-12)
    assert np.abs(own - built_in).max() < 1e-12 * np.abs(built_in).max()


@pytest.mark.parametrize("name", OWN)
def test_forces_are_the_slopes_of_what_is_written(name):
    terms, x = drawn(OWN[name], np.random.default_rng(5))
    forces = np.zeros_like(x)
    energy = terms.add_forces(x, forces)
    positions = torch.tensor(x, requires_grad=True)
    expected = terms.energy(positions)
    (gradient,) = torch.autograd.grad(expected, positions)
    assert energy == pytest.approx(expected.item(), rel=1e-12)
    assert np.abs(forces + gradient.numpy()).max() < 1e-12 * np.abs(forces).max()
    # Along a random line: a central difference errs by h^2/6 of the third derivative, and by round-off over h.
    line, h = np.random.default_rng(6).normal(size=x.shape), 1e-5
    ahead, behind = (terms.add_forces(x + side * h * line, np.zeros_like(x)) for side in (1, -1))
    assert (ahead - behind) / (2 * h) == pytest.approx(-(forces * line).sum(), rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(sorted(OWN)))
def test_energies_know_of_no_place_or_direction(seed, name):
    rng = np.random.default_rng(seed)
    terms, x = drawn(OWN[name], rng)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)  # no mirror
    forces, turned = np.zeros_like(x), np.zeros_like(x)
    energy = terms.add_forces(x, forces)
    moved = terms.add_forces(x @ turn + rng.uniform(-1, 1, 3), turned)
    size = np.abs(forces).max()  # steep where atoms happen to lie on a line, and round-off with it
    assert moved == pytest.approx(energy, rel=1e-12, abs=1e-14 * size)
    assert np.abs(turned - forces @ turn).max() < 1e-10 * size * max(1.0, size)
    assert np.abs(forces.sum(axis=0)).max() < 1e-13 * TERMS * size


TWICE = """
import numpy as np
from manybody.numerics.bonded_formulas import BondedPotential, generate
from manybody.numerics.formula_terms import FormulaTerms
potential = BondedPotential("k2*(theta - theta0)**2 + k4*(theta - theta0)**4", ("k2", "k4", "theta0"))
terms = FormulaTerms(potential, np.array([[0, 1, 2], [2, 3, 1]]), np.array([[1.3, 2.1, 1.9], [0.7, 3.3, 1.1]]))
x, forces = np.random.default_rng(1).normal(size=(4, 3)), np.zeros((4, 3))
print(generate(potential), terms.add_forces(x, forces).hex(), forces.tobytes().hex())
"""


def test_a_second_compilation_in_another_process_has_the_same_bits(tmp_path, capsys):
    exec(TWICE, {})
    elsewhere = os.environ | {"MANYBODY_CACHE": str(tmp_path), "PYTHONHASHSEED": "7"}  # no kernel there, other hashes
    other = subprocess.run([sys.executable, "-c", TWICE], env=elsewhere, capture_output=True, text=True, check=True)
    assert other.stdout == capsys.readouterr().out


def test_a_straight_angle_has_a_finite_force():
    terms = FormulaTerms(BondedPotential("k*(1 + cos(theta))", ("k",)), np.array([[0, 1, 2]]), np.array([[30.0]]))
    forces = np.zeros((3, 3))
    assert terms.add_forces(np.array([[-1.0, 0, 0], [0, 0, 0], [1.0, 0, 0]]), forces) == 0
    assert (forces == 0).all()


def test_numbers_of_any_size_are_doubles():
    terms = FormulaTerms(BondedPotential("10**300*r/3 + r**2/10**200/10**200"), np.array([[0, 1]]), np.empty((1, 0)))
    x = np.array([[0.0, 0, 0], [6.0, 0, 0]])
    assert terms.add_forces(x, np.zeros((2, 3))) == pytest.approx(2e300, rel=1e-15)
    assert terms.energy(torch.tensor(x)).item() == pytest.approx(2e300, rel=1e-15)


@pytest.mark.parametrize(
    ("expression", "names", "match"),
    [
        ("k*2", ("k",), "exactly one of r, theta and phi"),
        ("k*r*theta", ("k",), "got r and theta"),
        ("k*(r - d)", ("k",), "column 8.*got d"),
        ("k*sgn(r)", ("k",), "wrapped"),
        ("k*r", ("k", "phi"), "parameters named otherwise"),
        ("k*r.real", ("k",), "arithmetic"),
        ("__import__('os')", (), "functions"),
    ],
)
def test_formulas_that_are_none_are_refused(expression, names, match):
    with pytest.raises(InputError, match=match):
        BondedPotential(expression, names)


def test_terms_that_do_not_fit_are_refused():
    held = BondedPotential("k/2*(r - r0)**2", ("k", "r0"))
    with pytest.raises(InputError, match=r"atoms \[terms, 2\] and parameters \[terms, 2\]"):
        FormulaTerms(held, np.zeros((2, 3), np.int64), np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"2 different atoms, counted from 0; got \[4, 4\]"):
        FormulaTerms(held, np.array([[0, 1], [4, 4]]), np.ones((2, 2)))


@pytest.mark.parametrize(
    ("expression", "parameter"), [("k/2*(phi - 1)**2", 5.0), ("cos(n*phi)*sin(phi/2)", 2.0), ("sin(n*phi)", 2.5)]
)
def test_a_torsion_whose_energy_jumps_after_a_turn_is_refused(expression, parameter):
    name = "k" if "k" in expression else "n"
    with pytest.raises(InputError, match=r"the same energy at -pi and pi.*wrapped\(phi - phi0\)"):
        FormulaTerms(BondedPotential(expression, (name,)), np.array([[0, 1, 2, 3]]), np.array([[parameter]]))


def test_a_torsion_without_an_energy_somewhere_is_refused():
    with pytest.raises(InputError, match="an energy for every phi"):
        FormulaTerms(BondedPotential("k*sqrt(sin(phi))", ("k",)), np.array([[0, 1, 2, 3]]), np.ones((1, 1)))


def test_what_value_and_slope_share_is_computed_once():
    text = generate(BondedPotential("k*exp(-a*r)", ("k", "a")))
    assert text.split("def energy_and_slope")[1].split("def slopes")[0].count("math.exp") == 1
