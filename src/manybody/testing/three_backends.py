"""One study on each backend, with real processes of its own and nothing kept from before: do all give the same bits?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal, get_args

from manybody.core.study import Study
from manybody.network.cluster_local import LocalCluster
from manybody.store.home import Home
from manybody.study.expand import expand
from manybody.study.run import RunOptions, run_study
from manybody.testing.federation import Town

Where = Literal["embedded", "cluster", "federation"]
BACKENDS: tuple[Where, ...] = get_args(Where)
NODES = 2


class Silent:
    """A listener who says nothing."""

    def planned(self, *told: object) -> None:
        """Nothing."""

    def event(self, *told: object) -> None:
        """Nothing."""

    def judged(self, *told: object) -> None:
        """Nothing."""


@contextmanager
def network(where: Where, folder: Path) -> Iterator[tuple[Home, str | None]]:
    """A backend with `NODES` nodes below `folder`, which must not exist: a home that knows it, and its address."""
    folder.mkdir(parents=True)
    if where == "embedded":
        yield Home(folder / "home"), None
    elif where == "cluster":
        with LocalCluster(folder / "machines", nodes=NODES) as machines:
            home = Home(folder / "home")
            home.path.mkdir()
            (home.path / "tls").symlink_to(machines.tls)
            yield home, machines.address
    else:
        with Town(folder) as town:
            town.add_nodes(*(f"node-{number}" for number in range(1, NODES + 1)))
            yield town.home, town.address


def results_on(where: Where, study: Study, folder: Path) -> dict[str, str]:
    """Compute a study on a backend of its own below `folder`; the digest of each task's result, by the task's digest.

    All tasks of the study, those of its checks included. What the certificate says of the results is not looked at.
    """
    with network(where, folder) as (home, address):
        run_study(study, RunOptions(home=home.path, out=folder / "out", network=address, workers=NODES), Silent())
        with closing(home.ledger()) as ledger:
            rows = {task.digest: ledger.result(task.digest) for task in expand(study).tasks}
    return {task: row.result for task, row in rows.items() if row is not None}
