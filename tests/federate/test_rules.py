"""Aggregation rules: what every one of them must satisfy, by hypothesis, and what each promises."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from manybody.core.errors import InputError
from manybody.federate.fedadagrad import FedAdagrad
from manybody.federate.fedadam import FedAdam
from manybody.federate.fedavgm import FedAvgM
from manybody.federate.fedyogi import FedYogi
from manybody.federate.krum import Krum, reach
from manybody.federate.mean import WeightedMean, weighted_mean
from manybody.federate.median import CoordinateMedian
from manybody.federate.proximal import FedProx, proximal_gradient, proximal_term
from manybody.federate.tensors import Contribution, Round
from manybody.federate.trimmed import TrimmedMean
from manybody.federate.weights import capped, normalised, weights

RULES = [
    WeightedMean(),
    WeightedMean(weighting="capacity"),
    WeightedMean(weighting="inverse-variance", largest_share=0.4),
    CoordinateMedian(),
    TrimmedMean(bad=2),
    Krum(bad=2),
    Krum(bad=2, keep=3),
    FedProx(),
    FedAvgM(),
    FedAdagrad(),
    FedAdam(),
    FedYogi(),
]
LINEAR = [rule for rule in RULES if rule.name in ("weighted-mean", "median", "trimmed-mean", "krum", "fedprox")]
by_name = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.digest[:4] + "-" + rule.name)
linear = pytest.mark.parametrize("rule", LINEAR, ids=lambda rule: rule.digest[:4] + "-" + rule.name)

reasonable = st.floats(-1e6, 1e6, allow_subnormal=False)
stacks = hnp.arrays(np.float64, st.tuples(st.integers(7, 11), st.integers(1, 4)), elements=reasonable)
any_stack = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=st.floats(allow_nan=False, allow_infinity=False)
)


def round_of(theta, facts=None):
    facts = facts if facts is not None else np.ones(len(theta))
    return Round.of(
        Contribution.of(f"n{i:02d}", {"w": row, "b": row[:1] / 2}, samples=int(f), capacity=float(f), variance=1 / float(f))
        for i, (row, f) in enumerate(zip(theta, facts, strict=True))
    )


def started(rule, round_):
    return rule.start({name: np.zeros_like(round_.stacked(name)[0]) for name in round_.names})


@by_name
@settings(max_examples=20, deadline=None)
@given(theta=stacks, seed=st.integers(0, 99))
def test_arrival_order_changes_no_bit(rule, theta, seed):
    shuffle = np.random.default_rng(seed).permutation(len(theta))
    contributions = round_of(theta, np.arange(1, len(theta) + 1)).contributions
    first, second = (Round.of(c) for c in (contributions, [contributions[i] for i in shuffle]))
    one, two = rule.step(started(rule, first), first), rule.step(started(rule, second), second)
    for name in one.parameters:
        assert one.parameters[name].tobytes() == two.parameters[name].tobytes()


@linear
@settings(max_examples=20, deadline=None)
@given(theta=stacks, exponent=st.integers(-20, 20))
def test_scale_by_a_power_of_two_is_exact(rule, theta, exponent):
    scaled = rule.combine(round_of(theta * 2.0**exponent))["w"]
    np.testing.assert_array_equal(scaled, rule.combine(round_of(theta))["w"] * 2.0**exponent)


@linear
@settings(max_examples=20, deadline=None)
@given(
    theta=hnp.arrays(np.int64, (8, 3), elements=st.integers(-1000, 1000)),
    shift=st.integers(-(2**20), 2**20),
)
def test_translation_comes_through(rule, theta, shift):
    """Integers are shifted without round-off, so the rule's own rounding is all that may differ."""
    moved = rule.combine(round_of(theta.astype(float) + shift))["w"]
    np.testing.assert_allclose(moved, rule.combine(round_of(theta.astype(float)))["w"] + shift, rtol=4e-16, atol=4e-10)


@by_name
def test_agreement_is_returned_bit_for_bit(rule):
    theta = np.tile(np.array([0.1, -1e300, 5e-324]), (9, 1)) if rule in LINEAR else np.tile([0.1, 0.2, 0.3], (9, 1))
    round_ = round_of(theta, np.arange(1, 10))
    combined = rule.combine(round_)
    assert combined["w"].tobytes() == theta[0].tobytes()


