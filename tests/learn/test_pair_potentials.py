"""Learned pair potentials: data, losses and gradients are what their formulas say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given, settings
from hypothesis import strategies as st

from manybody.core.errors import TaskError
from manybody.core.learning import Training
from manybody.core.random import Key
from manybody.core.task import Output
from manybody.learn.potentials.configurations import Configurations, pair_potential, pairs_within, read
from manybody.learn.potentials.learner import PotentialLearner, learner, training_frames
from manybody.learn.potentials.radial import RadialLearner, basis, clipped_mean, splines

CUTOFF = 2.0
RADIAL = {"name": "radial-basis", "functions": 9, "shortest": 0.85}
NETWORK = {"name": "pair-network", "hidden": 6}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(model: dict[str, object], force_weight: float = 0.7) -> PotentialLearner:
    found = learner({"cutoff": CUTOFF, "force_weight": force_weight, "model": model}, "cpu")
    assert isinstance(found, PotentialLearner)
    return found


@pytest.fixture
def parameters() -> Callable[[PotentialLearner, Output], tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Parameters that are not those of any minimum, and what is agreed."""

    def make(model: PotentialLearner, data: Output) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        begin, agreed = model.start(data, Key(1))
        rng = np.random.default_rng(2)
        return {name: tensor + 0.3 * rng.standard_normal(tensor.shape) for name, tensor in begin.items()}, dict(agreed)

    return make


def test_labels_are_sums_over_pairs(configurations: Configurations) -> None:
    for positions, energy in zip(configurations.positions, configurations.energy, strict=True):
        pairs = pairs_within(positions, configurations.box, CUTOFF)
        assert energy == pytest.approx(pair_potential(pairs.distance, CUTOFF).sum(), rel=1e-10)
    assert np.abs(configurations.forces.sum(axis=1)).max() < 1e-10 * np.abs(configurations.forces).max()


def test_pairs_are_at_their_minimum_image(configurations: Configurations) -> None:
    shifted = configurations.positions[0] + np.array([4.4, -8.8, 0.3])
    here, there = (pairs_within(x, configurations.box, CUTOFF) for x in (configurations.positions[0], shifted))
    np.testing.assert_array_equal(here.first, there.first)
    np.testing.assert_allclose(here.distance, there.distance, rtol=1e-13)


def test_splines_vanish_at_the_cutoff_and_slopes_are_slopes() -> None:
    spline = splines(9, 0.85, CUTOFF)
    r, h = np.linspace(0.7, 1.999, 50), 1e-6
    values, slopes = basis(spline, r, 0.85)
    np.testing.assert_allclose((basis(spline, r + h, 0.85)[0] - basis(spline, r - h, 0.85)[0]) / (2 * h), slopes, atol=1e-7)
    assert values.shape == (50, 9)
    np.testing.assert_allclose(basis(spline, np.array([CUTOFF]), 0.85)[0], 0, atol=1e-15)


@pytest.mark.parametrize("model", [RADIAL, NETWORK], ids=["radial", "network"])
def test_the_loss_is_that_of_energies_and_of_their_gradients(configurations, parameters, model) -> None:
    """The forces follow from central differences of u, so energies and forces come from one potential."""
    ours = made(model)
    data = ours.prepare(configurations.output())
    theta, agreed = parameters(ours, data)
    h, found = 1e-5, configurations
    pairs = pairs_within(found.positions[0], found.box, CUTOFF - 2 * h)
    up, here, down = (ours.potential(theta, agreed, pairs.distance + shift) for shift in (h, 0.0, -h))
    forces = np.zeros((found.atoms, 3))
    pull = -((up - down) / (2 * h))[:, None] * pairs.direction
    np.add.at(forces, pairs.first, pull)
    np.add.at(forces, pairs.second, -pull)
    error = (here.sum() - found.energy[0]) / found.atoms
    expected = 0.5 * error**2 + 0.5 * 0.7 * np.mean((forces - found.forces[0]) ** 2)
    # A central difference has an error of about h^2 u''' / 6, here some 1e-7 of forces of order 10.
    assert ours.losses(theta, agreed, data)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("model", [RADIAL, NETWORK], ids=["radial", "network"])
def test_training_lowers_the_loss_repeats_and_leaves_its_input_alone(configurations, model) -> None:
    ours = made(model)
    data = ours.prepare(configurations.output())
    begin, agreed = ours.start(data, Key(4))
    copy = {name: np.array(tensor) for name, tensor in begin.items()}
    one, two = (ours.train(begin, agreed, data, Training(steps=15, learning_rate=0.03)) for _ in range(2))
    assert one.loss < ours.losses(begin, agreed, data)[training_frames(data)].mean()
    for name, tensor in begin.items():
        assert one.parameters[name].tobytes() == two.parameters[name].tobytes()
        np.testing.assert_array_equal(tensor, copy[name])
    assert one.samples == int(training_frames(data).sum()) == 4


def test_whitening_makes_the_public_curvature_one(configurations: Configurations) -> None:
    ours = made(RADIAL | {"damping": 1e-12})
    public = ours.prepare(configurations.output())
    agreed = ours.start(public, Key(0))[1]
    known = ours.pooled({}, agreed, {"all": public})
    assert known is not None
    values = np.linalg.eigvalsh(known.arrays["hessian/all"])
    # Directions that the data hardly determine have less curvature than the damping; all others have exactly 1.
    assert values[-1] == pytest.approx(1, abs=1e-6)
    assert np.median(values) == pytest.approx(1, abs=1e-3)


