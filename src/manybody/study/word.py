"""Word: how far the nodes that computed a study were believed, as its certificate states it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from manybody.core.certificate import Finding, Verdict
from manybody.core.study import Plan
from manybody.network.assurance import Assurance, weakest_drawn
from manybody.network.trust import TrustPolicy
from manybody.store import audits
from manybody.store.audits import Audited
from manybody.store.ledger import Ledger
from manybody.store.rows import ResultRow
from manybody.study.audit import FIRST_AUDIT, TRUST
from manybody.study.roster import OWN, Roster
from manybody.study.standing import OUTDATED, REFUSED

FROM = "closed form of manybody.network.assurance at the chances with which each node's results were recomputed"


@dataclass(frozen=True)
class Word:
    """What is known of the nodes behind the results of a plan; `undecided` counts the questions left open.

    Without a `policy` nodes were taken at their word.
    """

    plan: Plan
    results: Mapping[str, ResultRow]
    ledger: Ledger
    roster: Roster
    policy: TrustPolicy | None
    undecided: int = 0

    def missing(self) -> tuple[str, ...]:
        """What the certificate says is not checked: the nodes, where they were taken at their word."""
        if self.policy is not None:
            return ()
        nodes = {self.roster.find(row.worker) for row in self.results.values()}
        others = sorted(node.name for node in nodes if node.identity != OWN)
        if not others:
            return ("trust in this machine, which was taken at its word",)
        listed = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        return (f"trust in {listed}, taken at their word",)

    def findings(self) -> list[Finding]:
        """One finding: what was recomputed by others, what came of it, and what a false result had for chances."""
        if self.policy is None:
            return []
        book = self._book
        assured = self._assured(self.policy)
        open_ones = f"; {self.undecided} could not be settled, nobody being left to ask" if self.undecided else ""
        alone = f"; {book['taken at its word']} that no other could compute taken at their word" if self.plan.alone else ""
        caught = ", ".join(f"{name} ({number})" for name, number in sorted(self._caught.items())) or "none"
        return [
            Finding(
                name="trust in nodes",
                kind="replication",
                claim=(
                    f"{book['results']} results of {len(self._chances)} nodes, {book['recomputed']} recomputed by others: "
                    f"{book['disagreements']} disagreements, {book['refused']} refused at once, nodes caught: {caught}; "
                    f"{book['redone']} done again{alone}{open_ones}. By closed form, {assured.claim()}"
                ),
                value=float(self.undecided),
                tolerance=0.0,
                tolerance_from="every disagreement is settled, and what lost is computed again elsewhere",
                source="docs/network-trust.md",
                verdict=Verdict.UNDECIDED if self.undecided else Verdict.HOLDS,
                evidence=book | {"policy": self.policy.document(), "assurance": assured.document(), "assurance from": FROM},
            )
        ]

    @cached_property
    def _audited(self) -> list[Audited]:
        computations = list(dict.fromkeys(task.replicated(0).digest for task in self.plan.tasks))
        with self.ledger.database.reading() as connection:
            return audits.of(connection, computations)

    @cached_property
    def _caught(self) -> Counter[str]:
        """How many results each node was caught with in this study, by its name."""
        here = (each for each in self._audited if each.audit.verdict == "caught" and each.audit.study == self.plan.study.digest)
        return Counter(self.roster.find(each.worker).name for each in here)

    @cached_property
    def _chances(self) -> dict[str, list[float]]:
        """Of each node, with which chances its results that stand were recomputed, in the order in which they came."""
        found: dict[str, list[float]] = {}
        for each in self._standing:
            found.setdefault(each.audit.node, []).append(each.audit.chance)
        return found

    @cached_property
    def _standing(self) -> list[Audited]:
        return [each for each in self._audited if each.replica < FIRST_AUDIT and not each.withdrawn and each.audit.node != OWN]

    @cached_property
    def _book(self) -> dict[str, Any]:
        here = [each for each in self._audited if each.audit.verdict == "caught" and each.audit.study == self.plan.study.digest]
        by_structure = [each for each in here if each.audit.how == "structure"]
        answered = Counter(each.audit.computation for each in self._audited if not each.withdrawn)
        own = [each for each in self._audited if each.replica < FIRST_AUDIT and not each.withdrawn and each.audit.node == OWN]
        return {
            "results": len(self._standing),
            "recomputed": sum(answered[each.audit.computation] > 1 for each in self._standing),
            "computed on the coordinator's own machine": len(own),
            "taken at its word": sum(each.audit.computation in self.plan.alone for each in self._standing),
            "disagreements": len({each.audit.computation for each in here} - {each.audit.computation for each in by_structure}),
            "refused": len(by_structure),
            "caught": dict(self._caught),
            "redone": len(self._redone),
            "undecided": self.undecided,
            "compared by": dict(Counter(each.audit.how for each in self._audited if each.audit.verdict == "agreed")),
        }

    @cached_property
    def _redone(self) -> list[Audited]:
        """Results that no longer count because of what a node was caught with."""
        gone = [each for each in self._audited if each.withdrawn and each.replica < FIRST_AUDIT]
        return [each for each in gone if each.refusal.startswith((TRUST, REFUSED, OUTDATED))]

    def _assured(self, policy: TrustPolicy) -> Assurance:
        once = _seconds(self._standing)
        checks = _seconds([each for each in self._audited if each.replica >= FIRST_AUDIT])
        spent = [part / once if once else 0.0 for part in (checks, _seconds(self._redone))]
        return weakest_drawn(list(self._chances.values()), spent[0], spent[1], policy.prior.bad)


def _seconds(works: Sequence[Audited]) -> float:
    return sum(each.seconds for each in works)