@by_name
def test_type_and_shape_come_back(rule):
    single = Round.of(
        Contribution.of(f"n{i}", {"w": np.float32([[i, 1]]), "s": np.float16(i)}, samples=1, capacity=1.0, variance=1.0)
        for i in range(9)
    )
    state = rule.step(started_like(rule, single), single)
    assert state.parameters["w"].dtype == np.float32
    assert state.parameters["w"].shape == (1, 2)
    assert state.parameters["s"].dtype == np.float16
    assert state.parameters["s"].shape == ()
    assert state.rounds == 1


def started_like(rule, round_):
    return rule.start(round_.contributions[0].tensors)


@by_name
def test_a_rule_is_a_frozen_document(rule):
    assert type(rule).model_validate(rule.document()) == rule


# --- mean and weights ------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@example(theta=np.full((3, 1), np.finfo(float).max))
@given(theta=any_stack)
def test_equal_weights_give_the_mean_of_any_finite_numbers(theta):
    mean = weighted_mean(theta, np.ones(len(theta)))
    for column, value in zip(theta.T, mean, strict=True):
        n, terms = len(column), [Fraction(term) for term in column.tolist()]
        exact, scale = sum(terms) / n, sum(map(abs, terms)) / n
        assert abs(Fraction(float(value)) - exact) <= 4 * Fraction(np.finfo(float).eps) * scale + n * Fraction(5e-324)
        assert column.min() <= value <= column.max()


def test_compensation_saves_what_plain_summation_loses():
    """10^16, then ten thousand ones, then -10^16: plain double summation in this order gives 0 for the ones."""
    column = np.concatenate([[1e16], np.ones(10_000), [-1e16]])[:, None]
    assert weighted_mean(column, np.ones(len(column)))[0] == 10_000 / 10_002


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e300, allow_subnormal=False), min_size=1, max_size=20).filter(lambda raw: max(raw) > 0))
def test_weights_sum_to_the_number_of_nodes(raw):
    assert math.fsum(normalised(raw)) == pytest.approx(len(raw), rel=4e-16 * len(raw))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=20), st.floats(0.01, 1))
def test_no_weight_exceeds_the_largest_share(raw, share):
    result = capped(normalised(raw), share)
    assert math.fsum(result) == pytest.approx(len(raw), rel=1e-12)
    assert np.all(result <= max(share, 1 / len(raw)) * len(raw) * (1 + 1e-12))
    assert np.all(np.diff(result[np.argsort(raw)]) >= -1e-12)


def test_the_three_weightings():
    round_ = round_of(np.zeros((3, 1)), [1, 2, 5])
    for weighting in ("samples", "capacity", "inverse-variance"):
        np.testing.assert_allclose(weights(round_, weighting), np.array([1, 2, 5]) * 3 / 8, rtol=1e-15)
    np.testing.assert_array_equal(weights(round_, "equal"), np.ones(3))


def test_inverse_variance_has_the_least_variance():
    """Var(sum w x / n) = sum w^2 v / n^2 is least, 1 / sum(1 / v), for w ~ 1 / v (Gauss-Markov)."""
    v = np.array([0.5, 1.0, 4.0])
    round_ = Round.of(Contribution.of(f"n{i}", {"w": np.zeros(1)}, variance=float(x)) for i, x in enumerate(v))
    w = weights(round_, "inverse-variance") / 3
    assert np.sum(w**2 * v) == pytest.approx(1 / np.sum(1 / v), rel=1e-14)


def test_a_missing_or_impossible_fact_names_the_node():
    contributions = [Contribution.of("a", {"w": np.ones(1)}, samples=3), Contribution.of("b", {"w": np.ones(1)}, samples=0)]
    with pytest.raises(InputError, match="node b: expected a positive, finite `samples`; got 0"):
        WeightedMean().combine(Round.of(contributions))
    with pytest.raises(InputError, match="node a: expected a positive, finite `variance`; got None"):
        WeightedMean(weighting="inverse-variance").combine(Round.of(contributions))


@pytest.mark.parametrize("raw", [[], [0.0, 0.0], [1.0, -1.0], [1.0, float("inf")]])
def test_impossible_weights_are_refused(raw):
    with pytest.raises(InputError, match="finite, not negative, not all zero"):
        normalised(raw)


# --- robust rules ----------------------------------------------------------------------------------------------

