"""The federation: nodes of institutions that do not trust each other pull work from a gateway, through mutual TLS.

docs/protocol.md describes what goes over the wire. The extra `manybody[federation]` brings what this needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from manybody.core.errors import InputError, Problem

if TYPE_CHECKING:
    from manybody.core.protocols import Backend
    from manybody.network.federation.serve import Office
    from manybody.store.home import Home


def open_backend(address: str, home: Home) -> Backend:
    """The backend that runs tasks on the nodes of the gateway at `address`, which serves the ledger of `home`.

    Raises `InputError` where the gateway of `home` is another, `BackendError` where it does not answer.
    """
    from manybody.network.federation.backend import Federation
    from manybody.network.federation.serve import check_reachable

    office = own_gateway(address, home)
    check_reachable(office.address, office.folder / "authority.pem")
    return Federation(home.ledger())


def own_gateway(address: str, home: Home) -> Office:
    """The gateway of a home; raises `InputError` where another is meant by `address`, or there is none."""
    from manybody.network.federation.serve import Office

    office = Office(home)
    if address.rstrip("/") != office.address:
        remedy = "Run where the gateway runs, with its MANYBODY_HOME."
        raise InputError(Problem("network", f"{office.address}, the gateway of {home.path}", address, remedy))
    return office
