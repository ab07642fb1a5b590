"""One connection to the gateway: who is at its other end, and how much may come before a request's head is whole.

uvicorn keeps the client's certificate to itself; here its fingerprint is put into the request's scope, and into a
register of live connections, so that those of a revoked member can be ended.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from manybody.network.federation.authority import fingerprint_der
from manybody.network.federation.protocol import HEAD_LIMIT

PEER = "manybody.peer"  # key of the scope: SHA-256 of the client's certificate, empty where it showed none
GOODBYE_S = 2.0  # how long the other end may take to read why its request was refused
HEAD_PATIENCE_S = 20.0  # a request's head takes no longer than this, whoever trickles it


class PeerProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with the peer's identity and a bound on the size and time of a request's head."""

    live: dict[str, set[PeerProtocol]]  # by fingerprint; set by `protocol_class`, one register a gateway
    peer = ""
    _head = 0
    _reading_head = True
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base does
        """Learn who is there."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        shown = tls.getpeercert(binary_form=True) if isinstance(tls, ssl.SSLObject) else None
        self.peer = fingerprint_der(shown) if shown else ""
        self.live.setdefault(self.peer, set()).add(self)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget who was there."""
        mine = self.live.get(self.peer, set())
        mine.discard(self)
        if not mine:
            self.live.pop(self.peer, None)
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what comes, unless the head of the request has grown beyond all measure."""
        if self._reading_head:
            self._head += len(data)
            if self._patience is None:
                self._wait_for_head()
        super().data_received(data)
        if self._reading_head and self._head > HEAD_LIMIT and not self.transport.is_closing():
            self.send_400_response(f"Expected a request head of at most {HEAD_LIMIT} bytes.")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # a scope may carry more than its type names
        scope[PEER] = self.peer

    def on_headers_complete(self) -> None:
        """The head is whole: now the body is somebody else's to bound."""
        self._reading_head, self._head = False, 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole; another may follow."""
        self._reading_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """A connection that is to be closed is closed soon, even if the other end goes on sending.

        So is one whose request was answered before its body had come: nobody waits for the rest.
        """
        super().on_response_complete()
        unread = self.cycle.response_complete and self.cycle.more_body
        if unread or not self.cycle.keep_alive:
            self.loop.call_later(GOODBYE_S, self.hang_up)

    def hang_up(self) -> None:
        """End the connection at once."""
        self.transport.abort()

    def _wait_for_head(self) -> None:
        self._patience = self.loop.call_later(HEAD_PATIENCE_S, self.hang_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def protocol_class(live: dict[str, set[PeerProtocol]]) -> type[PeerProtocol]:
    """The protocol of one gateway, which registers its connections in `live`."""
    return type("PeerProtocol", (PeerProtocol,), {"live": live})