bad_values = st.floats(-1e308, 1e308, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(3, 10))
def test_median_and_trimmed_mean_stay_between_honest_values(data, n):
    f = data.draw(st.integers(0, (n - 1) // 2))
    honest = data.draw(hnp.arrays(np.float64, (n - f, 3), elements=reasonable))
    bad = data.draw(hnp.arrays(np.float64, (f, 3), elements=bad_values))
    round_ = round_of(np.concatenate([bad, honest])[data.draw(st.permutations(range(n)))])
    for rule in (CoordinateMedian(), TrimmedMean(bad=f)):
        value = rule.combine(round_)["w"]
        assert np.all(honest.min(axis=0) <= value), rule.name
        assert np.all(value <= honest.max(axis=0)), rule.name


def test_the_breakdown_point_is_sharp():
    """One bad node more than promised does move the answer: the bounds above are not vacuous."""
    theta = np.concatenate([np.full((3, 1), 1e9), np.zeros((2, 1))])
    assert CoordinateMedian().combine(round_of(theta))["w"][0] == 1e9
    assert TrimmedMean(bad=2).combine(round_of(theta))["w"][0] == 1e9
    assert TrimmedMean(bad=1).combine(round_of(theta[1:]))["w"][0] == 5e8
    assert WeightedMean().combine(round_of(theta[2:]))["w"][0] > 3e8


@settings(max_examples=60, deadline=None)
@given(data=st.data(), f=st.integers(0, 3), extra=st.integers(0, 3))
def test_krum_stays_within_reach_of_the_honest(data, f, extra):
    n = 2 * f + 3 + extra
    honest = data.draw(hnp.arrays(np.float64, (n - f, 2), elements=st.floats(-1, 1, width=32)))
    bad = data.draw(hnp.arrays(np.float64, (f, 2), elements=st.floats(-1e4, 1e4, width=32)))
    round_ = Round.of(
        Contribution.of(f"n{i}", {"w": row})
        for i, row in enumerate(np.concatenate([bad, honest])[data.draw(st.permutations(range(n)))])
    )
    chosen = Krum(bad=f).combine(round_)["w"]
    diameter = max(np.linalg.norm(a - b) for a in honest for b in honest)
    assert np.linalg.norm(honest - chosen, axis=1).min() <= reach(n, f) * diameter * (1 + 1e-9)


def test_krum_never_picks_an_outlier_however_large():
    honest = np.random.default_rng(1).normal(size=(7, 5))
    round_ = round_of(np.concatenate([np.full((2, 5), 1e308), honest]))
    assert not set(Krum(bad=2, keep=4).chosen(round_)) & {"n00", "n01"}


@pytest.mark.parametrize("scale", [0.0, 5e-324, 1e-300, 1e300])
def test_krum_at_every_scale(scale):
    theta = scale * np.array([[1.0], [2.0], [3.0], [4.0], [90.0]])
    assert Krum(bad=1).combine(round_of(theta))["w"][0] in theta[:4]


def test_krum_sees_small_differences_of_large_numbers():
    """At 10^8 with spread 10^-6 the Gram form |a|^2 + |b|^2 - 2ab has an error of about 1; differences have none."""
    theta = 1e8 + 1e-6 * np.array([[0.0], [0.2], [0.4], [0.5], [0.9], [40.0]])
    assert Krum(bad=1).chosen(round_of(theta)) == ("n01",)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (TrimmedMean(bad=2), "more than 4 contributions to bear 2 bad nodes; got 4"),
        (Krum(bad=1), "at least 5 contributions for bad = 1, keep = 1; got 4"),
        (Krum(bad=0, keep=3), "at least 5 contributions for bad = 0, keep = 3; got 4"),
    ],
)
def test_too_few_nodes_are_refused(rule, said):
    with pytest.raises(InputError, match=said):
        rule.combine(round_of(np.zeros((4, 1))))


# --- FedProx and FedOpt ----------------------------------------------------------------------------------------


def test_the_proximal_gradient_is_that_of_the_proximal_term():
    rng = np.random.default_rng(3)
    theta, reference = ({"w": rng.normal(size=4), "b": rng.normal(size=2)} for _ in range(2))
    gradient = proximal_gradient(theta, reference, 0.3)
    h = 1e-6
    for name, i in (("w", 1), ("b", 0)):
        up, down = ({k: v.copy() for k, v in theta.items()} for _ in range(2))
        up[name][i] += h
        down[name][i] -= h
        slope = (proximal_term(up, reference, 0.3) - proximal_term(down, reference, 0.3)) / (2 * h)
        assert slope == pytest.approx(gradient[name][i], abs=1e-9)  # round-off eps / h
    with pytest.raises(InputError, match="a difference in b"):
        proximal_term({"w": theta["w"]}, reference, 1.0)


