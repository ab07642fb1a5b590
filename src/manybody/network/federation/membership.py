"""What a member keeps of its membership: its own key, the certificate that the authority gave it, and the authority."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import platform
import re
import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from manybody.core.errors import InputError, Problem
from manybody.network.federation.authority import Key, fingerprint, load_key, new_key, pem, signing_request, write_key
from manybody.network.federation.client import Client
from manybody.network.federation.protocol import Accepted, AskAuthority, AskMembership, Authority, Leave, Membership
from manybody.store.home import Home

_LINE = re.compile(
    r"^(https://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):\d{1,5})/#([0-9a-f]{64})/([0-9a-f]{16}\.[A-Za-z0-9_-]{16,64})$"
)


@dataclass(frozen=True)
class Invitation:
    """The line that `manybody invite` prints, taken apart."""

    address: str
    authority: str
    token: str

    @classmethod
    def parse(cls, line: str) -> Invitation:
        """From the line; anything else raises `InputError`."""
        found = _LINE.match(line.strip())
        if found is None:
            expected = "the line that `manybody invite` printed, https://HOST:PORT/#FINGERPRINT/TOKEN"
            raise InputError(Problem("invitation", expected, f"`{line[:40]}`", "Copy the whole line, in quotes."))
        return cls(*found.groups())


@dataclass(frozen=True)
class Joined:
    """A membership in the folder where it is kept."""

    folder: Path
    address: str
    name: str
    role: str

    @classmethod
    def load(cls, home: Home, address: str | None = None) -> Joined:
        """The membership of a home, that at `address` where there are several; none or many raise `InputError`."""
        found = [cls._read(path.parent) for path in sorted((home.path / "memberships").glob("*/membership.json"))]
        fitting = [joined for joined in found if address in (None, joined.address)]
        if len(fitting) == 1:
            return fitting[0]
        came = ", ".join(joined.address for joined in found) or "none"
        remedy = "Say which by its address." if fitting else "Join with the line that `manybody invite` prints at the gateway."
        raise InputError(Problem("membership", f"one of {address or 'a gateway'} in {home.path}", came, remedy))

    @classmethod
    def _read(cls, folder: Path) -> Joined:
        try:
            told = json.loads((folder / "membership.json").read_text(encoding="utf-8"))
            return cls(folder, told["address"], told["name"], told["role"])
        except (OSError, ValueError, KeyError) as error:
            raise InputError(Problem(str(folder), "a membership", str(error), "Remove the folder and join anew.")) from error

    @property
    def key(self) -> Key:
        """Its own key."""
        return load_key(self.folder / "key.pem")

    def tls(self) -> ssl.SSLContext:
        """The member's side of TLS: shows its certificate, takes no other authority than the one it joined."""
        context = trusting(self.folder / "authority.pem")
        context.load_cert_chain(self.folder / "certificate.pem", self.folder / "key.pem")
        return context

    def client(self) -> Client:
        """A client that speaks as this member."""
        return Client(self.address, self.tls())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the one process that works under this membership."""
        with (self.folder / "lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                running = f"process {file.read().strip()} runs as {self.name}"
                remedy = "Use that one, or join another node with a MANYBODY_HOME of its own."
                raise InputError(Problem("node", f"no other node under {self.folder}", running, remedy)) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def forget(self) -> None:
        """Remove key and certificate."""
        shutil.rmtree(self.folder)


def trusting(authority: Path) -> ssl.SSLContext:
    """TLS that takes servers of this authority only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(authority)
    return context


def join(home: Home, line: str, name: str = "") -> Joined:
    """Make a key, have it signed by the gateway that the invitation names, and keep the membership.

    The token goes only to a server that proves to be of the authority that the invitation names.
    """
    return asyncio.run(_join(home, Invitation.parse(line), name or platform.node()))


async def _join(home: Home, invitation: Invitation, name: str) -> Joined:
    folder = home.path / "memberships" / invitation.authority[:16]
    if (folder / "membership.json").exists():
        known = Joined._read(folder)
        remedy = "Start it with `manybody join`, or leave first with `manybody leave`."
        raise InputError(
            Problem("invitation", "a gateway that this home has not joined", f"{known.name} at {known.address}", remedy)
        )
    authority = await _authority(invitation)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "authority.pem").write_bytes(pem(authority))
    key = new_key()
    write_key(folder / "key.pem", key)
    async with Client(invitation.address, trusting(folder / "authority.pem")) as client:
        asked = AskMembership(token=invitation.token, request=signing_request(key, name), name=name[:64])
        given = await client.ask("/v1/join", asked, Membership)
    (folder / "certificate.pem").write_text(given.certificate, encoding="ascii")
    told = {"address": invitation.address, "name": given.name, "role": given.role}
    (folder / "membership.json").write_text(json.dumps(told), encoding="utf-8")  # last: now it counts
    return Joined(folder, invitation.address, given.name, given.role)


async def _authority(invitation: Invitation) -> x509.Certificate:
    """The authority's certificate, fetched from whoever answers and believed only if the invitation's fingerprint fits."""
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    async with Client(invitation.address, unverified) as client:
        shown = await client.ask("/v1/join", AskAuthority(), Authority)
    try:
        certificate = x509.load_pem_x509_certificate(shown.certificate.encode())
    except ValueError:
        certificate = None
    if certificate is None or fingerprint(certificate) != invitation.authority:
        came = "one with another" if certificate is not None else "none"
        remedy = "Somebody else answers there, or the line is outdated: ask for a new invitation, and check the address."
        raise InputError(Problem(invitation.address, "an authority with the invitation's fingerprint", came, remedy))
    return certificate


async def leave_gateway(joined: Joined) -> None:
    """Tell the gateway that this member goes: its certificate counts no more, what it held goes to others."""
    async with joined.client() as client:
        await client.ask("/v1/leave", Leave(), Accepted)
