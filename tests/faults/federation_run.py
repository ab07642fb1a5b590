"""Run as a process by the tests: compute iterations over a federation, through the ledger, and tell each event.

``python federation_run.py HOME TASKS STEPS``; what is done already is not asked for again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from manybody.network.federation import open_backend
from manybody.network.federation.serve import Office
from manybody.store.home import Home
from manybody.testing.methods import task


def main(folder: Path, count: int, steps: int) -> None:
    home = Home(folder)
    tasks = {
        each.digest: each
        for repeat in range(count)
        for each in [task("iterate", steps=steps).model_copy(update={"repeat": repeat})]
    }
    ledger = home.ledger()
    backend = open_backend(Office(home).address, home)
    run = ledger.begin_run(ledger.studies()[0].digest, folder / "out", "federation_run", {})
    ledger.add_tasks(run, tasks.values())
    for digest, each in tasks.items():
        claim = ledger.claim(run, digest)
        if claim.state == "mine":
            backend.submit(claim.attempt, each, {})
    for event in backend.events():
        if event.kind == "finished":
            ledger.finish(event.attempt, event.result, event.nbytes, event.seconds, event.worker, {})
        elif event.kind in ("lost", "failed"):
            ledger.lose(event.attempt, event.reason)
            backend.submit(ledger.claim(run, event.task).attempt, tasks[event.task], {})
        print(json.dumps({"kind": event.kind, "task": event.task}), flush=True)
    backend.close()
    ledger.end_run(run, "holds", None, None)
    print(json.dumps({"kind": "end"}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
