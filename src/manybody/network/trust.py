"""Trust is earned: how often a node's results are checked, what a disagreement means, and what is then redone.

Pure functions on values; the ledger keeps the records, the coordinator asks. The policy, in one paragraph: every result
has a few of its segments recomputed from its own checkpoints by other nodes (*spot checks*, blind: the verifier gives
its answer without having seen the one it is held against). A result of a node with little behind it is recomputed whole
(*replicated*), with a chance that falls as its record grows. In a disagreement further nodes recompute that segment until
one answer leads; whoever gave another is *caught*. What a caught node computed is redone elsewhere, and what it vouched
for is checked again. `manybody.network.assurance` has the chance that a false result passes nevertheless.

Where the segments of a chain are tasks of their own, a result is one segment: there is nothing to check in part, so the
share `spot` of such results is the least that is replicated.

Keys must come from a secret of the coordinator's: a node that can predict which segments are checked need compute only
those.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import Field, ValidationError
from scipy.special import betaln

from manybody.core.catalog import suggest
from manybody.core.errors import InputError, Problem
from manybody.core.random import Key
from manybody.core.spec import Spec


class Prior(Spec):
    """What is believed of a node before it has done anything.

    It is bad with probability `bad`; a bad one gets each segment wrong with a chance s of its own, distributed as
    Beta(a, b). The default, a = 1/2 and b = 1, puts weight on both ends: nodes that are wrong always, and nodes that are
    wrong rarely, which are the ones that take long to find.
    """

    bad: float = Field(0.1, gt=0, lt=1, description="chance that an unknown node is bad")
    a: float = Field(0.5, gt=0, description="first shape of the Beta distribution of a bad node's fault rate a segment")
    b: float = Field(1.0, gt=0, description="second shape")

    def still_bad(self, agreed: Any) -> Any:
        """P(bad | m segments agreed, none not) = pi E[(1-s)^m] / (pi E[(1-s)^m] + 1 - pi).  agreed m: number or array."""
        passing = self.bad * np.exp(betaln(self.a, self.b + np.asarray(agreed, dtype=float)) - betaln(self.a, self.b))
        return passing / (passing + 1.0 - self.bad)

    def next_false(self, agreed: Any, segments: int) -> Any:
        """The chance that the next result, of `segments` segments, has a wrong one, given m that agreed and none not."""
        m = np.asarray(agreed, dtype=float)
        return self.still_bad(m) * -np.expm1(betaln(self.a, self.b + m + segments) - betaln(self.a, self.b + m))


class TrustPolicy(Spec):
    """How much is checked. The defaults are those that `docs/network-trust.md` reports on."""

    prior: Prior = Prior()
    spot: float = Field(0.1, ge=0, le=1, description="share of segments checked of every result; at least one of several is")
    tolerated: float = Field(0.05, gt=0, description="chance of a false next result at which half the results are replicated")
    margin: int = Field(2, ge=1, description="lead with which an answer wins a disagreement")
    arbiter: bool = Field(True, description="whether the coordinator's own machine decides where nodes are too few")

    def replication(self, agreed: Any, segments: int) -> Any:
        """The chance that a result is recomputed whole: q / (q + tolerated), q = `Prior.next_false`.  Number or array.

        Never below `spot` for a result of one segment, of which nothing less can be checked.
        """
        q = self.prior.next_false(agreed, segments)
        chance = q / (q + self.tolerated)
        return np.maximum(self.spot, chance) if segments == 1 else chance

    def spots(self, segments: int) -> float:
        """Expected number of segments checked of a result that is not replicated."""
        return 0.0 if segments == 1 else min(float(segments), max(1.0, self.spot * segments))


def parse_policy(text: str) -> TrustPolicy | None:
    """A policy from words: `off` (None), `default`, or settings such as ``spot=0.2,margin=3``; `bad` is that of the prior.

    Raises `InputError` for a name that is none, with the closest known one, and for a value that does not fit.
    """
    if text.strip() in ("off", "default"):
        return None if text.strip() == "off" else TrustPolicy()
    known = [*(name for name in TrustPolicy.model_fields if name != "prior"), "bad"]
    asked: dict[str, Any] = {}
    for setting in text.split(","):
        name, sign, value = (part.strip() for part in setting.partition("="))
        if not sign or name not in known:
            remedy = suggest(name, ["off", "default", *known]) if not sign else suggest(name, known)
            raise InputError(Problem("--trust", "`off`, `default`, or settings such as `spot=0.2`", f"`{setting}`", remedy))
        asked[name] = value
    prior = {"prior": {"bad": asked.pop("bad")}} if "bad" in asked else {}
    try:
        return TrustPolicy.model_validate(asked | prior)
    except ValidationError as error:
        raise InputError(*(_misfit(found) for found in error.errors(include_url=False))) from error


def _misfit(found: Any) -> Problem:
    """What is wrong with the value of a setting."""
    name = str(found["loc"][-1])
    field = (TrustPolicy if name in TrustPolicy.model_fields else Prior).model_fields[name]
    return Problem(f"--trust {name}", f"{field.description}", f"`{found['input']}`", f"{found['msg']}.")


@dataclass(frozen=True)
class NodeRecord:
    """What is known of a node: a value that the ledger keeps.

    `agreed` counts segments of its work (as the one who computed or as verifier) that another node recomputed to the same
    answer since it was last caught. `results` counts its results; `caught` how often it was.
    """

    node: str
    agreed: int = 0
    results: int = 0
    caught: int = 0

    def with_result(self) -> NodeRecord:
        """The record after the node has given a result."""
        return replace(self, results=self.results + 1)

    def with_agreement(self, segments: int = 1) -> NodeRecord:
        """The record after `segments` of the node's segments were found right."""
        return replace(self, agreed=self.agreed + segments)

    def with_fault(self) -> NodeRecord:
        """The record of a node that was caught: nothing speaks for it any more."""
        return replace(self, agreed=0, caught=self.caught + 1)


