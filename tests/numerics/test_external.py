"""External fields: forces against differentiated formulas, and the barometric formula."""

import math

import numpy as np
import pytest
import torch

from manybody.core.errors import InputError
from manybody.numerics.external import ExternalField

SLANTED = (0.6, 0.0, 0.8)
FIELDS = [
    ExternalField("harmonic-trap", (1.0, 2.0, 0.0, 0.1, -0.2, 0.3)),
    ExternalField("constant-force", (0.3, -0.4, 0.5)),
    ExternalField("gravity", (0.0, 0.1, -9.81)),
    ExternalField("harmonic-wall", (*SLANTED, 0.2, 30.0)),
    ExternalField("nine-three-wall", (*SLANTED, -4.0, 1.5, 0.9)),
]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.form)
def test_forces_are_the_derivatives_of_the_formula(field):
    generator = np.random.default_rng(3)
    x, masses = generator.normal(size=(40, 3)), generator.uniform(1, 5, 40)
    forces = np.zeros_like(x)
    energy = field.add_forces(x, masses, forces)
    positions = torch.tensor(x, requires_grad=True)
    expected = field.energy(positions, torch.from_numpy(masses))
    (gradient,) = torch.autograd.grad(expected, positions)
    assert energy == pytest.approx(expected.item(), rel=1e-12)
    assert np.abs(forces + gradient.numpy()).max() < 1e-12 * np.abs(forces).max()


def test_what_is_behind_a_wall_of_atoms_has_no_number_for_an_energy():
    wall = ExternalField("nine-three-wall", (0.0, 0.0, 1.0, 0.0, 1.0, 1.0))
    assert math.isnan(wall.add_forces(np.array([[0.0, 0.0, -0.1]]), np.ones(1), np.zeros((1, 3))))
    # The minimum of 2/15 s^9 - s^3, s = sigma/z, is at s^6 = 5/2, where it is -2/3 sqrt(5/2).
    low = (2 / 5) ** (1 / 6)
    forces = np.zeros((1, 3))
    assert wall.add_forces(np.array([[0.0, 0.0, low]]), np.ones(1), forces) == pytest.approx(-2 / 3 * math.sqrt(2.5), rel=1e-12)
    assert np.abs(forces).max() < 1e-12


def test_heights_follow_the_barometric_formula():
    """Atoms of two masses over a floor: density exp(-(m g z + floor) / kT), by BAOAB from one height for all.

    Mean heights are known in closed form; those of atoms are independent, so the error is the spread over sqrt(atoms).
    """
    atoms, kT, g, k, dt, friction, steps = 3000, 1.0, 2.0, 200.0, 0.02, 2.0, 600
    generator = np.random.default_rng(11)
    masses = np.repeat([1.0, 2.5], atoms // 2)
    gravity = ExternalField("gravity", (0.0, 0.0, -g))
    floor = ExternalField("harmonic-wall", (0.0, 0.0, 1.0, 0.0, k))
    x, v, f = np.zeros((atoms, 3)), np.zeros((atoms, 3)), np.zeros((atoms, 3))
    x[:, 2], decay = 0.5, math.exp(-friction * dt)
    width = np.sqrt((1 - decay**2) * kT / masses)[:, None]
    for _ in range(steps):
        v += 0.5 * dt * f / masses[:, None]
        x += 0.5 * dt * v
        v = decay * v + width * generator.standard_normal(v.shape)
        x += 0.5 * dt * v
        f[:] = 0
        gravity.add_forces(x, masses, f)
        floor.add_forces(x, masses, f)
        v += 0.5 * dt * f / masses[:, None]
    z = np.linspace(-1.5, 15, 400_001)
    for mass in (1.0, 2.5):
        weight = np.exp(-(mass * g * z + 0.5 * k * np.minimum(z, 0) ** 2) / kT)
        mean = float((z * weight).sum() / weight.sum())
        spread = math.sqrt(float((z**2 * weight).sum() / weight.sum()) - mean**2)
        found = x[masses == mass, 2]
        # Of BAOAB the error in averages of positions is of order (omega dt)^4, omega^2 = k/m: 1e-4 of the floor's share.
        assert found.mean() == pytest.approx(mean, abs=4 * spread / math.sqrt(len(found)))
        above = float(weight[z > 2 * mean].sum() / weight.sum())
        assert (found > 2 * mean).mean() == pytest.approx(above, abs=4 * math.sqrt(above * (1 - above) / len(found)))
        air = found[found > 0]  # where the density is exponential
        assert air.mean() == pytest.approx(kT / (mass * g), abs=4 * kT / (mass * g) / math.sqrt(len(air)))


def test_parameters_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="6 parameters; got 3"):
        ExternalField("harmonic-trap", (1.0, 1.0, 1.0))
    with pytest.raises(InputError, match="a normal of length 1"):
        ExternalField("harmonic-wall", (1.0, 1.0, 0.0, 0.0, 10.0))
