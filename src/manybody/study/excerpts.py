"""Excerpts: what a task reads of a result, cut out of it, so that a node fetches no more than that.

An excerpt is an object like any result, content-addressed and verified where it arrives; so every backend can send it.
The ledger does not know it: it is cut again whenever it is needed, and removed when the task that reads it is done.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from manybody.core import catalog
from manybody.core.digest import canonical_json, digest_bytes
from manybody.core.split import ReadsParts
from manybody.core.task import Output, Task
from manybody.numerics.rounds import CUT_WORTH
from manybody.store.encoding import encode
from manybody.store.objects import ObjectStore

MARK = "excerpt of"  # in the document of an excerpt: the digest of the result

Rows = Mapping[str, slice]


class Excerpts:
    """The excerpts that the tasks of a plan read. A result is read once for all of them."""

    def __init__(self, tasks: Iterable[Task], objects: ObjectStore) -> None:
        self._objects = objects
        self._readers: dict[str, list[Rows]] = defaultdict(list)
        self._cut: dict[tuple[str, str], str] = {}
        self._lent: dict[str, set[str]] = {}
        for task in tasks:
            for name, need in task.inputs.items():
                rows = _rows(task, name)
                if rows is not None:
                    self._readers[need].append(rows)

    def inputs(self, task: Task, results: Mapping[str, str]) -> dict[str, str]:
        """What to lend a task: for each of its inputs the digest of the result, or of an excerpt of it.

        `results` maps tasks to results. Raises `StoreError` where a result is gone or corrupt.
        """
        lent: dict[str, str] = {}
        for name, need in task.inputs.items():
            rows, whole = _rows(task, name), results[need]
            lent[name] = whole if rows is None else self._excerpt(need, whole, rows)
        self._lent[task.digest] = set(lent.values()) - {results[need] for need in task.inputs.values()}
        return lent

    def are_gone(self, task: str) -> bool:
        """Whether something that a task was lent is no longer there: another run was done with it, or it was corrupt."""
        return any(not self._objects.has(digest) for digest in self._lent.get(task, ()))

    def discard(self, task: str) -> None:
        """Remove what a task, given by its digest, was lent."""
        for digest in self._lent.pop(task, ()):
            self._objects.remove(digest)

    def discard_all(self) -> None:
        """Remove what is left."""
        for task in list(self._lent):
            self.discard(task)

    def _excerpt(self, need: str, whole: str, rows: Rows) -> str:
        found = self._cut.get((whole, _name(rows)))
        if found is None or not (found == whole or self._objects.has(found)):
            if rows not in self._readers[need]:
                self._readers[need].append(rows)
            self._cut_all(need, whole)
            found = self._cut[whole, _name(rows)]
        return found

    def _cut_all(self, need: str, whole: str) -> None:
        """Cut what the readers of a result read of it; where that is nearly everything, they read the whole."""
        output = self._objects.get(whole)
        size = sum(array.nbytes for array in output.arrays.values())
        for rows in {_name(rows): rows for rows in self._readers[need]}.values():
            arrays = {
                name: np.ascontiguousarray(output.arrays[name][kept]) for name, kept in rows.items() if name in output.arrays
            }
            worth = sum(array.nbytes for array in arrays.values()) <= CUT_WORTH * size
            marked = Output(arrays, {**output.document, MARK: whole})  # no result has the same bytes, and would be removed
            self._cut[whole, _name(rows)] = self._put(marked) if worth else whole

    def _put(self, excerpt: Output) -> str:
        data = encode(excerpt)
        digest = digest_bytes(data)
        self._objects.store(digest, data, lasting=False)
        return digest


def _rows(task: Task, name: str) -> Rows | None:
    """What a task reads of an input, if its method says so and is installed here."""
    if task.method not in catalog.entries("methods"):
        return None
    method = catalog.load("methods", task.method)
    return method.reads(task, name) if isinstance(method, ReadsParts) else None


def _name(rows: Rows) -> str:
    return canonical_json({name: [kept.start, kept.stop] for name, kept in rows.items()})