@dataclass(frozen=True)
class Decision:
    """What happens with a result: recomputed whole elsewhere, or accepted once its spot checks agree."""

    replicate: bool
    segments: tuple[int, ...]
    chance: float

    @property
    def cost(self) -> int:
        """How many segments others recompute."""
        return len(self.segments)


def decide(record: NodeRecord, key: Key, segments: int, policy: TrustPolicy | None = None) -> Decision:
    """Whether to replicate or to accept a result of a node, and which segments to recompute.

    `key` is the coordinator's secret key of this attempt; `segments` is how many stretches between checkpoints the result
    has (1: it is replicated or not checked). `Decision.chance` is the chance there was of replicating.
    """
    if segments < 1:
        raise InputError(Problem(f"node {record.node}", "a result of at least one segment", f"{segments}", "Store checkpoints."))
    policy = policy or TrustPolicy()
    generator = key.derive("trust").generator()
    chance = float(policy.replication(record.agreed, segments))
    if generator.random() < chance:
        return Decision(True, tuple(range(segments)), chance)
    spots = policy.spots(segments)
    count = math.floor(spots) + int(generator.random() < spots - math.floor(spots))
    chosen = generator.choice(segments, size=count, replace=False)
    return Decision(False, tuple(sorted(int(segment) for segment in chosen)), chance)


def choose_verifiers(nodes: Iterable[str], avoid: Iterable[str], key: Key, count: int) -> tuple[str, ...]:
    """Who recomputes `count` segments: at random, none twice before all were asked, none of `avoid` (who computed it).

    A different verifier for each segment, so that one friend does not suffice.
    """
    candidates = sorted(set(nodes) - set(avoid))
    if not candidates:
        remedy = "Let another node join, or verify on the coordinator's machine."
        raise InputError(Problem("verification", "a node besides the one that computed", "none", remedy))
    generator = key.derive("verifiers").generator()
    rounds = [generator.permutation(len(candidates)) for _ in range(-(-count // len(candidates)))]
    return tuple(candidates[index] for index in np.concatenate(rounds)[:count]) if count else ()


def settle(answers: Mapping[str, Hashable], margin: int = 2) -> Hashable | None:
    """The answer that leads every other by `margin` votes, or None: then one more node must recompute the segment.

    `answers` maps nodes to what they found; equal values are answers that agree within the segment's tolerance (the
    caller groups them). A node that gave nothing usable is given a value of its own.
    """
    votes: dict[Hashable, int] = {}
    for answer in answers.values():
        votes[answer] = votes.get(answer, 0) + 1
    ranked = sorted(votes.items(), key=lambda item: -item[1])
    second = ranked[1][1] if len(ranked) > 1 else 0
    return ranked[0][0] if ranked and ranked[0][1] - second >= margin else None


def losers(answers: Mapping[str, Hashable], margin: int = 2) -> tuple[str, ...]:
    """The nodes whose answer lost, sorted; none while it is undecided."""
    winner = settle(answers, margin)
    return () if winner is None else tuple(sorted(node for node, answer in answers.items() if answer != winner))


@dataclass(frozen=True)
class Ruling:
    """What the answers to one question come to: whether it is settled, and which nodes lost."""

    settled: bool
    losers: tuple[str, ...] = ()


def rule(answers: Mapping[str, Hashable], drawn: bool, margin: int = 2, decisive: str | None = None) -> Ruling:
    """Whether the answers settle a question: one suffices unless it was `drawn` to be recomputed, two that agree always do.

    In a disagreement one must lead by `margin`, or be that of `decisive`, a node that is taken at its word.
    """
    values = set(answers.values())
    if decisive is not None and decisive in answers:
        return Ruling(True, tuple(sorted(node for node, answer in answers.items() if answer != answers[decisive])))
    if len(values) <= 1:
        return Ruling(len(answers) > 1 or (len(answers) == 1 and not drawn))
    lost = losers(answers, margin)
    return Ruling(bool(lost), lost)


@dataclass(frozen=True)
class Work:
    """An accepted result as the ledger tells of it: who computed it, and who recomputed it to the same answer.

    `checks` are (segment, verifier) of spot checks; `replicas` are nodes that recomputed all of it.
    """

    task: str
    node: str
    checks: tuple[tuple[int, str], ...] = ()
    replicas: tuple[str, ...] = ()


@dataclass(frozen=True)
class Redo:
    """What a caught node touched: tasks to compute again elsewhere, and checks (task, segment) to make again."""

    compute: tuple[str, ...]
    check: tuple[tuple[str, int], ...]


def redo(caught: Iterable[str], history: Sequence[Work]) -> Redo:
    """What must be done again once `caught` nodes are known, in the order of `history`.

    A result that a node not caught recomputed whole to the same answer stands on that replica. One whose computing node
    stands, but which a caught node vouched for, keeps its value and has those segments checked by somebody else.
    """
    bad = frozenset(caught)
    compute, check = [], []
    for work in history:
        sound = [replica for replica in work.replicas if replica not in bad]
        if work.node in bad and not sound:
            compute.append(work.task)
        elif not sound:
            check += [(work.task, segment) for segment, verifier in work.checks if verifier in bad]
            if work.replicas and not work.checks:  # every replica was a caught node's: nothing was verified
                compute.append(work.task)
    return Redo(tuple(compute), tuple(check))
