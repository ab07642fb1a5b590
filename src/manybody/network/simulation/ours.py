"""Our policy inside the simulation: spot checks on every result, replication by record, redo of what was touched."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from manybody.network.simulation.population import TRUTH, Array, Kind, Network, Outcome, agree, count_by_kind, settled
from manybody.network.trust import TrustPolicy


@dataclass
class _Book:
    """What the ledger would know of the simulated tasks."""

    segments: int
    answers: Array  # [tasks, segments]: what stands as the result
    producer: Array  # [tasks]; -1 while not computed
    replica: Array  # [tasks]; -1 where there is none
    checks: list[tuple[Array, Array, Array]] = field(default_factory=list)  # (task, segment, verifier), each [checks]


def run_ours(network: Network, outcome: Outcome, policy: TrustPolicy) -> Outcome:
    """All the work under our policy."""
    tasks, segments = outcome.tasks, network.population.segments
    book = _Book(segments, np.zeros((tasks, segments), dtype=np.int8), np.full(tasks, -1, np.int32), np.full(tasks, -1, np.int32))
    queue = np.arange(tasks)
    while len(queue):
        nodes = network.random.permutation(np.flatnonzero(network.active))[: len(queue)]
        batch, queue = queue[: len(nodes)], queue[len(nodes) :]
        _compute(network, outcome, book, batch, nodes)
        caught = _verify(network, outcome, book, batch, policy)
        passed = ~np.isin(nodes, caught)
        outcome.false_at_first += int(np.any(book.answers[batch[passed]] != TRUTH, axis=1).sum())
        while len(caught):
            network.active[caught] = False
            outcome.good_caught += int(np.sum(network.kinds[caught] == Kind.GOOD))
            again, recheck = _touched(book, caught)
            book.producer[again] = -1
            queue = np.concatenate([queue, again])
            caught = _check(network, outcome, book, *recheck, policy.margin)
    false = np.any(book.answers != TRUTH, axis=1)
    outcome.false_accepted = int(false.sum())
    count_by_kind(outcome.accepted_by_kind, network.kinds[book.producer], false)
    return outcome


def _compute(network: Network, outcome: Outcome, book: _Book, batch: Array, nodes: Array) -> None:
    answers = network.results(nodes)
    book.answers[batch], book.producer[batch], book.replica[batch] = answers, nodes, -1
    outcome.computed += len(nodes)
    false = np.any(answers != TRUTH, axis=1)
    outcome.false_given += int(false.sum())
    count_by_kind(outcome.given_by_kind, network.kinds[nodes], false)


def _verify(network: Network, outcome: Outcome, book: _Book, batch: Array, policy: TrustPolicy) -> Array:
    """Decide on new results as `trust.decide` does, and make the checks; returns the nodes that were caught."""
    nodes, segments, random = book.producer[batch], book.segments, network.random
    whole = random.random(len(batch)) < policy.replication(network.agreed[nodes], segments)
    spots = policy.spots(segments)
    counts = np.floor(spots) + (random.random(len(batch)) < spots - np.floor(spots))
    rank = np.argsort(np.argsort(random.random((len(batch), segments)), axis=1), axis=1)
    chosen = (rank < counts[:, None]) | whole[:, None]
    row, segment = np.nonzero(chosen)
    partners = network.others(nodes)
    verifiers = np.where(whole[row], partners[row], network.others(nodes[row]))
    book.replica[batch[whole]] = partners[whole]  # taken back where it does not agree
    return _check(network, outcome, book, batch[row], segment, verifiers, policy.margin)


def _check(network: Network, outcome: Outcome, book: _Book, task: Array, segment: Array, verifier: Array, margin: int) -> Array:
    """Recompute segments, settle what disagrees, and update the records; returns the nodes that were caught."""
    if len(task) == 0:
        return np.zeros(0, dtype=np.int64)
    producer = book.producer[task]
    verifier = np.where(verifier < 0, network.others(producer), verifier)
    claimed = book.answers[task, segment]
    found = network.segment(verifier, claimed)
    outcome.computed += len(task) / book.segments
    book.checks.append((task, segment, verifier))
    same = agree(claimed, found)
    np.add.at(network.agreed, producer[same], 1)
    np.add.at(network.agreed, verifier[same], 1)
    book.replica[task[~same]] = -1
    caught: set[int] = set()
    for index in np.flatnonzero(~same):
        p, v = int(producer[index]), int(verifier[index])
        if p in caught:
            continue  # all of its work is redone already
        votes = {p: int(claimed[index]), v: int(found[index])}
        winner, asked = settled(network, votes, margin, int(claimed[index]))
        outcome.computed += asked / book.segments
        caught |= {node for node, answer in votes.items() if answer != winner}
    return np.array(sorted(caught), dtype=np.int64)


def _touched(book: _Book, caught: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    """What `trust.redo` names: tasks to compute again, and checks to make again (with the verifier left open, -1)."""
    sound = (book.replica >= 0) & ~np.isin(book.replica, caught)
    again = np.flatnonzero(np.isin(book.producer, caught) & ~sound)
    parts = []
    kept = []
    for task, segment, verifier in book.checks:
        voided = np.isin(verifier, caught)
        stands = (book.producer[task] >= 0) & ~np.isin(book.producer[task], caught) & ~sound[task]
        parts.append((task[voided & stands], segment[voided & stands]))
        keep = ~voided
        kept.append((task[keep], segment[keep], verifier[keep]))
    book.checks[:] = [
        (np.concatenate([k[0] for k in kept]), np.concatenate([k[1] for k in kept]), np.concatenate([k[2] for k in kept]))
    ]
    task, segment = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return again, (task, segment, np.full(len(task), -1, dtype=np.int64))
