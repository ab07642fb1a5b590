"""`manybody network up`: the gateway of a federation. `manybody invite`, `manybody revoke`: who may be in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

network = typer.Typer(help="The gateway from which nodes pull work.", no_args_is_help=True)


@network.callback()
def _network() -> None:
    """The gateway from which nodes pull work."""


@network.command()
def up(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port [default: that of last time, else a free one].")] = 0,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="Name or address under which nodes reach this machine; repeatable.")
    ] = None,
    lease: Annotated[float, typer.Option(min=1.0, help="Seconds after which the work of a silent node goes to others.")] = 15.0,
    checkpoint: Annotated[float, typer.Option(min=0.0, help="Seconds between the checkpoints of a long task.")] = 60.0,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Run a Dask scheduler instead, for machines that trust each other.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --cluster: workers on this machine [default: its cores].")
    ] = None,
    jobs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --cluster: YAML of jobs for Slurm or PBS, instead of workers here.")
    ] = None,
) -> None:
    """Run the gateway until interrupted. The first time, makes the authority that signs the nodes' keys."""
    if cluster:
        _cluster_up(host, port, workers, jobs)
        return
    from manybody.network.federation.gateway import Settings
    from manybody.network.federation.serve import serve
    from manybody.store.home import Home

    def announce(address: str) -> None:
        typer.echo(f"Gateway at {address}")
        typer.echo(
            "Invite a node with `manybody invite`; run on the network with `manybody run STUDY --network " + address + "`."
        )

    serve(Home(), host, port, name or [], Settings(lease_s=lease, checkpoint_s=checkpoint), announce)


def _cluster_up(host: str, port: int, workers: int | None, jobs: Path | None) -> None:
    from manybody.network.addresses import extra
    from manybody.store.home import Home

    def announce(address: str) -> None:
        typer.echo(f"Scheduler at {address}")
        typer.echo(f"Run on the cluster with `manybody run STUDY --network {address}`.")

    extra("manybody.network.cluster_serve", "cluster", "network up --cluster").serve(Home(), host, port, workers, jobs, announce)


def invite(
    role: Annotated[Literal["node", "client"], typer.Option(help="`node` runs tasks; `client` may only look.")] = "node",
    hours: Annotated[float, typer.Option(min=0.0, help="How long the invitation holds.")] = 24.0,
) -> None:
    """Print one line that lets one machine join, once."""
    from manybody.network.federation.serve import Office
    from manybody.store.home import Home

    typer.echo(Office(Home()).invite(role, hours * 3600.0))


def revoke(
    node: Annotated[str, typer.Argument(help="Name of a member, as `manybody nodes` shows it.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "revoked by the operator",
) -> None:
    """Shut a member out at once: its connections end, what it was computing goes to others."""
    import contextlib

    from manybody.store import members
    from manybody.store.home import Home

    with contextlib.closing(Home().ledger()) as ledger, ledger.database.writing() as connection:
        returned = members.shut_out(connection, members.named(connection, node).id, reason)
    typer.echo(f"{node} is revoked; {returned} of its attempts go to others.")
