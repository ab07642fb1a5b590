"""What a split problem costs on the network at hand: figures that explain how long real rounds took there.

A round that dispatches n tasks, waits for w of them in turn, moves b bytes and advances c cell steps is expected to take
n dispatch + w latency + b / bandwidth + c / rate (`numerics.rounds.load`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
from scipy.optimize import nnls

from manybody.numerics.rounds import Costs, Load

UNSEEN = 100  # a term that does not show is taken for so many times cheaper than what would have shown


@dataclass(frozen=True)
class Timing:
    """What some rounds asked for, and the seconds that they took."""

    load: Load
    seconds: float


def fit(timings: Sequence[Timing], workers: int) -> Costs:
    """The costs that explain the timings best, none of them negative: least squares of relative deviations.

    Expects timings of at least three kinds of rounds that differ in waits, bytes and cell steps; raises ValueError where
    they leave these open. Dispatch shows only where there are rounds with more and with fewer tasks at a time.
    """
    seconds = np.array([timing.seconds for timing in timings])
    terms = np.array([astuple(timing.load)[:4] for timing in timings], dtype=np.float64)  # nothing is coded in a trial
    scale = np.maximum(terms.max(axis=0, initial=0.0), 1e-300)
    if np.linalg.matrix_rank(terms[:, 1:] / scale[1:]) < 3:
        raise ValueError("expected rounds that differ in waits, bytes and cell steps independently; add others")
    dispatch, latency, per_byte, per_cell = nnls(terms / scale / seconds[:, None], np.ones(len(seconds)))[0] / scale
    quickest = float(seconds.min())
    return Costs(
        dispatch_s=_short(dispatch),
        latency_s=_short(latency),
        bytes_per_s=_short(1 / per_byte if per_byte > 0 else UNSEEN * scale[2] / quickest),
        cell_steps_per_s=_short(1 / per_cell if per_cell > 0 else UNSEEN * scale[3] / quickest),
        workers=workers,
    )


def _short(value: float) -> float:
    """Three digits: more would only pretend."""
    return float(f"{value:.3g}")
