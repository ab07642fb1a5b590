"""`manybody nodes`: who is in the network, what each has, how it has done, and what it runs now."""

from __future__ import annotations

import json as json_text
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from manybody.network.survey import NodeView
    from manybody.store.home import Home

NAME_WIDTH = 16  # of a name in the table; a longer one is shortened


def nodes(
    network: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A cluster or a federation [default: this home's gateway, else this machine]."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    everyone: Annotated[bool, typer.Option("--all", help="Show those that have left or were revoked, too.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Run the engines for a moment where it is not known how fast they are.")
    ] = True,
) -> None:
    """Show the nodes of a network: capacity, devices, load, record, trust, and what each runs now.

    Speed is the cost that methods predict, in core-seconds, done a second and worker: 2 is twice as fast as predicted.
    Trust is how many of a node's results others found right since it was last caught, and how often it was.
    """
    from manybody.store.home import Home

    found = _survey(Home(), network, everyone, measure)
    if json:
        typer.echo(json_text.dumps([node.model_dump(mode="json") for node in found], indent=2))
    else:
        _print(found)


def _survey(home: Home, network: str | None, everyone: bool, measured: bool) -> list[NodeView]:
    from manybody.network.addresses import extra, kind_of_network

    kind = kind_of_network(network, home)
    if kind == "cluster":
        cluster = extra("manybody.network.cluster_survey", "cluster", str(network))
        found: list[NodeView] = cluster.cluster_view(network, home, measured)
        return found
    from manybody.network.survey import federation_view, machine_view

    return federation_view(home, everyone) if kind == "federation" else machine_view(home, measured)


def _print(found: list[NodeView]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not found:
        console.print("No node has joined. Invite one with `manybody invite`.")
        return
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("node", no_wrap=True, overflow="ellipsis", max_width=NAME_WIDTH)
    for column in ("heard", "busy", "memory", "load", "speed", "done", "failed", "lost", "trust"):
        table.add_column(column, justify="right", no_wrap=True)
    for node in found:
        table.add_row(*_cells(node))
    console.print(table)
    for node in found:
        _print_more(console, node)


def _cells(node: NodeView) -> tuple[Text, ...]:
    from rich.text import Text

    record, trust = node.record, node.trust
    caught = f", caught {trust['caught']}" if trust.get("caught") else ""
    cells = (
        node.name,
        "here" if node.state == "here" else node.state if node.heard_s is None else _ago(node.heard_s),
        f"{len(node.running)}/{node.workers}" + (f"x{node.threads}" if node.threads > 1 else ""),
        f"{node.memory_bytes / 2**30:.0f} GiB" if node.memory_bytes else "-",
        "-" if node.load is None else f"{node.load:.1f}",
        f"{median(node.speed.values()):.2f}" if node.speed else "-",
        *(str(record.get(state, "-")) for state in ("finished", "failed", "lost")),
        f"{trust['agreed']}/{trust['results']}{caught}" if trust.get("results") else "-",
    )
    style = "red" if caught or node.state in ("revoked", "no node") else ""
    return tuple(Text(cell, style) for cell in cells)


def _print_more(console: Console, node: NodeView) -> None:
    """What has no place in a column: what runs, devices, speeds one by one, and why it does not work."""
    from rich.text import Text

    lines = [f"{each.task} for {_ago(each.since_s)}" + _progress(each.fraction) for each in node.running]
    lines += [", ".join(f"{count} x {model}" for model, count in _counted(node.devices))] if node.devices else []
    lines += [", ".join(f"{method} {speed:.2f}" for method, speed in node.speed.items())] if len(node.speed) > 1 else []
    lines += [node.role] if node.role != "node" else []
    lines += [f"{node.state}: {node.reason}"] if node.reason else []
    if lines:
        console.print(Text(node.name, style="bold"))
    for line in lines:
        console.print(Text(f"  {line}"))


def _counted(models: tuple[str, ...]) -> list[tuple[str, int]]:
    return [(model, models.count(model)) for model in dict.fromkeys(models)]


def _progress(fraction: float | None) -> str:
    return "" if fraction is None else f", {100 * fraction:.0f} %"


def _ago(seconds: float) -> str:
    """A duration in its largest unit."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
