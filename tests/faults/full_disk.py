"""Run as a process by the tests, on a disk of `MEGABYTES`: what happens when it is full, told as one line of JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from manybody.core.errors import StoreError
from manybody.core.study import Study
from manybody.core.task import Output, Task
from manybody.network.local import Embedded
from manybody.store.home import Home
from manybody.testing.methods import task

STUDY = Study.model_validate(
    {
        "name": "faults",
        "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
        "method": "molecular-dynamics",
        "measures": ["potential-energy"],
        "checks": ["conservation"],
    }
)


def big(seed: int, megabytes: float) -> Output:
    return Output({"x": np.random.default_rng(seed).integers(0, 256, int(megabytes * 1e6), dtype=np.uint8)})


def refusal(action: Callable[[], object]) -> str:
    """What a `StoreError` says of an action, empty when there was none."""
    try:
        action()
    except StoreError as error:
        return str(error)
    return ""


def fill_up(folder: Path) -> Path:
    """Leave no free block on the disk of `folder`."""
    path = folder / "ballast"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError:
                continue
    return path


def store_fills(home: Home) -> dict[str, object]:
    """Results are put until one does not fit; then a smaller one is, and all that was put before is read."""
    kept = [home.objects.put(big(seed, 1)).digest for seed in range(3)]
    said = refusal(lambda: home.objects.put(big(9, 6)))
    half_written = [str(path) for path in home.objects.incoming.iterdir()]
    later = home.objects.put(big(10, 0.5)).digest
    intact = [len(home.objects.get(digest).arrays["x"]) for digest in [*kept, later]]
    return {"said": said, "half_written": half_written, "intact": intact}


def ledger_fills(home: Home) -> dict[str, object]:
    """The disk is full before claims and before results; then it has space again."""
    ledger = home.ledger()
    ledger.record_study(STUDY)
    run = ledger.begin_run(STUDY.digest, home.path, "", {})
    tasks = [Task(method="m", stage="s", version="1", system={}, parameters={"n": n}) for n in range(40)]
    ledger.add_tasks(run, tasks)
    attempt = ledger.claim(run, tasks[0].digest).attempt
    ballast = fill_up(home.path)
    more = [Task(method="m", stage="s", version="1", system={}, parameters={"n": n, "x": "y" * 2000}) for n in range(2000)]
    said = refusal(lambda: ledger.add_tasks(run, more))
    during = len(ledger.tasks(run))
    ballast.unlink()
    finished = ledger.finish(attempt, "f" * 64, 1, 1.0, "w", {})
    states = [ledger.claim(run, one.digest).state for one in tasks]
    ledger.close()
    again = home.ledger()
    with again.database.reading() as connection:
        sound = connection.exec_driver_sql("PRAGMA integrity_check").scalar()
    return {"said": said, "during": during, "finished": finished, "states": states, "sound": sound}


def backend_fills(home: Home) -> dict[str, object]:
    """A worker's result does not fit; the worker goes on with one that does."""
    with Embedded(home.objects.root, workers=1) as backend:
        backend.submit("too big", task("fill", nbytes=20_000_000), {})
        backend.submit("small", task("fill", nbytes=1000), {})
        ends = {event.attempt: event for event in backend.events() if event.kind in ("finished", "failed", "lost")}
    return {"kinds": {name: event.kind for name, event in ends.items()}, "said": ends["too big"].reason}


if __name__ == "__main__":
    cases = {"store": store_fills, "ledger": ledger_fills, "backend": backend_fills}
    print(json.dumps(cases[sys.argv[1]](Home(Path(os.environ["MANYBODY_HOME"])))))