def test_fedprox_with_a_strong_term_keeps_nodes_home():
    """Node i minimises (theta - a_i)^2 / 2 + mu (theta - theta_0)^2 / 2, at (a_i + mu theta_0) / (1 + mu)."""
    mu, theta0, targets = 3.0, 1.0, [2.0, 4.0]
    theta = [theta0, theta0]
    for _ in range(200):
        theta = [
            t - 0.1 * ((t - a) + float(proximal_gradient({"w": np.array(t)}, {"w": np.array(theta0)}, mu)["w"]))
            for t, a in zip(theta, targets, strict=True)
        ]
    np.testing.assert_allclose(theta, [(a + mu * theta0) / (1 + mu) for a in targets], rtol=1e-12)


def test_fedavgm_without_momentum_at_rate_one_is_the_mean():
    round_ = round_of(np.arange(6.0).reshape(3, 2))
    rule = FedAvgM(beta=0.0)
    np.testing.assert_allclose(rule.step(started(rule, round_), round_).parameters["w"], [2.0, 3.0], rtol=1e-15)


@pytest.mark.parametrize(
    "rule", [FedAvgM(learning_rate=0.3), FedAdagrad(learning_rate=0.5), FedAdam(learning_rate=0.05), FedYogi(learning_rate=0.05)]
)
def test_the_servers_optimiser_finds_the_minimum(rule):
    """Nodes step down |theta - a_i|^2 / 2 by a tenth; the only fixed point is the mean of the a_i."""
    targets = np.array([[1.0, -2.0], [2.0, -1.0], [3.0, 0.0]])
    state = rule.start({"w": np.zeros(2)})
    for _ in range(600):
        local = [state.parameters["w"] - 0.1 * (state.parameters["w"] - a) for a in targets]
        state = rule.step(state, Round.of(Contribution.of(f"n{i}", {"w": x}, samples=1) for i, x in enumerate(local)))
    np.testing.assert_allclose(state.parameters["w"], targets.mean(axis=0), atol=0.02)
    assert state.rounds == 600


def test_one_step_of_each_by_hand():
    """theta 0, Delta 2: the formulas of the paper with numbers in."""
    round_ = Round.of([Contribution.of("a", {"w": np.array([2.0])}, samples=1)])
    v0, tau = 1e-6, 1e-3
    expected = {
        FedAdagrad(learning_rate=0.1): 0.1 * 2 / (math.sqrt(v0 + 4) + tau),
        FedAdam(): 0.01 * 0.2 / (math.sqrt(0.99 * v0 + 0.04) + tau),
        FedYogi(): 0.01 * 0.2 / (math.sqrt(v0 + 0.04) + tau),
        FedAvgM(learning_rate=0.5): 1.0,
    }
    for rule, value in expected.items():
        assert rule.step(rule.start({"w": np.zeros(1)}), round_).parameters["w"][0] == pytest.approx(value, rel=1e-14)


def test_the_old_state_is_left_as_it_was():
    rule = FedAdam()
    round_ = Round.of([Contribution.of("a", {"w": np.array([2.0])}, samples=1)])
    state = rule.start({"w": np.zeros(1)})
    rule.step(state, round_)
    assert state.parameters["w"][0] == 0.0
    assert state.moments["momentum"]["w"][0] == 0.0
    assert state.rounds == 0


def test_a_round_of_another_model_is_refused():
    rule = FedAdam()
    state = rule.start({"w": np.zeros(2)})
    with pytest.raises(InputError, match=r"node a, tensor w: expected float64\[2\]; got float64\[1\]"):
        rule.step(state, Round.of([Contribution.of("a", {"w": np.ones(1)}, samples=1)]))


def test_a_diverging_server_says_so():
    rule = FedAvgM(learning_rate=1e300)
    round_ = Round.of([Contribution.of("a", {"w": np.array([1e30])}, samples=1)])
    with pytest.raises(InputError, match="tensor w: expected finite float64; got an overflow"):
        rule.step(rule.start({"w": np.zeros(1)}), round_)
