"""A node whose network is cut, by a cable between two network namespaces.

The cut lasts until the lease of the node has run out; ``MANYBODY_CUT_S=60`` makes it last a minute.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from manybody.network.federation.serve import Office
from manybody.store import members
from manybody.testing.campaign import Campaign, gated
from manybody.testing.federation import Town
from manybody.testing.methods import installed

LEASE_S = 3.0
CUT_S = float(os.environ.get("MANYBODY_CUT_S", "0"))


@dataclass
class Cable:
    """A network namespace, linked to this one by a cable that can be pulled."""

    name: str
    here: str
    there: str

    @contextmanager
    def cut(self, least_s: float) -> Iterator[None]:
        """Pull the cable, for so many seconds at least, and plug it in again."""
        until = time.monotonic() + least_s
        subprocess.run(["ip", "link", "set", self.name, "down"], check=True)
        yield
        select.select([], [], [], max(0.0, until - time.monotonic()))  # that it lasts is the point
        subprocess.run(["ip", "link", "set", self.name, "up"], check=True)


@pytest.fixture
def cable() -> Iterator[Cable]:
    number = os.getpid() % 250
    name, here, there = f"mb{os.getpid()}", f"10.213.{number}.1", f"10.213.{number}.2"
    steps = (
        f"ip netns add {name}", f"ip link add {name} type veth peer name far netns {name}", f"ip addr add {here}/24 dev {name}",
        f"ip link set {name} up", f"ip -n {name} addr add {there}/24 dev far", f"ip -n {name} link set far up",
        f"ip -n {name} link set lo up",
    )  # fmt: skip
    try:
        for step in steps:
            done = subprocess.run(step.split(), capture_output=True, check=False)
            if done.returncode:
                pytest.skip(f"may not make network namespaces here: {done.stderr.decode().strip()}")
        yield Cable(name, here, there)
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.mark.fault(
    "a network cut and healed",
    on="federation",
    happens="nothing, where the cut is shorter than the lease",
    kept="everything: no attempt is lost",
)
@pytest.mark.fault(
    "a network cut and healed",
    on="federation",
    happens="a cut beyond the lease loses the attempts of the node; once it is healed, the node works on by itself",
    kept="one result a task; no second membership",
)
def test_a_network_cut_and_healed_loses_and_repeats_nothing(
    cable: Cable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in installed(tmp_path / "plugin").items():
        monkeypatch.setenv(name, value)
    with Town(tmp_path, LEASE_S, host=cable.here) as town:
        far = ("ip", "netns", "exec", cable.name)
        node = town.start_node("far", Office(town.home).invite(), prefix=far)
        node.wait_for("is ready")
        campaign = Campaign(town, gated(3, tmp_path / "gates"))
        campaign.go(lambda event: event.kind == "progress")
        with cable.cut(LEASE_S / 4):
            pass
        campaign.go(lambda event: event.kind in ("progress", "finished"))
        assert campaign.kinds() <= {"started", "progress", "finished"}
        with cable.cut(CUT_S):
            lost = campaign.go(lambda event: event.kind == "lost")
        assert lost is not None
        assert "has not been heard" in lost.reason
        campaign.verify()
        assert campaign.workers() == {"far"}
        with closing(town.home.ledger()) as ledger, ledger.database.reading() as connection:
            assert {member.name for member in members.everyone(connection)} == {"far"}
