"""A gateway as a process: its folder, its keys, its socket, and the watch that wakes nodes and takes leases back."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from sqlalchemy import Connection

from manybody.core.errors import InputError, Problem, StoreError
from manybody.network.federation.authority import Authority, fingerprint, new_key, pem, write_key
from manybody.network.federation.blobs import remove_stale
from manybody.network.federation.connection import PeerProtocol, protocol_class
from manybody.network.federation.gateway import Gateway, Settings
from manybody.network.federation.writer import Writer
from manybody.network.messages import BackendError
from manybody.store import members, queue
from manybody.store.home import Home
from manybody.store.members import Role

LOOK_S = 0.003  # how often the ledger is asked whether it has changed: a few microseconds each
SWEEP = 10  # every so many times, what nobody waits for is dropped
TEND_S = 0.5  # how often leases are taken back and revoked connections ended
INVITATION_S = 86_400.0
JUMP_S = 2.0  # a clock that moves this much against the steady one has been set
BACKLOG = 1024


@dataclass(frozen=True)
class Office:
    """The folder of a gateway inside a home: authority, server key, and where it was last reached."""

    home: Home

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        return self.home.path / "gateway"

    @property
    def address(self) -> str:
        """The address under which it is, or was last, reached; raises `InputError` where there has been no gateway."""
        try:
            return str(json.loads((self.folder / "gateway.json").read_text(encoding="utf-8"))["address"])
        except FileNotFoundError:
            remedy = "Start one with `manybody network up`."
            raise InputError(Problem("gateway", f"a gateway in {self.home.path}", "none", remedy)) from None

    def authority(self) -> Authority:
        """The authority; made when first asked for."""
        if not (self.folder / "authority.pem").exists():
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            Authority.create().save(self.folder)
        return Authority.load(self.folder)

    def invite(self, role: Role = "node", valid_s: float = INVITATION_S) -> str:
        """One line that lets one machine join: address, the authority's fingerprint, a token for one use."""
        address = self.address
        with contextlib.closing(self.home.ledger()) as ledger, ledger.database.writing() as connection:
            token = members.invite(connection, role, valid_s)
        return f"{address}/#{fingerprint(self.authority().certificate)}/{token}"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the one gateway of this home; a second one is refused and told which process is the first."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / "lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                running = f"process {file.read().strip()} serves {self.address}"
                remedy = "Use that one, or end it first; another gateway needs another MANYBODY_HOME."
                raise InputError(Problem("gateway", f"no other gateway of {self.home.path}", running, remedy)) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def bind(self, host: str, port: int) -> socket.socket:
        """A listening socket: on `port`; on 0, on the port of last time, so that members find it, else on any free one."""
        last = int(self.address.rpartition(":")[2]) if port == 0 and (self.folder / "gateway.json").exists() else port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Named as TCP, or asyncio would let Nagle's algorithm hold answers back, 40 ms where the other end delays its ACK.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, last))
        except OSError as error:
            listening.close()
            remedy = "End what uses it, or choose another with `--port`; members that have joined know the old one."
            raise InputError(Problem("port", f"a free port {last} of {host}", str(error), remedy)) from error
        return listening

    def tls(self, hosts: list[str]) -> ssl.SSLContext:
        """The server's side of TLS: a certificate is asked for, and verified where one is shown."""
        authority, key = self.authority(), new_key()
        write_key(self.folder / "server.key", key)
        (self.folder / "server.pem").write_bytes(pem(authority.sign_server(key, hosts)))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        context.load_verify_locations(self.folder / "authority.pem")
        context.verify_mode = ssl.CERT_OPTIONAL
        return context


