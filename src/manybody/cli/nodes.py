"""`manybody nodes`: who is in the network, what each has, how it has done, and what it runs now."""

from __future__ import annotations

import contextlib
import json as json_text
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from manybody.store.audits import Standing
    from manybody.store.members import Member, Record


def nodes(
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    everyone: Annotated[bool, typer.Option("--all", help="Show those that have left or were revoked, too.")] = False,
) -> None:
    """Show the nodes of this home's network: capacity, devices, load, record, trust, and what each runs now.

    Trust is how many of a node's results others found right since it was last caught, and how often it was.
    """
    from manybody.store import audits, members
    from manybody.store.home import Home

    with contextlib.closing(Home().ledger()) as ledger, ledger.database.reading() as connection:
        records, trust = members.records(connection), audits.standings(connection)
        found = [
            _row(member, records.get(member.id, members.Record()), trust.get(member.fingerprint, audits.Standing()))
            for member in members.everyone(connection)
            if everyone or member.revoked is None
        ]
    if json:
        typer.echo(json_text.dumps(found, indent=2))
    else:
        _print(found)


def _row(member: Member, record: Record, trust: Standing) -> dict[str, Any]:
    report = json_text.loads(member.report) if member.report else {}
    silent = None if member.seen is None else round(time.time() - member.seen, 1)
    return {
        "name": member.name,
        "role": member.role,
        "fingerprint": member.fingerprint,
        "state": "revoked" if member.revoked is not None else "never seen" if silent is None else f"heard {silent:g} s ago",
        "reason": member.reason,
        "workers": report.get("workers", 0),
        "threads": report.get("threads", 0),
        "memory_bytes": report.get("memory_bytes", 0),
        "devices": report.get("devices", []),
        "speed": report.get("speed", {}),
        "methods": {name: method["version"] for name, method in report.get("methods", {}).items()},
        "record": asdict(record),
        "trust": asdict(trust),
    }


def _print(found: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = ("node", "state", "workers", "memory", "devices", "speed", "finished", "failed", "lost", "trust", "runs now")
    table = Table(*columns, box=None)
    for row in found:
        record, trust = row["record"], row["trust"]
        caught = f", caught {trust['caught']} times" if trust["caught"] else ""
        believed = f"{trust['agreed']} of {trust['results']} agreed{caught}" if trust["results"] else "no result yet"
        speed = ", ".join(f"{name} {value:.2f}" for name, value in row["speed"].items())
        running = ", ".join(record["running"])
        cells = (
            f"{row['name']}" + (" (client)" if row["role"] == "client" else ""), row["state"],
            f"{len(record['running'])}/{row['workers']} x {row['threads']}", f"{row['memory_bytes'] / 2**30:.1f} GiB",
            ", ".join(row["devices"]) or "cpu", speed or "not measured",
            str(record["finished"]), str(record["failed"]), str(record["lost"]),
            believed, running or "nothing",
        )  # fmt: skip
        table.add_row(*(Text(cell) for cell in cells))
    Console(highlight=False).print(table if found else "No node has joined. Invite one with `manybody invite`.")
