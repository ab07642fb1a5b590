"""Surveys: the nodes of a network as a person wants to see them: what each has, how fast it is, what it does now."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import Connection

from manybody.core.spec import Frozen
from manybody.network.federation.capacity import measure, report
from manybody.network.federation.protocol import Report
from manybody.store import audits, members, timings
from manybody.store.home import Home
from manybody.store.provenance import architecture, provenance

CAPACITY = "capacity.json"  # below the home: how fast the engines ran here when they were measured


class Running(Frozen):
    """A task that runs: its label, for how many seconds it has, on which worker, and which fraction is behind it."""

    task: str
    since_s: float
    worker: str = ""
    fraction: float | None = None


class Capacity(Frozen):
    """How fast the engines ran on an architecture: predicted cost done a second, by method."""

    architecture: str
    speed: dict[str, float]


class NodeView(Frozen):
    """A node as it is shown. `speed` is predicted cost done a second and worker, by method; `heard_s` seconds of silence."""

    name: str
    role: str = "node"
    fingerprint: str = ""
    address: str = ""
    state: str = "here"
    reason: str = ""
    heard_s: float | None = None
    workers: int = 0
    threads: int = 0
    memory_bytes: int = 0
    devices: tuple[str, ...] = ()
    load: float | None = None
    speed: dict[str, float] = {}
    methods: dict[str, str] = {}
    record: dict[str, int] = {}
    trust: dict[str, int] = {}
    running: tuple[Running, ...] = ()


def machine_view(home: Home, measured: bool) -> list[NodeView]:
    """This machine, where no network is asked for: what the runs of this home compute now is shown as its own."""
    with closing(home.ledger()) as ledger:
        alive = {run.id for run in ledger.runs() if run.alive and run.host == platform.node()}
        with ledger.database.reading() as connection:
            now = time.time()
            running = tuple(
                Running(task=found.label, since_s=round(now - found.started, 1), worker=f"run {found.run}")
                for found in timings.running(connection, alive)
            )
    speed = machine_speed(home.path / CAPACITY, measured)
    return [_view(platform.node(), report(speed=speed), load=os.getloadavg()[0], running=running)]


def machine_speed(kept: Path, measured: bool) -> dict[str, float]:
    """How fast the engines run here: as kept in a file, else `measured` and kept; anew on another architecture or release."""
    here = architecture(provenance())
    found = _kept_capacity(kept)
    if found is not None and found.architecture == here:
        return found.speed
    if not measured:
        return {}
    with tempfile.TemporaryDirectory(prefix="manybody-") as folder:
        speed = measure(Path(folder))
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(Capacity(architecture=here, speed=speed).model_dump_json(), encoding="utf-8")
    return speed


def _kept_capacity(kept: Path) -> Capacity | None:
    """What a file says; None where there is none, or one of another release."""
    try:
        return Capacity.model_validate_json(kept.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def federation_view(home: Home, everyone: bool) -> list[NodeView]:
    """The members of the federation whose gateway is this home's; those that have left or were revoked with `everyone`."""
    with closing(home.ledger()) as ledger, ledger.database.reading() as connection:
        records, trust = members.records(connection), audits.standings(connection)
        return [
            _member_view(connection, member, records.get(member.id, members.Record()), trust.get(member.fingerprint))
            for member in members.everyone(connection)
            if everyone or member.revoked is None
        ]


def _member_view(
    connection: Connection, member: members.Member, record: members.Record, trust: audits.Standing | None
) -> NodeView:
    now = time.time()
    silent = None if member.seen is None else round(max(0.0, now - member.seen), 1)
    running = tuple(
        Running(task=held.task, since_s=round(max(0.0, now - held.leased), 1), worker=held.worker, fraction=held.fraction)
        for held in members.holdings(connection, member.id)
    )
    told = Report.model_validate_json(member.report) if member.report else None
    view = _view(member.name, told, load=member.load, running=running)
    state = "revoked" if member.revoked is not None else "never seen" if silent is None else f"heard {silent:g} s ago"
    about = {"role": member.role, "fingerprint": member.fingerprint, "state": state, "reason": member.reason, "heard_s": silent}
    return view.model_copy(update=about | {"record": asdict(record), "trust": asdict(trust or audits.Standing())})


def _view(name: str, told: Report | None, load: float | None, running: tuple[Running, ...]) -> NodeView:
    if told is None:
        return NodeView(name=name, load=load, running=running)
    return NodeView(
        name=name, workers=told.workers, threads=told.threads, memory_bytes=told.memory_bytes, devices=told.devices, load=load,
        speed=told.speed, methods={method: has.version for method, has in told.methods.items()}, running=running,
        address=str(told.provenance.get("host", "")),
    )  # fmt: skip