def test_gradient_steps_lead_to_the_least_squares_solution(configurations: Configurations) -> None:
    ours = made(RADIAL)
    data = ours.prepare(configurations.output())
    begin, agreed = ours.start(data, Key(0))
    known = ours.pooled(begin, agreed, {"all": data})
    assert known is not None
    hessian, linear = known.arrays["hessian/all"], known.arrays["linear/all"]
    theta = ours.train(begin, agreed, data, Training(steps=400, learning_rate=1.0)).parameters["coefficients"]
    vectors = np.linalg.eigh(hessian)[1][:, np.linalg.eigvalsh(hessian) > 0.2]  # (1 - 0.2)^400 is below round-off
    np.testing.assert_allclose(vectors.T @ (hessian @ theta - linear), 0, atol=1e-12 * np.abs(linear).max())


def test_a_pull_keeps_training_at_home(configurations: Configurations) -> None:
    """A quadratic loss with (mu/2) |theta - theta_0|^2 has its minimum at (H + mu)^-1 (b + mu theta_0)."""
    ours = made(RADIAL)
    data = ours.prepare(configurations.output())
    begin, agreed = ours.start(data, Key(0))
    home = {"coefficients": np.full(9, 0.4)}
    theta = ours.train(home, agreed, data, Training(steps=300, learning_rate=0.2, pull=3.0)).parameters["coefficients"]
    known = ours.pooled(begin, agreed, {"all": data})
    assert known is not None
    expected = np.linalg.solve(known.arrays["hessian/all"] + 3 * np.eye(9), known.arrays["linear/all"] + 3 * 0.4)
    np.testing.assert_allclose(theta, expected, rtol=1e-11)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.floats(0.1, 10), st.integers(0, 1000), st.floats(-100, 100))
def test_one_sample_moves_a_clipped_mean_by_no_more_than_its_share(samples: int, clip: float, seed: int, size: float) -> None:
    """Taking a sample out of the sum (the count is known) moves it by at most clip, so the mean by clip / n."""
    gradients = size * np.random.default_rng(seed).standard_normal((samples, 3))
    without = gradients.copy()
    without[0] = 0
    moved = np.linalg.norm(clipped_mean(gradients, clip) - clipped_mean(without, clip))
    assert moved <= clip / samples * (1 + 1e-12)


@pytest.mark.parametrize("model", [RADIAL, NETWORK], ids=["radial", "network"])
def test_a_wide_clip_changes_nothing_and_a_narrow_one_bounds_the_step(configurations, model) -> None:
    ours = made(model)
    data = ours.prepare(configurations.output())
    begin, agreed = ours.start(data, Key(4))

    def step(clip: float) -> np.ndarray:
        after = ours.train(begin, agreed, data, Training(steps=1, learning_rate=0.5, clip=clip)).parameters
        return np.concatenate([(after[name] - begin[name]).reshape(-1) for name in sorted(begin)])

    assert np.linalg.norm(step(1e-3)) <= 0.5 * 1e-3 * (1 + 1e-9)
    np.testing.assert_allclose(step(1e12), step(1e13), rtol=1e-12)
    if isinstance(ours, RadialLearner):  # whose steps without a clip are plain gradient steps, too
        plain = ours.train(begin, agreed, data, Training(steps=1, learning_rate=0.5)).parameters["coefficients"]
        np.testing.assert_allclose(step(1e12), plain, rtol=1e-9, atol=1e-12)


# --- files that a node holds -------------------------------------------------------------------------------------------


def test_both_kinds_of_file_hold_the_same_data(configurations: Configurations, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **configurations.output().arrays)
    images = []
    for at in range(configurations.frames):
        image = ase.Atoms(positions=configurations.positions[at], numbers=np.ones(64, int), cell=configurations.box, pbc=True)
        image.calc = SinglePointCalculator(image, energy=configurations.energy[at], forces=configurations.forces[at])
        images.append(image)
    ase.io.write(tmp_path / "b.extxyz", images, format="extxyz")
    (one, first), (two, second) = read(tmp_path / "a.npz"), read(tmp_path / "b.extxyz")
    assert first != second
    for name in ("positions", "box", "energy", "forces"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), atol=1e-7)  # the text has 8 decimals


@pytest.mark.parametrize("spoilt", ["text", "missing", "shape", "nan", "pickle"])
def test_a_file_that_holds_something_else_is_refused(configurations: Configurations, tmp_path: Path, spoilt: str) -> None:
    arrays = {name: np.array(array) for name, array in configurations.output().arrays.items()}
    path = tmp_path / "held.npz"
    if spoilt == "missing":
        del arrays["forces"]
    elif spoilt == "shape":
        arrays["energy"] = arrays["energy"][:-1]
    elif spoilt == "nan":
        arrays["forces"][0, 0, 0] = np.nan
    elif spoilt == "pickle":
        arrays["energy"] = np.array([{"a": 1}] * 5, dtype=object)
    np.savez(path, **arrays)
    if spoilt == "text":
        path.write_text("not an archive")
    with pytest.raises(TaskError, match=r"held data held\.npz: expected"):
        read(path)


def test_too_few_configurations_and_too_small_a_box_are_refused(configurations: Configurations) -> None:
    arrays = dict(configurations.output().arrays)
    few = {name: array[:3] for name, array in arrays.items()} | {"box": arrays["box"]}
    with pytest.raises(TaskError, match="expected at least 4 configurations; got 3"):
        made(RADIAL).prepare(Output(few, {}))
    with pytest.raises(TaskError, match="twice the cutoff"):
        made(RADIAL).prepare(Output(arrays | {"box": np.full(3, 3.9)}, {}))
