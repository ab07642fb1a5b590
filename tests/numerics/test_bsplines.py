import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from manybody.core.errors import InputError
from manybody.numerics.bsplines import bspline, check_order, euler_moduli, fill_weights, point_weights

ORDERS = [3, 4, 5, 6, 7, 8]
ROUND_OFF = 1e-14  # some ten roundings of numbers below one


@pytest.mark.parametrize("order", ORDERS)
def test_the_recursion_gives_the_cardinal_spline(order: int) -> None:
    u = np.linspace(-1, order + 1, 301)
    reference = np.nan_to_num(BSpline.basis_element(np.arange(order + 1), extrapolate=False)(u))
    assert np.abs(bspline(torch.from_numpy(u), order).numpy() - reference).max() < ROUND_OFF


@pytest.mark.parametrize("order", ORDERS)
def test_weights_of_a_point_add_up_to_one_and_have_their_centre_at_the_point(order: int) -> None:
    u = torch.from_numpy(np.random.default_rng(1).uniform(-5, 40, 100))
    first, weights = point_weights(u, order)
    nodes = first[:, None] + torch.arange(order)
    assert (weights.sum(1) - 1).abs().max() < ROUND_OFF
    assert ((weights * nodes).sum(1) - u).abs().max() < 40 * ROUND_OFF


@pytest.mark.parametrize("order", ORDERS)
def test_compiled_weights_are_those_of_the_formula_and_slopes_their_derivatives(order: int) -> None:
    for fraction in np.random.default_rng(2).uniform(0, 1, 20):
        weights, slopes = np.zeros(8), np.zeros(8)
        fill_weights(fraction, order, weights, slopes, 0)
        u = torch.tensor(fraction, dtype=torch.float64, requires_grad=True)
        expected = bspline(u + torch.arange(order - 1, -1, -1), order)
        assert np.abs(weights[:order] - expected.detach().numpy()).max() < ROUND_OFF
        for j in range(order):
            (slope,) = torch.autograd.grad(expected[j], u, retain_graph=True)
            assert slopes[j] == pytest.approx(slope.item(), abs=ROUND_OFF)
        assert not weights[order:].any()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("points", [12, 15])
def test_moduli_are_the_transform_of_the_spline_at_its_knots(order: int, points: int) -> None:
    m = np.arange(points)
    knots = [BSpline.basis_element(np.arange(order + 1))(k + 1) for k in range(order - 1)]
    expected = np.abs(sum(w * np.exp(2j * np.pi * m * k / points) for k, w in enumerate(knots))) ** 2
    regular = expected > 1e-10  # an odd order on an even mesh loses its Nyquist mode
    assert np.abs(euler_moduli(points, order) - expected)[regular].max() < ROUND_OFF
    assert (euler_moduli(points, order) > 0).all()
    assert regular.all() == (order % 2 == 0 or points % 2 == 1)


@pytest.mark.parametrize("order", [0, 2, 9])
def test_other_orders_are_refused(order: int) -> None:
    with pytest.raises(InputError, match="spline order from 3 to 8"):
        check_order(order)
