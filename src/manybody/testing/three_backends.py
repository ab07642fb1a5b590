"""Each backend with real processes of its own, and nothing kept from before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from manybody.network.cluster_local import LocalCluster
from manybody.store.home import Home
from manybody.testing.federation import Town

Where = Literal["embedded", "cluster", "federation"]
BACKENDS: tuple[Where, ...] = get_args(Where)
NODES = 2


class Silent:
    """Listens to a run, and says nothing."""

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
