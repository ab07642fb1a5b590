"""A federation whose queue lies on a PostgreSQL server: nodes are killed, and every task still counts once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from manybody.testing.campaign import Campaign, iterations
from manybody.testing.federation import Town
from manybody.testing.methods import installed
from manybody.testing.postgres import PostgresServer, installed_programs, running


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    programs = installed_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed: install the package postgresql to have these tests")
    with running(programs) as server:
        yield server


def test_a_killed_node_costs_only_what_it_was_computing(tmp_path: Path, server: PostgresServer) -> None:
    home = tmp_path / "town" / "gateway"
    home.mkdir(parents=True)
    (home / "ledger.url").write_text(server.ledger())
    with Town(tmp_path / "town", lease_s=2.0, environment=installed(tmp_path / "plugin")) as town:
        assert not (home / "ledger.sqlite").exists()
        town.add_nodes("a", "b")
        campaign = Campaign(town, iterations(12))
        campaign.go(lambda event: event.kind == "started" and event.worker.startswith("a/"))
        town.nodes["a"].kill()
        campaign.verify()
