"""`manybody join`: make this machine a node. `manybody leave`: be none any more."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from manybody.network.federation.membership import Joined
    from manybody.store.home import Home

UNIT = "manybody-node.service"


def join(
    invitation: Annotated[
        str | None,
        typer.Argument(help="The line that `manybody invite` printed; needed the first time only.", show_default=False),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of this node [default: this machine's].")] = "",
    workers: Annotated[int | None, typer.Option(min=1, help="Tasks at a time [default: one for each core].")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads a task may use.")] = 1,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Measure how fast the engines run here.")] = True,
    install: Annotated[bool, typer.Option("--install", help="Start it now and at every login, as a systemd user unit.")] = False,
) -> None:
    """Join a network and work for it until interrupted.

    The key is made here and never leaves this machine. The node runs only methods that are installed here.
    """
    from manybody.network.federation.membership import Joined
    from manybody.network.federation.membership import join as join_gateway
    from manybody.store.home import Home

    home = Home()
    joined = join_gateway(home, invitation, name) if invitation else Joined.load(home)
    typer.echo(f"Joined {joined.address} as {joined.role} {joined.name}; its key is in {joined.folder}")
    if joined.role != "node":
        return
    if install:
        typer.echo(f"Started {_install(home, workers, threads)}; see `systemctl --user status {UNIT}`.")
        return
    _work(home, joined, workers, threads, measure)


def leave() -> None:
    """Leave the network: the gateway forgets the key, and so does this machine."""
    from manybody.network.federation.client import AwayError, RefusedByGatewayError
    from manybody.network.federation.membership import Joined, leave_gateway
    from manybody.store.home import Home

    joined = Joined.load(Home())
    try:
        asyncio.run(leave_gateway(joined))
        told = f"{joined.name} has left {joined.address}."
    except RefusedByGatewayError as error:
        told = f"{joined.address} does not know {joined.name} any more ({error}); the key is removed."
    except AwayError as error:
        typer.echo(f"{error} Start it, or remove {joined.folder} by hand and have the operator run `manybody revoke`.", err=True)
        raise typer.Exit(1) from error
    joined.forget()
    typer.echo(told)


def _work(home: Home, joined: Joined, workers: int | None, threads: int, measured: bool) -> None:
    from manybody.network.federation.capacity import measure, report
    from manybody.network.federation.node import Node

    speed = measure(home.objects.root, threads) if measured else {}
    for method, value in speed.items():
        typer.echo(f"{method}: {value:.2f} s of predicted cost a second and worker")
    Node(home, joined, report(workers, threads, speed), typer.echo).run()


def _install(home: Home, workers: int | None, threads: int) -> Path:
    """Write and start a systemd user unit."""
    folder = Path.home() / ".config" / "systemd" / "user"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "manybody", "join", "--threads", str(threads)]
    command += ["--workers", str(workers)] if workers else []
    (folder / UNIT).write_text(unit(home.path, command), encoding="utf-8")
    for words in (["daemon-reload"], ["enable", "--now", UNIT]):
        subprocess.run(["systemctl", "--user", *words], check=True)
    return folder / UNIT


def unit(home: Path, command: list[str]) -> str:
    """The text of a systemd user unit that keeps a node running (systemd.service(5))."""
    quoted = " ".join('"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"' for word in command)
    return f"""[Unit]
Description=Manybody node
After=network-online.target

[Service]
Environment="MANYBODY_HOME={home}"
ExecStart={quoted}
Restart=on-failure
RestartSec=10
NoNewPrivileges=yes
KillSignal=SIGTERM

[Install]
WantedBy=default.target
"""
