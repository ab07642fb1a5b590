"""The simulated nodes: good ones, and bad ones that are lazy, flip bits, are off by one per cent, collude, or turn.

An answer is a number: 0 the truth; 1 the common error of nodes that are off by one per cent, which agree with one
another; 2 the lie that colluders agree on; `GARBAGE` an answer that equals no other, not even itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, TypeAlias

import numpy as np
from pydantic import Field, model_validator

from manybody.core.random import Key
from manybody.core.spec import Spec, refuse
from manybody.network.trust import settle

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Rule = Literal["none", "quorum", "boinc", "ours"]

TRUTH, OFF, LIE, GARBAGE = 0, 1, 2, 9


class Kind(IntEnum):
    """What a node is."""

    GOOD = 0
    LAZY = 1
    FLIPS = 2
    OFF = 3
    COLLUDING = 4
    TURNING = 5


class Population(Spec):
    """The nodes and the work. Bad nodes are of the five kinds in equal shares.

    The rates are those of false results. Lazy nodes, those off by one per cent and those that turned get every segment of
    a false result wrong; bit flips one of them, at random; colluders `lie_segments` of them.
    """

    nodes: int = Field(1000, ge=10)
    bad: float = Field(0.1, ge=0, lt=0.5, description="share of nodes that are bad")
    results: int = Field(300, ge=1, description="results that the work needs, a node")
    segments: int = Field(20, ge=1, le=62, description="segments of a result")
    lazy: float = Field(0.5, gt=0, le=1, description="share of results that a lazy node makes up")
    flips: float = Field(0.2, gt=0, le=1, description="share of results in which a bad memory flips a bit that matters")
    lies: float = Field(0.2, gt=0, le=1, description="share of results that colluders falsify")
    lie_segments: int = Field(20, ge=1, description="segments that colluders falsify in such a result")
    turns_after: int = Field(
        50, ge=0, description="least good results before a turning node turns; drawn from there to `results`"
    )
    mix: tuple[Kind, ...] = Field((Kind.LAZY, Kind.FLIPS, Kind.OFF, Kind.COLLUDING, Kind.TURNING), min_length=1)
    transient: float = Field(0.0, ge=0, lt=1, description="chance that a good node's result has one wrong segment")

    @model_validator(mode="after")
    def _lie_fits(self) -> Population:
        if self.lie_segments > self.segments:
            refuse("lie_segments", f"at most {self.segments} segments", f"{self.lie_segments}", "Lower it.")
        return self

    def kinds(self) -> Array:
        """The kind of every node, [nodes]."""
        kinds = np.full(self.nodes, Kind.GOOD)
        count = round(self.bad * self.nodes)
        kinds[:count] = np.array(self.mix)[np.arange(count) % len(self.mix)]
        return kinds


@dataclass
class Outcome:
    """What a simulated run came to. `computed` is in whole results.

    `false_at_first` counts false results that passed their first checks; `false_accepted` those that stand in the end,
    after what caught nodes touched was redone.
    """

    rule: Rule
    tasks: int
    computed: float = 0.0
    false_given: int = 0
    false_accepted: int = 0
    false_at_first: int = 0
    good_caught: int = 0
    accepted_by_kind: dict[str, int] = field(default_factory=dict)
    given_by_kind: dict[str, int] = field(default_factory=dict)

    @property
    def escape(self) -> float:
        """False results accepted, of those that were given."""
        return self.false_accepted / self.false_given if self.false_given else 0.0

    @property
    def share(self) -> float:
        """False results accepted, of all that were accepted."""
        return self.false_accepted / self.tasks

    @property
    def cost(self) -> float:
        """Results computed for each that was needed; 1 without checks."""
        return self.computed / self.tasks


class Network:
    """The nodes of one run and their random numbers: what they answer when asked for a result or a segment."""

    def __init__(self, population: Population, key: Key) -> None:
        self.population = population
        self.random = key.derive("trust simulation").generator()
        self.kinds = population.kinds()
        self.active = np.ones(population.nodes, dtype=bool)
        self.agreed = np.zeros(population.nodes, dtype=np.int64)
        self.done = np.zeros(population.nodes, dtype=np.int64)
        last = max(population.results, population.turns_after + 1)
        self.turns = self.random.integers(population.turns_after, last, size=population.nodes)

    def results(self, nodes: Array) -> Array:
        """One result of each of `nodes`: the answer in every segment, [nodes, segments]."""
        p, kinds, n = self.population, self.kinds[nodes], len(nodes)
        draw = self.random.random(n)
        answers = np.zeros((n, p.segments), dtype=np.int8)
        one = self.random.integers(p.segments, size=n)
        answers[(kinds == Kind.LAZY) & (draw < p.lazy)] = GARBAGE
        answers[kinds == Kind.OFF] = OFF
        answers[(kinds == Kind.TURNING) & (self.done[nodes] >= self.turns[nodes])] = GARBAGE
        flipped = ((kinds == Kind.FLIPS) & (draw < p.flips)) | ((kinds == Kind.GOOD) & (draw < p.transient))
        answers[flipped, one[flipped]] = GARBAGE
        lying = (kinds == Kind.COLLUDING) & (draw < p.lies)
        answers[lying] = np.where((np.arange(p.segments) - one[lying, None]) % p.segments < p.lie_segments, LIE, TRUTH)
        np.add.at(self.done, nodes, 1)
        return answers

    def segment(self, verifiers: Array, claimed: Array) -> Array:
        """What `verifiers` find for segments where `claimed` stands, [checks]. Colluders back a lie; else they, and
        turning nodes always, verify honestly: they want to stay.
        """
        p, kinds = self.population, self.kinds[verifiers]
        draw = self.random.random(len(verifiers))
        answers = np.zeros(len(verifiers), dtype=np.int8)
        answers[(kinds == Kind.LAZY) & (draw < p.lazy)] = GARBAGE
        answers[(kinds == Kind.FLIPS) & (draw < p.flips / p.segments)] = GARBAGE
        answers[(kinds == Kind.GOOD) & (draw < p.transient / p.segments)] = GARBAGE
        answers[kinds == Kind.OFF] = OFF
        answers[(kinds == Kind.COLLUDING) & (claimed == LIE)] = LIE
        return answers

    def others(self, nodes: Array) -> Array:
        """For each of `nodes` a random active node that is another one."""
        pool = np.flatnonzero(self.active)
        chosen = pool[self.random.integers(len(pool), size=len(nodes))]
        while np.any(same := chosen == nodes):
            chosen[same] = pool[self.random.integers(len(pool), size=int(same.sum()))]
        return chosen


def agree(a: Array, b: Array) -> Array:
    """Whether answers agree; garbage agrees with nothing."""
    return np.asarray((a == b) & (a != GARBAGE))


def count_by_kind(table: dict[str, int], kinds: Array, false: Array) -> None:
    """Add false results to a table, by the kind of node that computed them.  kinds, false: [results]."""
    for kind in Kind:
        name = kind.name.lower()
        table[name] = table.get(name, 0) + int(false[kinds == kind].sum())


def settled(network: Network, votes: dict[int, int], margin: int, claimed: int) -> tuple[int, int]:
    """Ask more nodes until an answer leads by `margin`; returns it and how many were asked. `votes`: node to answer."""
    asked = 0
    while True:
        answers = {str(n): (("garbage", n) if a == GARBAGE else a) for n, a in votes.items()}
        winner = settle(answers, margin)
        pool = np.setdiff1d(np.flatnonzero(network.active), list(votes))
        if isinstance(winner, int) or len(pool) == 0:
            return int(winner) if isinstance(winner, int) else TRUTH, asked
        node = pool[network.random.integers(len(pool))]
        votes[int(node)] = int(network.segment(np.array([node]), np.array([claimed]))[0])
        asked += 1
