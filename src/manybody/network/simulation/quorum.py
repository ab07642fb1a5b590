"""Whole results computed by others until two agree: quorum 2, and BOINC's adaptive replication."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from manybody.network.simulation.population import LIE, TRUTH, Array, Kind, Network, Outcome, agree, count_by_kind

TRUSTED_AFTER = 10  # consecutive valid results (BOINC wiki, AdaptiveReplication)


def run_single(network: Network, outcome: Outcome) -> Outcome:
    """Every result is accepted as it comes."""
    return _run(network, outcome, lambda nodes: np.zeros(len(nodes), dtype=bool), np.zeros(len(network.kinds), dtype=np.int64))


def run_quorum(network: Network, outcome: Outcome) -> Outcome:
    """Every result is computed twice; in a disagreement, until two agree."""
    return _run(network, outcome, lambda nodes: np.ones(len(nodes), dtype=bool), np.zeros(len(network.kinds), dtype=np.int64))


def run_boinc(network: Network, outcome: Outcome) -> Outcome:
    """A node with n >= 10 consecutive valid results is trusted with probability 1 - 1/n; one invalid result resets n.

    As in BOINC's validator (sched/validator.cpp, `is_valid`), only results that were replicated count towards n, whether
    the node gave the first or the second.
    """
    valid = np.zeros(len(network.kinds), dtype=np.int64)

    def replicated(nodes: Array) -> Array:
        n = valid[nodes]
        trusted = (n >= TRUSTED_AFTER) & (network.random.random(len(nodes)) < 1.0 - 1.0 / np.maximum(n, 1))
        return np.asarray(~trusted)

    return _run(network, outcome, replicated, valid)


def _run(network: Network, outcome: Outcome, replicated: Callable[[Array], Array], valid: Array) -> Outcome:
    left = outcome.tasks
    while left > 0:
        nodes = network.random.permutation(len(network.kinds))[:left]
        left -= len(nodes)
        answers = network.results(nodes)
        outcome.computed += len(nodes)
        accepted = _replicated(network, outcome, nodes, answers, replicated(nodes), valid)
        given, stand = np.any(answers != TRUTH, axis=1), np.any(accepted != TRUTH, axis=1)
        outcome.false_given += int(given.sum())
        outcome.false_accepted += int(stand.sum())
        count_by_kind(outcome.given_by_kind, network.kinds[nodes], given)
        count_by_kind(outcome.accepted_by_kind, network.kinds[nodes], stand)
    outcome.false_at_first = outcome.false_accepted
    return outcome


def _replicated(network: Network, outcome: Outcome, nodes: Array, answers: Array, which: Array, valid: Array) -> Array:
    """The answers accepted when those of `which` are computed by others until two whole results agree (BOINC's quorum)."""
    accepted = answers.copy()
    rows = np.flatnonzero(which)
    partners = network.others(nodes[rows])
    found = _replicas(network, partners, answers[rows])
    outcome.computed += len(rows)
    same = np.all(agree(answers[rows], found), axis=1)
    np.add.at(valid, nodes[rows[same]], 1)
    np.add.at(valid, partners[same], 1)
    for row, partner, other in zip(rows[~same], partners[~same], found[~same], strict=True):
        given = [(int(nodes[row]), answers[row]), (int(partner), other)]
        accepted[row] = winner = _quorum(network, outcome, given)
        for node, answer in given:
            valid[node] = valid[node] + 1 if np.all(agree(answer, winner)) else 0
    return accepted


def _replicas(network: Network, partners: Array, answers: Array) -> Array:
    """What partners make of the same tasks; colluders lie exactly where there is a lie to back."""
    found = network.results(partners)
    colluding = network.kinds[partners] == Kind.COLLUDING
    found[colluding] = np.where(np.any(answers == LIE, axis=1)[colluding, None], answers[colluding], TRUTH)
    return found


def _quorum(network: Network, outcome: Outcome, given: list[tuple[int, Array]]) -> Array:
    """Ask more nodes, each added to `given`, until two whole results agree."""
    while True:
        partner = network.others(np.array([given[0][0]]))
        if any(int(partner[0]) == node for node, _ in given):
            continue
        lie = next((answer for _, answer in given if np.any(answer == LIE)), given[0][1])
        found = _replicas(network, partner, lie[None])[0]
        outcome.computed += 1
        winner = next((answer for _, answer in given if np.all(agree(answer, found))), None)
        given.append((int(partner[0]), found))
        if winner is not None:
            return winner
