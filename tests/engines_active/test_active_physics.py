"""Theory: closed forms, the order of the scheme, Boltzmann's distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest

from manybody.core.random import Key
from manybody.core.task import Task
from manybody.engines.active import stages
from manybody.engines.active.engine import ActiveEngine
from manybody.engines.active.known_answers import (
    heun_mean_square_displacement,
    long_time_diffusivity,
    mean_square_displacement,
    repulsion_energy,
)
from manybody.engines.active.spec import ActiveBrownianParticles, Stretch
from manybody.engines.active.state import ActiveState
from manybody.numerics.statistics import block_error

KEY = Key.from_seed(11)


def free(particles: int, speed: float) -> ActiveBrownianParticles:
    return ActiveBrownianParticles(particles=particles, area_fraction=0.1, speed=speed, rotational_diffusivity=2.0)


def test_limits_of_the_closed_form() -> None:
    """v^2 t^2 + 4 D t at short times, 4 (D + v^2 / (2 D_r)) t at long ones, and Howse's form with tau_R = 2 / D_r."""
    d, v, dr, t = 0.7, 3.0, 2.0, 0.9
    assert mean_square_displacement(d, v, dr, 1e-4) == pytest.approx(4e-4 * d + 1e-8 * v**2, rel=1e-6)
    assert mean_square_displacement(d, v, dr, 1e6) / 4e6 == pytest.approx(long_time_diffusivity(d, v, dr), rel=1e-6)
    tau = 2 / dr
    howse = 4 * d * t + v**2 * tau**2 / 2 * (2 * t / tau + math.exp(-2 * t / tau) - 1)
    assert mean_square_displacement(d, v, dr, t) == pytest.approx(howse, rel=1e-14)


def test_the_scheme_s_own_displacement_is_a_double_sum_and_of_order_two() -> None:
    steps, dt, dr = 7, 0.1, 2.0
    weights = np.r_[0.5, np.ones(steps - 1), 0.5]
    lags = np.abs(np.subtract.outer(np.arange(steps + 1), np.arange(steps + 1)))
    direct = 4 * 0.7 * dt * steps + (3.0 * dt) ** 2 * float(weights @ np.exp(-dr * dt * lags) @ weights)
    assert heun_mean_square_displacement(0.7, 3.0, dr, dt, steps) == pytest.approx(direct, rel=1e-13)
    errors = [
        heun_mean_square_displacement(0.7, 3.0, dr, 1.0 / count, count) - mean_square_displacement(0.7, 3.0, dr, 1.0)
        for count in (10, 20, 40)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.05)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.02)


def test_a_path_is_heun_s() -> None:
    """At a time step so long that Heun's displacement, Euler's and the exact one differ by far more than the sampling error."""
    system, dt, steps = free(100_000, 5.0), 0.4, 4
    engine = ActiveEngine(system, dt)
    start = engine.init(KEY)
    end = engine.step(start, steps)
    squares = ((end.positions - start.positions) ** 2).sum(axis=1)
    error = squares.std() / math.sqrt(len(squares))
    expected = heun_mean_square_displacement(1.0, 5.0, 2.0, dt, steps)
    assert squares.mean() == pytest.approx(expected, abs=4 * error)
    assert abs(mean_square_displacement(1.0, 5.0, 2.0, dt * steps) - expected) > 8 * error
    turned = np.cos(end.angles - start.angles)
    assert turned.mean() == pytest.approx(math.exp(-2.0 * dt * steps), abs=4 * turned.std() / math.sqrt(len(turned)))


@pytest.mark.parametrize("speed", [0.0, 5.0])
def test_displacements_have_no_heavier_tail_than_a_gaussian(speed: float) -> None:
    """<r^4> <= 2 <r^2>^2, on which the tolerances of the measures rest; equal without propulsion."""
    engine = ActiveEngine(free(100_000, speed), 0.05)
    start = engine.init(KEY)
    squares = ((engine.step(start, 16).positions - start.positions) ** 2).sum(axis=1)
    ratio = float((squares**2).mean() / squares.mean() ** 2)
    # The fourth moment of an exponential variable spreads by 20^(1/2), its squared mean by twice 1: below 3 % in all.
    assert ratio == pytest.approx(2.0, abs=0.06) if speed == 0 else ratio < 1.9


def test_without_noise_the_forces_are_integrated_to_second_order() -> None:
    """Two disks push each other apart while they swim: halving the time step quarters the error."""
    system = ActiveBrownianParticles(particles=2, area_fraction=0.1, speed=5.0, repulsion=10.0)
    x = np.array([[1.0, 1.0], [1.9, 1.2]])

    def separation(steps: int) -> float:
        state = ActiveState(x, np.array([0.3, 2.9]), system.edge, np.zeros(2), KEY)
        end = ActiveEngine(system, 2e-3 / steps).moved(state, np.zeros((steps, 2, 3))).positions
        return float(np.hypot(*(end[1] - end[0])))

    errors = [separation(steps) - separation(8192) for steps in (128, 256, 512)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.1)


def test_paths_on_the_same_noise_converge_with_the_time_step(node: object) -> None:
    system = ActiveBrownianParticles(particles=400, area_fraction=0.6, speed=40.0, repulsion=10.0)
    engine = ActiveEngine(system, 1e-4)
    end = engine.step(engine.init(KEY), 2000)
    arrays = {"unwrapped": end.positions, "angles": end.angles, "displacement": np.zeros_like(end.positions)}
    apart = []
    for dt in (1e-4, 5e-5):
        time = 32e-4
        stretch = Stretch(start="lattice", time_step=dt, time=time, sample_every=time, frame_every=time)
        task = Task(
            method="brownian-dynamics", stage="converge", version="2", system=system.document(), parameters=stretch.document()
        )  # fmt: skip
        output = stages.converge(task, {"state": stages.Output(arrays)}, node)
        assert output.document["steps"] == round(time / dt)
        apart.append(output.document["path_difference"])
    assert math.log2(apart[0] / apart[1]) == pytest.approx(1, abs=0.25)


def test_passive_disks_meet_as_boltzmann_says() -> None:
    """Two disks in a periodic square: the share of time in contact and the mean energy, against quadrature of exp(-u)."""
    system = ActiveBrownianParticles(particles=2, area_fraction=0.25, repulsion=2.0)
    engine = ActiveEngine(system, 2e-4)
    state, energies = engine.init(KEY), []
    for _ in range(6000):
        state = engine.step(state, 64)
        energies.append(engine.observables(state)["energy"] * 2)
    series = np.array(energies)

    axis = (np.arange(800) + 0.5) / 800 * system.edge - system.edge / 2
    distance = np.hypot(axis[:, None], axis)
    energy = np.where(distance < 2 ** (1 / 6), np.vectorize(repulsion_energy)(np.maximum(distance, 0.3), 2.0), 0.0)
    weight = np.exp(-energy)
    for ours, exact in (
        (series, float((weight * energy).sum() / weight.sum())),
        ((series > 0).astype(float), float((weight * (energy > 0)).sum() / weight.sum())),
        ((series > 1.0).astype(float), float((weight * (energy > 1.0)).sum() / weight.sum())),
    ):
        error = float(block_error([ours - ours.mean()]).error)
        assert error < 0.15 * exact
        assert ours.mean() == pytest.approx(exact, abs=4 * error)
