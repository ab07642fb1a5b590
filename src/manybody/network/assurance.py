"""What checking is worth: the chance that a false result passes, and what the checks cost. Closed forms.

A result has S segments, of which f are wrong; c of them are recomputed by others. A wrong one that is recomputed is
noticed unless its verifier is a friend of the liar's, which has the chance g. A node that is caught once has all of its
results redone, so a false result stands in the end only if none of that node's was ever noticed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from pydantic import Field

from manybody.core.spec import Spec
from manybody.network.trust import TrustPolicy

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


_LONGEST_RECORD = 1000  # agreed segments; beyond, the chance of a replica is below one in a thousand and hardly falls


def chance_passes(segments: int, wrong: int, checked: int, friends: float = 0.0) -> float:
    """The chance that a result with `wrong` of `segments` segments wrong passes `checked` spot checks.

    sum_h C(f, h) C(S - f, c - h) / C(S, c) g^h: h of the wrong segments are drawn, and each of their verifiers is a
    friend (chance g). Without friends it is C(S - f, c) / C(S, c).
    """
    if not 0 <= wrong <= segments or not 0 <= checked <= segments:
        raise ValueError(f"expected wrong and checked segments within 0 .. {segments}; got {wrong} and {checked}")
    total = math.comb(segments, checked)
    return math.fsum(
        math.comb(wrong, hit) * math.comb(segments - wrong, checked - hit) / total * friends**hit
        for hit in range(min(wrong, checked) + 1)
    )


class Fault(Spec):
    """How a bad node is wrong: how often, in how many segments, and how likely a verifier is to back it.

    `as_verifier` says whether it is as wrong, segment by segment, when it verifies others; that gives it away, too.
    """

    label: str
    rate: float = Field(gt=0, le=1, description="share of the node's results that are false")
    wrong: int = Field(ge=1, description="wrong segments of a false result")
    friends: float = Field(0.0, ge=0, le=1, description="chance that a verifier backs the wrong answer")
    as_verifier: bool = False


def standard_faults(segments: int, bad: float = 0.1) -> tuple[Fault, ...]:
    """The faults that an assurance is given for; colluders are a fifth of the bad nodes."""
    return (
        Fault(label="made up, half of the results", rate=0.5, wrong=segments, as_verifier=True),
        Fault(label="all off by one per cent", rate=1.0, wrong=segments, friends=bad / 5, as_verifier=True),
        Fault(label="false by agreement, a fifth of the results", rate=0.2, wrong=segments, friends=bad / 5),
        Fault(label="one segment wrong in a fifth of the results", rate=0.2, wrong=1, as_verifier=True),
    )


@dataclass(frozen=True)
class Course:
    """How nodes of one kind fare from result to result, in expectation.

    `large` [results + 1]: the chance of not having been caught after 0, 1, .. results; `replicated` [results]: the chance
    that a result is replicated, if it is still given; `passes` [results]: the chance that a false one passes its checks.
    """

    large: Array
    replicated: Array
    passes: Array


def _passes_spots(fault: Fault, segments: int, policy: TrustPolicy) -> float:
    """The chance that a false result passes spot checks: of their expected number, rounded at random as in `decide`."""
    spots = policy.spots(segments)
    low = min(math.floor(spots), segments - 1)
    fewer, more = (chance_passes(segments, fault.wrong, count, fault.friends) for count in (low, low + 1))
    return (low + 1 - spots) * fewer + (spots - low) * more


def course(fault: Fault | None, results: int, segments: int, policy: TrustPolicy, asked: Array | None = None) -> Course:
    """The course of a node with a fault, or of a good one (None).

    A Markov chain over `NodeRecord.agreed`. With each result of its own, a node also verifies as much as is checked of
    good nodes: a whole replica with the chance `asked` [results] (that of the nodes themselves where it is None), and
    spots. A replica is one node's work, so one friend backs all of it.
    """
    chance = policy.replication(np.arange(_LONGEST_RECORD + 1), segments)
    spots, rate, friends, slip, spot_pass = round(policy.spots(segments)), 0.0, 0.0, 0.0, 1.0
    if fault is not None:
        rate, friends, spot_pass = fault.rate, fault.friends, _passes_spots(fault, segments, policy)
        slip = rate * fault.wrong / segments * (1.0 - friends) if fault.as_verifier else 0.0
    mass = np.zeros(len(chance))
    mass[0] = 1.0
    large, replicated, passes = np.ones(results + 1), np.zeros(results), np.zeros(results)
    for k in range(results):
        whole = mass * chance
        replicated[k] = whole.sum() / mass.sum()
        passes[k] = replicated[k] * friends + (1.0 - replicated[k]) * spot_pass
        own = _shift(whole * (1.0 - rate * (1.0 - friends)), segments)
        own += _shift((mass - whole) * (1.0 - rate * (1.0 - spot_pass)), spots)
        replica = replicated[k] if asked is None else asked[k]
        mass = replica * (1.0 - slip) ** segments * _shift(own, segments)
        mass += (1.0 - replica) * (1.0 - slip) ** policy.spots(segments) * _shift(own, spots)
        mass = np.maximum(mass, np.finfo(float).tiny)  # a certain catch leaves none, and its shares undefined
        large[k + 1] = min(1.0, float(mass.sum()))
    return Course(large, replicated, passes)


def _shift(mass: Array, by: int) -> Array:
    """The mass with every record `by` longer; what would be longer than the longest stays there."""
    moved = np.zeros_like(mass)
    moved[by:] = mass[: len(mass) - by]
    moved[-1] += mass[len(mass) - by :].sum()
    return moved


class Assurance(Spec):
    """What the checks of a run are worth, for its certificate."""

    fault: str
    at_first: float = Field(ge=0, le=1, description="chance that a false result of a node with this record passes its checks")
    in_the_end: float = Field(ge=0, le=1, description="share of false results that stand once caught nodes' work is redone")
    share: float = Field(ge=0, le=1, description="false results among all that stand, with the stated share of bad nodes")
    checks: float = Field(ge=0, description="extra cost of checks and replicas, over computing everything once")
    redone: float = Field(ge=0, description="extra cost of what caught nodes had computed")

    @property
    def extra_cost(self) -> float:
        """All extra cost, over computing everything once."""
        return self.checks + self.redone

    def claim(self) -> str:
        """The sentence that a certificate prints."""
        return (
            f"of false results ({self.fault}) {self.in_the_end:.2g} stand in the end, {self.at_first:.2g} pass their first "
            f"checks; {self.share:.2g} of all results are false; checks cost {self.checks:.1%} extra, redoing {self.redone:.1%}"
        )


def assure(results: int, segments: int, fault: Fault, policy: TrustPolicy | None = None, bad: float = 0.1) -> Assurance:
    """What checking `results` results a node, of `segments` segments each, is worth against one fault.

    `bad` is the share of nodes that have it. Only a node at large after all its results leaves false ones standing:
    in_the_end = E[false ones of nodes at large] / E[false ones given].
    """
    policy = policy or TrustPolicy()
    good = course(None, results, segments, policy)
    theirs = course(fault, results, segments, policy, good.replicated)
    # Among results that were not noticed, false ones are rarer than among those given.
    silent = np.maximum(1.0 - fault.rate + fault.rate * theirs.passes, np.finfo(float).tiny)
    standing = float(theirs.large[-1] * (fault.rate * theirs.passes / silent).sum())
    spots = policy.spots(segments) / segments
    return Assurance(
        fault=fault.label,
        at_first=float(np.average(theirs.passes, weights=theirs.large[:-1])),
        in_the_end=min(1.0, standing / (fault.rate * float(theirs.large[:-1].sum()))),
        share=min(1.0, bad * standing / results),
        checks=float(np.mean(good.replicated + (1.0 - good.replicated) * spots)),
        redone=bad * float(-np.diff(theirs.large) @ np.arange(1, results + 1)) / results,
    )


def assure_drawn(chances: Sequence[Sequence[float]], fault: Fault, checks: float, redone: float, bad: float = 0.1) -> Assurance:
    """What the checks of a run are worth that has been: of each node, the `chances` with which its results were recomputed.

    Results are of one segment. A node that gives a false one with the chance r stays at large with the probability
    L_k = prod_{j<k} (1 - r c_j (1 - g)) up to its k-th; g is that a verifier backs it. Of what it gives, r sum_k L_k is
    false; L_n sum_k r (1 - c_k (1 - g)) / (1 - r c_k (1 - g)) stands in the end. What a node's own checks of others give
    away is left out. `checks` and `redone` are what was spent, over computing everything once.
    """
    given, standing, passing, results = 0.0, 0.0, 0.0, 0
    for drawn in (np.asarray(each, dtype=float) for each in chances):
        seen = drawn * (1.0 - fault.friends)
        large = np.cumprod(1.0 - fault.rate * seen)
        before = np.concatenate([[1.0], large])[: len(seen)]
        given += fault.rate * float(before.sum())
        passing += fault.rate * float(before @ (1.0 - seen))
        silent = np.maximum(1.0 - fault.rate * seen, np.finfo(float).tiny)
        standing += float(large[-1] * (fault.rate * (1.0 - seen) / silent).sum()) if len(seen) else 0.0
        results += len(seen)
    return Assurance(
        fault=fault.label,
        at_first=min(1.0, passing / given) if given else 0.0,
        in_the_end=min(1.0, standing / given) if given else 0.0,
        share=min(1.0, bad * standing / results) if results else 0.0,
        checks=checks,
        redone=redone,
    )


def weakest_drawn(chances: Sequence[Sequence[float]], checks: float, redone: float, bad: float = 0.1) -> Assurance:
    """The assurance of a run that has been, against that standard fault of which most stands in the end."""
    found = (assure_drawn(chances, fault, checks, redone, bad) for fault in standard_faults(1, bad))
    return max(found, key=lambda a: a.in_the_end)


def weakest(results: int, segments: int, policy: TrustPolicy | None = None, bad: float = 0.1) -> Assurance:
    """The assurance against that standard fault of which most stands in the end: what a certificate should print."""
    return max(
        (assure(results, segments, fault, policy, bad) for fault in standard_faults(segments, bad)), key=lambda a: a.in_the_end
    )


def spot_for(aim: float, results: int, segments: int, fault: Fault, policy: TrustPolicy | None = None) -> TrustPolicy | None:
    """The policy that checks least and leaves no more than the share `aim` of false results standing in the end.

    `policy` gives everything but the share of segments checked, which is found to one per cent; None where even checking
    every segment of every result does not suffice (too many friends).
    """
    policy = policy or TrustPolicy()
    for percent in range(min(100, -(-100 // segments)), 101):  # below one segment of a result it is one
        found = policy.model_copy(update={"spot": percent / 100})
        if assure(results, segments, fault, found).in_the_end <= aim:
            return found
    return None
