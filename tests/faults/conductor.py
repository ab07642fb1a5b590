"""Run as a process by the tests: compute the tasks of a file through the ledger, telling each event as a line of JSON.

``python conductor.py HOME TASKS WORKERS``; the ledger holds the study already. Tasks held by another run are asked for
again until they are done.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from manybody.core.errors import CorruptResultError
from manybody.core.task import Task
from manybody.network.local import Embedded
from manybody.store.home import Home
from manybody.store.ledger import Ledger
from manybody.store.provenance import provenance


def tell(**words: object) -> None:
    print(json.dumps(words), flush=True)


def claim_ready(home: Home, ledger: Ledger, run: int, backend: Embedded, waiting: dict[str, Task]) -> int:
    """Submit what can be: whose inputs are done and intact, and which nobody else computes. How many were done."""
    done = 0
    for digest, task in list(waiting.items()):
        results = {name: ledger.result(needed) for name, needed in task.inputs.items()}
        if any(result is None for result in results.values()):
            continue
        claim = ledger.claim(run, digest)
        if claim.state == "mine":
            backend.submit(claim.attempt, task, {name: result.result for name, result in results.items() if result})
        if claim.state == "done":
            try:
                home.objects.get(claim.result)
            except CorruptResultError as error:
                ledger.withdraw(digest, str(error))
                tell(kind="withdrawn", task=digest)
                continue
            done += 1
        if claim.state != "held":
            del waiting[digest]
    return done


def main(folder: Path, tasks: list[Task], workers: int) -> None:
    home = Home(folder)
    with Embedded(home.objects.root, workers) as backend:
        ledger = home.ledger()
        run = ledger.begin_run(ledger.studies()[0].digest, folder / "out", "conductor", provenance())
        ledger.add_tasks(run, tasks)
        waiting = {task.digest: task for task in tasks}
        computed = cached = 0
        while computed + cached < len(tasks):
            cached += claim_ready(home, ledger, run, backend, waiting)
            for event in backend.events(timeout=0.2 if waiting else None):
                tell(kind=event.kind, task=event.task, pid=os.getpid(), reason=event.reason)
                if event.kind == "finished":
                    counted = ledger.finish(event.attempt, event.result, event.nbytes, event.seconds, event.worker, provenance())
                    computed += counted
                elif event.kind == "failed":
                    ledger.fail(event.attempt, event.reason)
                    raise SystemExit(event.reason)
                if event.kind == "finished":
                    break  # something may have become ready
        ledger.end_run(run, "holds", None, None)
        tell(kind="end", run=run, computed=computed, cached=cached)


if __name__ == "__main__":
    listed = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    main(Path(sys.argv[1]), [Task.model_validate(entry) for entry in listed], int(sys.argv[3]))