def serve(
    home: Home, host: str, port: int, names: list[str], settings: Settings, announce: Callable[[str], None] = lambda address: None
) -> None:
    """Run the gateway of a home until it is asked to stop; `announce` is told the address once it listens.

    `names` are further names or addresses under which members reach it; the first of them is the one announced.
    """
    office = Office(home)
    with office.lock(), office.bind(host, port) as listening, contextlib.closing(home.ledger()) as ledger:
        shown = names[0] if names else host
        address = f"https://{f'[{shown}]' if ':' in shown else shown}:{listening.getsockname()[1]}"
        authority = office.authority()
        tls = office.tls([*names, host, "localhost", "127.0.0.1"])
        (office.folder / "gateway.json").write_text(json.dumps({"address": address}), encoding="utf-8")
        writer = Writer(ledger.database)
        live: dict[str, set[PeerProtocol]] = {}
        gateway = Gateway(ledger.database, home.objects, authority, settings, writer)
        config = uvicorn.Config(
            gateway.app(), http=protocol_class(live), ws="none", lifespan="off", log_level="warning", access_log=False,
            timeout_keep_alive=75, timeout_graceful_shutdown=2, server_header=False, proxy_headers=False, backlog=BACKLOG,
        )  # fmt: skip
        config.load()
        config.ssl = tls  # its own would not let us leave the certificate optional and the version at 1.3
        remove_stale(home.objects, time.time())
        try:
            asyncio.run(_Watch(gateway, live).serve(_Server(config), listening, lambda: announce(address)))
        finally:
            writer.close()


class _Server(uvicorn.Server):
    """uvicorn's server, ended by us: signals also have to release those who wait for work."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


@dataclass
class _Watch:
    """What the gateway does unasked: wakes long polls, takes leases back, ends the connections of the revoked."""

    gateway: Gateway
    live: dict[str, set[PeerProtocol]]
    _tended: int = 0
    _offset: float = field(default_factory=lambda: time.time() - time.monotonic())
    _looked: float = field(default_factory=time.monotonic)

    async def serve(self, server: uvicorn.Server, listening: socket.socket, announce: Callable[[], None]) -> None:
        """Serve until asked to stop."""
        loop = asyncio.get_running_loop()
        listening.listen(BACKLOG)
        await self.gateway.writer.do(self._grant_grace)
        watching = [loop.create_task(self._wake()), loop.create_task(self._tend())]
        for task in watching:
            task.add_done_callback(lambda done: setattr(server, "should_exit", True))  # they end only by an error
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, server)
        announce()
        await server.serve([listening])
        for task in watching:
            task.cancel()
        ended = await asyncio.gather(*watching, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    def _stop(self, server: uvicorn.Server) -> None:
        server.should_exit = True
        for news in self.gateway.waiters:
            news.set()

    def _grant_grace(self, connection: Connection) -> None:
        queue.grant_grace(connection, time.time() + self.gateway.settings.lease_s)

    async def _wake(self) -> None:
        with queue.Changes(self.gateway.database) as changes:
            while True:
                await asyncio.sleep(LOOK_S)
                if self.gateway.waiters and changes.seen() and await self.gateway.read(queue.is_anything_waiting):
                    for news in self.gateway.waiters:
                        news.set()

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(TEND_S)
            try:
                self._offset, self._looked = await self.gateway.writer.do(self._take_back)
                for peer in await self.gateway.read(members.revoked_fingerprints):
                    for connection in list(self.live.get(peer, ())):
                        connection.hang_up()
            except StoreError as error:  # a full disk, a locked ledger: told, and tried again
                print(f"manybody gateway: {error}", flush=True)

    def _take_back(self, connection: Connection) -> tuple[float, float]:
        """Take back the leases that have run out, but not those that nobody had a chance to prolong; how time stood."""
        now, steady = time.time(), time.monotonic()
        jump, pause = now - steady - self._offset, steady - self._looked
        if was_set := abs(jump) > JUMP_S:  # leases are kept in time of day, nodes know durations only
            queue.follow_clock(connection, jump, now - pause)
        if was_set or pause > max(JUMP_S, self.gateway.settings.lease_s / 2):  # it slept, and heard nobody meanwhile
            queue.grant_grace(connection, now + self.gateway.settings.lease_s)
        queue.expire(connection, now)
        self._tended += 1
        if self._tended % SWEEP == 0:
            queue.drop_orphans(connection)
        return now - steady, steady


def check_reachable(address: str, authority: Path) -> None:
    """Raise `BackendError` unless the gateway with this authority answers at `address`."""
    host, _, port = address.removeprefix("https://").rpartition(":")
    context = ssl.create_default_context(cafile=str(authority))
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=10) as plain:
            context.wrap_socket(plain, server_hostname=host.strip("[]")).close()
    except (OSError, ValueError) as error:
        raise BackendError(f"No gateway answers at {address}: {error}. Start it with `manybody network up`.") from error
