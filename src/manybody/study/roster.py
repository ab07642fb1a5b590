"""Roster: who is behind the name of a worker, and what kind of machine that is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from manybody.store import handover, members
from manybody.store.ledger import Ledger
from manybody.store.provenance import architecture, provenance

OWN = ""  # the coordinator's own machine, which is taken at its word: the certificate is written there


@dataclass(frozen=True)
class Somebody:
    """A node: its `identity` (the fingerprint of its certificate where it has one), its name, its class of machine."""

    identity: str
    name: str
    architecture: str


@dataclass
class Roster:
    """The nodes behind workers called ``<node>/<process>``. A worker without a node is a process of a coordinator's.

    Where `processes` is set, such a process counts as a node of its own: the run is on this machine, and is audited.
    """

    ledger: Ledger
    processes: bool = False
    _known: dict[str, Somebody] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)

    def find(self, worker: str) -> Somebody:
        """The node of a worker; its identity is `OWN` where that is the coordinator's machine."""
        name, slash, _ = worker.partition("/")
        if not slash:
            return Somebody(worker if self.processes else OWN, worker, architecture(provenance()))
        if name not in self._known:
            self._read()
        return self._known.setdefault(name, Somebody(name, name, ""))

    def helpers(self, task: str) -> set[str]:
        """The names of the nodes on whose checkpoints a result of a task may rest."""
        with self.ledger.database.reading() as connection:
            return handover.contributors(connection, task)

    def named(self, identity: str) -> str:
        """The name under which backends know a node."""
        if identity not in self._names:
            self._read()
        return self._names.setdefault(identity, identity)

    def _read(self) -> None:
        with self.ledger.database.reading() as connection:
            found = members.everyone(connection)
        for member in found:
            told = json.loads(member.report).get("provenance", {}) if member.report else {}
            self._known[member.name] = Somebody(member.fingerprint, member.name, architecture(told))
            self._names[member.fingerprint] = member.name
