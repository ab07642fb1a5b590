"""Standing: the results that count for a run, what each was computed from, and what goes when one of them goes.

The ledger is the truth; this is one run's view of it. A result whose inputs are no longer those that count is withdrawn,
whoever withdrew them: so nothing rests on what somebody was caught with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from manybody.core.errors import CorruptResultError, StoreError
from manybody.core.protocols import Event
from manybody.core.task import Output
from manybody.store.ledger import Ledger
from manybody.store.objects import ObjectStore
from manybody.store.provenance import provenance
from manybody.store.rows import ResultRow
from manybody.study.audit import Auditor
from manybody.study.structure import fault_of
from manybody.study.workload import Workload

REFUSED = "refused: "  # how the reason of a result begins that was none on the face of it
OUTDATED = "what it was computed from counts no more"


@dataclass
class Standing:
    """The results that count, by task; `computed` are those of this run. `auditor` hears of all that come and go."""

    run: int
    load: Workload
    ledger: Ledger
    objects: ObjectStore
    auditor: Auditor | None = None
    results: dict[str, str] = field(default_factory=dict)
    workers: dict[str, str] = field(default_factory=dict)
    computed: set[str] = field(default_factory=set)
    rows: dict[str, ResultRow] = field(default_factory=dict)
    _read: dict[str, dict[str, str]] = field(default_factory=dict)

    # --- coming ------------------------------------------------------------------------------------------------

    def recover(self, digest: str) -> list[Event]:
        """Take over what the ledger has of a task, verified; a bad result is withdrawn. What to tell of others that go."""
        row = self.ledger.result(digest)
        if row is None:
            return []
        read = json.loads(row.inputs) if row.inputs else None
        try:
            output = self.objects.get(row.result)
            fault = fault_of(output)
        except CorruptResultError as error:
            self.ledger.withdraw(digest, str(error))
        except StoreError:
            if self.objects.has(row.result):
                raise
            self._refuse_strange_store(row)
            self.ledger.withdraw(digest, "the result is no longer in the store")
        else:
            if fault or self.is_outdated(digest, read):
                self.ledger.withdraw(digest, f"{REFUSED}{fault}" if fault else OUTDATED)
                return []
            if self.auditor:
                self.auditor.adopt(self.load.tasks[digest], row.attempt, row.worker, row.result)
                self.auditor.look(self.load.tasks[digest], output)
            return self._count(digest, row.result, row.worker, read)
        return []

    def accept(self, event: Event, read: dict[str, str], output: Output) -> list[Event]:
        """Count a result that the ledger has just taken; what to tell of others that go because of it."""
        self.computed.add(event.task)
        if self.auditor:
            self.auditor.hear(self.load.tasks[event.task], event.attempt, event.worker, event.result)
            self.auditor.look(self.load.tasks[event.task], output)
        return self._count(event.task, event.result, event.worker, read)

    def confirm(self) -> bool:
        """Whether the ledger still has all that this run rests on; what another run has withdrawn meanwhile goes here, too."""
        self.rows = self.ledger.results(self.run)
        gone = [task for task, result in self.results.items() if task not in self.rows or self.rows[task].result != result]
        for digest in gone:
            self._forget(digest)
        return not gone

    def is_outdated(self, digest: str, read: dict[str, str] | None) -> bool:
        """Whether something that was read for a task counts no more, another result having taken its place."""
        current = self.load.inputs(digest, self.results)
        return read is not None and any(read.get(name) != result for name, result in current.items())

    # --- going -------------------------------------------------------------------------------------------------

    def withdraw(self, digests: Iterable[str], reason: str) -> list[Event]:
        """Let results count no more; what to tell of it."""
        told = []
        for digest in digests:
            self.ledger.withdraw(digest, reason)
            told.append(Event("lost", "", digest, self.workers.get(digest, ""), reason=reason))
            self._forget(digest)
        return told

    def reopen(self, digest: str) -> bool:
        """Whether a task failed because an input is no longer in the store; those inputs are computed again."""
        needs = self.load.tasks[digest].inputs.values()
        gone = [need for need in needs if need not in self.results or not self.objects.has(self.results[need])]
        for need in gone:
            self.ledger.withdraw(need, "set aside as corrupt while a task read it")
            self._forget(need)
        return bool(gone)

    def _count(self, digest: str, result: str, worker: str, read: dict[str, str] | None) -> list[Event]:
        self.results[digest], self.workers[digest] = result, worker
        if read is not None:
            self._read[digest] = read
        outdated = {
            reader: None
            for near in self.load.readers.get(digest, ())
            if near in self.results and self.is_outdated(near, self._read.get(near))
            for reader in (near, *self.load.downstream(near))
            if reader in self.results
        }
        return self.withdraw(outdated, OUTDATED)

    def _forget(self, digest: str) -> None:
        for known in (self.results, self.workers, self._read):
            known.pop(digest, None)
        self.computed.discard(digest)
        if self.auditor and digest in self.load.tasks:
            self.auditor.drop(self.load.tasks[digest])

    def _refuse_strange_store(self, row: ResultRow) -> None:
        """Raise where a missing result of another machine means that its store is not ours, not that it is lost."""
        host = row.provenance.get("host")
        if self.ledger.database.is_file or host == provenance()["host"] or self.objects.was_set_aside(row.result):
            return
        raise StoreError(
            f"Expected result {row.result[:12]}, which {host} has computed, in {self.objects.root}; it is not there. "
            "Coordinators that share a ledger must see the same objects: mount that folder here, or use a ledger of your own."
        )
