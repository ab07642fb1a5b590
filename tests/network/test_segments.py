"""Segment checks on a chaotic system: honest nodes pass though they drift apart, others do not."""

import math

import numpy as np
import pytest

from manybody.core.certificate import Verdict
from manybody.core.errors import InputError
from manybody.core.task import Output
from manybody.network.segments import (
    DOUBLE_ROUND_OFF,
    SINGLE_ROUND_OFF,
    Probe,
    check_segment,
    observables_agree,
    segment_tolerance,
    state_distance,
)

SITES, FORCING, DT = 40, 8.0, 0.01
SPREAD = 3.6  # standard deviation of Lorenz-96 at forcing 8


def rate(x, order):
    """Lorenz-96, dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F; `order` adds the terms in another order."""
    up, down, down2 = np.roll(x, -1, -1), np.roll(x, 1, -1), np.roll(x, 2, -1)
    if order:
        return x.dtype.type(FORCING) + (up * down - down2 * down) - x
    return (up - down2) * down - x + x.dtype.type(FORCING)


def advance(x, steps, order=0):
    """Fourth-order Runge-Kutta, in the precision of `x`."""
    h = x.dtype.type(DT)
    for _ in range(steps):
        k1 = rate(x, order)
        k2 = rate(x + h / 2 * k1, order)
        k3 = rate(x + h / 2 * k2, order)
        k4 = rate(x + h * k3, order)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def checkpoints(count, seed=0):
    """States on the attractor, [count, SITES]."""
    return advance(FORCING + np.random.default_rng(seed).normal(size=(count, SITES)), 500)


def probes(states, steps, kind, seed=1):
    end = advance(states, steps)
    if kind == "perturbed":
        kick = np.random.default_rng(seed).normal(size=states.shape)
        kick *= 1e-9 / np.abs(kick).max(axis=1, keepdims=True)
        apart = np.abs(advance(states + kick, steps) - end).max(axis=1)
        return [Probe(1e-9, float(distance)) for distance in apart]
    apart = np.abs(advance(states.astype(np.float32), steps).astype(float) - end).max(axis=1)
    return [Probe(SINGLE_ROUND_OFF * np.abs(x).max(), float(d)) for x, d in zip(states, apart, strict=True)]


@pytest.mark.parametrize("kind", ["perturbed", "precisions"])
def test_honest_nodes_pass_and_bad_ones_do_not(kind):
    steps = 200  # two time units, e^3.4 by the largest Lyapunov exponent, 1.68
    states = checkpoints(12)
    tolerance = segment_tolerance(probes(states, steps, kind), honest=10 * DOUBLE_ROUND_OFF * np.abs(states).max(), spread=SPREAD)
    assert tolerance.value is not None
    assert tolerance.value < 1e-6
    for claimed, found in zip(advance(states, steps, order=1), advance(states, steps), strict=True):
        assert state_distance({"x": claimed}, {"x": found}) > 0.0
        assert check_segment(Output({"x": claimed}), Output({"x": found}), tolerance) == Verdict.HOLDS
        flipped = claimed.copy()
        bits = flipped.view(np.uint64)
        bits[7] ^= np.uint64(1 << 40)
        for wrong in (claimed * 1.01, flipped, np.zeros(SITES), claimed * np.nan, claimed[:-1]):
            assert check_segment(Output({"x": wrong}), Output({"x": found}), tolerance) == Verdict.FAILS


def test_a_segment_that_is_too_long_is_undecided_not_passed():
    steps = 1200
    states = checkpoints(3)
    tolerance = segment_tolerance(probes(states, steps, "perturbed"), honest=1e-14, spread=SPREAD)
    assert tolerance.value is None
    assert "more often" in tolerance.reason
    claimed, found = Output({"x": advance(states[0], steps, order=1)}), Output({"x": advance(states[0], steps)})
    assert check_segment(claimed, found, tolerance) == Verdict.UNDECIDED
    assert check_segment(found, found, tolerance) == Verdict.HOLDS


def test_a_liar_cannot_widen_its_tolerance():
    """A third of the probes forged moves the median and its deviation a little; the mean would move by orders."""
    honest = [Probe(1e-9, 1e-9 * math.exp(g)) for g in np.random.default_rng(2).normal(3.4, 0.3, size=20)]
    fair = segment_tolerance(honest, 1e-15, 1.0).value
    forged = segment_tolerance([*honest, *[Probe(1e-9, 0.04)] * 8], 1e-15, 1.0).value
    assert forged < 1e3 * fair
    assert forged < 1e-9


def test_the_tolerance_of_known_growth():
    """Probes without scatter: the tolerance is the honest difference times the growth, no more."""
    assert segment_tolerance([Probe(1e-8, 1e-5)] * 5, 1e-15, 1.0).value == pytest.approx(1e-12, rel=1e-12)
    assert segment_tolerance([Probe(1e-8, 1e-12)] * 5, 1e-15, 1.0).value == 1e-15
    assert segment_tolerance([Probe(1e-8, 0.0)] * 5, 1e-15, 1.0).value == 1e-15


def test_false_alarms_are_as_rare_as_asked():
    """Growth lognormal, 12 probes, 1 % asked: the median deviation is a noisy scale, so up to three times as many."""
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(800):
        g = rng.normal(4.0, 0.5, size=13)
        tolerance = segment_tolerance([Probe(1e-9, 1e-9 * math.exp(x)) for x in g[:12]], 1e-15, 1.0, false_alarm=0.01)
        alarms += 1e-15 * math.exp(g[12]) > tolerance.value
    assert alarms / 800 < 0.03


@pytest.mark.parametrize("found", [[], [Probe(1e-9, 1e-8)] * 2, [Probe(0.0, 1.0), Probe(1.0, math.nan), Probe(1.0, math.inf)]])
def test_too_few_probes_are_refused(found):
    with pytest.raises(InputError, match="three probes"):
        segment_tolerance(found, 1e-15, 1.0)


def test_states_of_other_names_are_infinitely_far():
    assert state_distance({"x": np.ones(2)}, {"y": np.ones(2)}) == math.inf
    assert state_distance({}, {}) == 0.0


def test_observables_of_whole_runs():
    """Means of one distribution agree but for the stated share of alarms; one per cent off is found at 0.1 % errors."""
    rng = np.random.default_rng(9)
    pairs = [((a, 1.0), (b, 1.0)) for a, b in rng.normal(size=(4000, 2))]
    alarms = sum(observables_agree(*pair, false_alarm=0.01) == Verdict.FAILS for pair in pairs)
    assert abs(alarms - 40) < 3 * math.sqrt(40)
    assert observables_agree((1.0, 0.001), (1.01, 0.001)) == Verdict.FAILS
    assert observables_agree((1.0, 0.001), (math.nan, 0.001)) == Verdict.FAILS
