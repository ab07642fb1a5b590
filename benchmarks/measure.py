"""What benchmarks share: the result they print, interleaved rounds, and a memory triad that tells a disturbed machine."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

DISTURBED = 0.10  # a triad that drops by more voids a run


@dataclass(frozen=True)
class Result:
    """One benchmark's outcome. `peer` is None where the peer is not installed; `valid` is false on a disturbed machine."""

    name: str
    ours: float
    peer: float | None
    peer_version: str | None
    unit: str
    ratio: float | None
    target: float
    triad_before: float
    triad_after: float
    valid: bool


def triad(rounds: int = 5) -> float:
    """Memory bandwidth of a = b + 3 c on arrays far beyond the caches, GB/s; the best of a few rounds."""
    b, c = np.ones(10_000_000), np.ones(10_000_000)
    a, best = np.empty_like(b), 0.0
    for _ in range(rounds):
        start = time.perf_counter()
        np.multiply(c, 3.0, out=a)
        np.add(a, b, out=a)
        best = max(best, 5 * b.nbytes / (time.perf_counter() - start) / 1e9)
    return best


def peers_python() -> Path | None:
    """The Python that has the peers: of the environment ``$MANYBODY_PEERS``, by default ``.venv/peers``; None without one."""
    python = Path(os.environ.get("MANYBODY_PEERS", ".venv/peers")) / "bin" / "python"
    return python if python.exists() else None


def compare(
    name: str,
    unit: str,
    target: float,
    ours: Callable[[], float],
    peer: Callable[[], float] | None,
    version: str | None,
    rounds: int,
    lower_is_better: bool = False,
) -> Result:
    """Medians of `rounds` rounds, ours and the peer's in turn, after one of each to warm up.

    The ratio is ours to the peer's, or the other way round where lower is better: above 1, ours is better.
    """
    before = triad()
    mine: list[float] = []
    theirs: list[float] = []
    for turn in range(rounds + 1):
        mine.append(ours())
        if peer is not None:
            theirs.append(peer())
        if turn == 0:
            mine.clear()
            theirs.clear()
    after = triad()
    own, other = statistics.median(mine), statistics.median(theirs) if theirs else None
    ratio = (other / own if lower_is_better else own / other) if other else None
    valid = after >= (1 - DISTURBED) * before
    return Result(name, own, other, version if other else None, unit, ratio, target, before, after, valid)


def beside_limit(result: Result, name: str, limit: float) -> Result:
    """The same measurement beside a limit that it must not fall below."""
    return replace(result, name=name, peer=limit, peer_version="the limit", ratio=result.ours / limit, target=1.0)
