"""Segment checks of chaotic runs: two honest nodes drift apart, so what may differ is measured, not guessed.

A segment runs from one stored checkpoint to the next. Whoever recomputes it also measures how fast it amplifies small
differences, by a second run from a perturbed start or in single precision: a *probe*. Differences of honest nodes, which
start at round-off, grow by the same factor; the tolerance is that growth, at the upper end of its scatter over probes.
Probes of many nodes are pooled by median and median deviation, so that a liar cannot widen its own tolerance.

End states are compared only while that growth is linear. Beyond it a segment is too long to be checked this way, which
is said, and whole runs are compared by their observables (`observables_agree`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from manybody.core.certificate import Verdict
from manybody.core.errors import InputError, Problem
from manybody.core.task import Output

SINGLE_ROUND_OFF = 2.0**-24
DOUBLE_ROUND_OFF = 2.0**-53
SATURATION = 0.05  # of the spread of states: above, the growth of a difference is no longer exponential


@dataclass(frozen=True)
class Probe:
    """How a small difference grew over a segment: from `start` to `end`, in the same norm; `node` measured it.

    For a run in single precision beside one in double, `start` is the round-off that single precision adds.
    """

    start: float
    end: float
    node: str = ""


@dataclass(frozen=True)
class SegmentTolerance:
    """How far honest end states may differ; `value` None means that the segment cannot be checked, and `reason` why."""

    value: float | None
    reason: str
    growth: float = math.nan


def segment_tolerance(
    probes: Sequence[Probe], honest: float, spread: float, false_alarm: float = 1e-6, saturation: float = SATURATION
) -> SegmentTolerance:
    """tolerance = honest exp(median(g) + z s), g = log(end / start), s the scatter of g.

    `honest` is the difference that honest nodes have from the start on (round-off of a state, or of a few steps);
    `spread` the typical distance of unrelated states; `false_alarm` the chance with which an honest segment may fail.
    s is the median deviation of g, scaled to a normal one; z is Student's quantile for that many probes. At least
    three probes are needed.
    """
    usable = [p for p in probes if 0 < p.start < math.inf and 0 <= p.end < math.inf]
    if len(usable) < 3 or not (0 < honest < math.inf and 0 < spread < math.inf):
        came = f"{len(usable)} of {len(probes)}, honest = {honest:g}, spread = {spread:g}"
        remedy = "Measure more probes from perturbed starts."
        raise InputError(Problem("segment tolerance", "three probes, and positive differences", came, remedy))
    if np.median([probe.end for probe in usable]) > saturation * spread:
        return SegmentTolerance(None, "the probes have left the range of linear growth; store checkpoints more often")
    growths = np.log([max(probe.end, probe.start * 1e-12) / probe.start for probe in usable])
    centre = float(np.median(growths))
    scatter = 1.4826 * float(np.median(np.abs(growths - centre)))
    z = float(student.isf(false_alarm, len(usable) - 1))
    log_growth = max(0.0, centre + z * scatter)  # what contracts may still differ by the round-off of its last step
    if log_growth > math.log(saturation * spread / honest):
        return SegmentTolerance(None, "honest differences may reach the size of the state; store checkpoints more often")
    growth = math.exp(log_growth)
    reason = (
        f"{honest:.2g} of round-off, grown {growth:.2g} times (upper end of {len(usable)} probes, false alarm {false_alarm:g})"
    )
    return SegmentTolerance(float(honest * growth), reason, growth)


def state_distance(claimed: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> float:
    """The largest absolute difference of any value; infinite for other names, shapes, or numbers that are not finite."""
    if claimed.keys() != found.keys() or any(claimed[k].shape != found[k].shape for k in found):
        return math.inf
    largest = 0.0
    for name in found:
        a, b = claimed[name].astype(np.float64), found[name].astype(np.float64)
        if not (np.all(np.isfinite(a)) and np.all(np.isfinite(b))):
            return math.inf
        largest = max(largest, float(np.max(np.abs(a - b), initial=0.0)))
    return largest


def check_segment(claimed: Output, found: Output, tolerance: SegmentTolerance) -> Verdict:
    """Whether the end state that a node claimed is the one that a verifier found, within the tolerance."""
    distance = state_distance(claimed.arrays, found.arrays)
    if math.isinf(distance):
        return Verdict.FAILS
    if distance == 0.0:
        return Verdict.HOLDS
    if tolerance.value is None:
        return Verdict.UNDECIDED
    return Verdict.HOLDS if distance <= tolerance.value else Verdict.FAILS


def observables_agree(one: tuple[float, float], other: tuple[float, float], false_alarm: float = 1e-3) -> Verdict:
    """Whether two runs measured the same: |a - b| <= z sqrt(s_a^2 + s_b^2), each given as (value, standard error)."""
    if not all(math.isfinite(number) for number in (*one, *other)) or min(one[1], other[1]) < 0:
        return Verdict.FAILS
    z = float(norm.isf(false_alarm / 2))
    return Verdict.HOLDS if abs(one[0] - other[0]) <= z * math.hypot(one[1], other[1]) else Verdict.FAILS
