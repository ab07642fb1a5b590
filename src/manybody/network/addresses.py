"""Where a study runs, by the address that is asked for: this machine, a cluster, or a federation."""

from __future__ import annotations

from importlib import import_module
from ipaddress import ip_address
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from manybody.core.errors import InputError, Problem
from manybody.core.protocols import Backend
from manybody.network.local import Embedded
from manybody.store.home import Home

EXPECTED = "`dask://HOST:PORT` or `tls://HOST:PORT` (a Dask scheduler), or `https://HOST:PORT` (the gateway of a federation)"
CLUSTER, FEDERATION = ("dask", "tls", "tcp"), ("manybody", "https")
TLS_FOLDER = "tls"  # below the home: certificates of a cluster


def open_backend(address: str | None, home: Home, workers: int | None) -> Backend:
    """The backend at an address; without one, worker processes on this machine.

    `workers` is how many to use here, or how many Dask workers to wait for. Raises `InputError` for an address that is
    none, or a backend that is not installed; `BackendError` where nobody answers.
    """
    if address is None:
        return Embedded(home.objects.root, workers)
    parts = _parse(address)
    if parts.scheme in FEDERATION:
        federation = extra("manybody.network.federation", "federation", address)
        backend: Backend = federation.open_backend(f"https://{parts.netloc}", home)
        return backend
    cluster = extra("manybody.network.cluster", "cluster", address)
    if parts.scheme == "tcp":
        _refuse_open(parts, address)
        backend = cluster.Cluster(f"tcp://{parts.netloc}", home.objects.root, None, workers or 1)
        return backend
    security = extra("manybody.network.cluster_security", "cluster", address).find_security(home.path / TLS_FOLDER)
    backend = cluster.Cluster(f"tls://{parts.netloc}", home.objects.root, security, workers or 1)
    return backend


def kind_of_network(address: str | None, home: Home) -> Literal["machine", "cluster", "federation"]:
    """What is at an address; without one, the federation whose gateway is in this home, else this machine.

    Raises `InputError` for an address that is none, or that of another home's gateway.
    """
    if address is None:
        return "federation" if (home.path / "gateway" / "gateway.json").is_file() else "machine"
    parts = _parse(address)
    if parts.scheme in FEDERATION:
        extra("manybody.network.federation", "federation", address).own_gateway(f"https://{parts.netloc}", home)
        return "federation"
    if parts.scheme == "tcp":
        _refuse_open(parts, address)
    return "cluster"


def _parse(address: str) -> SplitResult:
    """An address in its parts: a known scheme, a host, a port, and nothing else."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise InputError(Problem("network", EXPECTED, f"`{address}` ({error})", "Correct the address.")) from error
    whole = parts.scheme in CLUSTER + FEDERATION and parts.hostname and port
    if not whole or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise InputError(Problem("network", EXPECTED, f"`{address}`", "Give it as the scheduler or the gateway prints it."))
    return parts


def _refuse_open(parts: SplitResult, address: str) -> None:
    """Without TLS, whoever reaches a scheduler can have anything run: on loopback only."""
    host = parts.hostname or ""
    try:
        on_loopback = ip_address(host).is_loopback
    except ValueError:
        on_loopback = host == "localhost"
    if not on_loopback:
        remedy = "Start the scheduler and its workers with certificates (`--tls-ca-file`, `--tls-cert`, `--tls-key`), and use `tls://`."
        raise InputError(Problem("network", "`tls://` for a scheduler on another machine", f"`{address}`", remedy))


def extra(module: str, name: str, purpose: str) -> Any:
    """A module that needs the extra `name` of this package; `InputError` where that is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        remedy = f"Install it: pip install 'manybody[{name}]'."
        raise InputError(
            Problem("network", f"the extra `{name}`, for {purpose}", f"no package `{error.name}`", remedy)
        ) from error
