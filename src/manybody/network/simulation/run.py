"""Run a policy on a simulated network, once or over many seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t as student

from manybody.core.random import Key
from manybody.network.simulation.ours import run_ours
from manybody.network.simulation.population import Network, Outcome, Population, Rule
from manybody.network.simulation.quorum import run_boinc, run_quorum, run_single
from manybody.network.trust import TrustPolicy


def simulate(rule: Rule, population: Population, key: Key, policy: TrustPolicy | None = None) -> Outcome:
    """One run of all the work under a rule; the same key gives the same run."""
    network = Network(population, key.derive(rule))
    outcome = Outcome(rule, population.nodes * population.results)
    match rule:
        case "none":
            return run_single(network, outcome)
        case "quorum":
            return run_quorum(network, outcome)
        case "boinc":
            return run_boinc(network, outcome)
        case "ours":
            return run_ours(network, outcome, policy or TrustPolicy())


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % confidence interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Student's interval. Where all values are equal it has no width, and says nothing of what was never seen."""
        n, mean = len(values), math.fsum(values) / len(values)
        if n < 2:
            return cls(mean, mean, mean)
        variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
        half = float(student.ppf(0.975, n - 1)) * math.sqrt(variance / n)
        return cls(mean, max(0.0, mean - half), mean + half)


def escape_interval(outcomes: Sequence[Outcome]) -> Interval:
    """The share of false results that stand in the end: pooled over seeds, with the interval over seeds.

    False results of one node pass together, so results are not independent and seeds are what is counted. Where none
    stood in any of n seeds the interval is (0, 0), and what is known is only that the chance of a seed with one is below
    3 / n with 95 % confidence (rule of three); `assurance.assure` has the expectation.
    """
    n, given = len(outcomes), math.fsum(outcome.false_given for outcome in outcomes)
    if given == 0:
        return Interval(0.0, 0.0, 0.0)
    ratio = math.fsum(outcome.false_accepted for outcome in outcomes) / given
    # The ratio estimator's scatter is that of (accepted - ratio given) / mean given (Cochran, Sampling Techniques, ch. 6).
    spread = Interval.of([ratio + (o.false_accepted - ratio * o.false_given) * n / given for o in outcomes])
    return Interval(ratio, spread.low, min(1.0, spread.high))
