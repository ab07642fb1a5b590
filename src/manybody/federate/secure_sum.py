"""Secure aggregation: a sum of vectors of which nobody sees one, even when some of their owners drop out.

Bonawitz et al., CCS 2017. The vectors are integers modulo 2^64. Party i adds a mask of its own from a seed b_i, and
for each other party j one that both derive from X25519 keys, which i adds and j subtracts: in the sum they cancel. The
seed and the mask key of everybody are shared out (`federate.shamir`), encrypted from party to party, so that whoever
collects can be told, for each party, one of two things: its seed, if its vector has arrived, or else its mask key.

Told both, it could unmask that party. So a party reveals once, and says for each other which of the two; and as
thresholds are above half of the parties, no two groups can be told different things. The collector is trusted to pass
public keys on unchanged: one that makes up keys of its own stands between the parties. Parties below the threshold
that collude learn the sum of the others.

Masks are ChaCha20 keystreams of 256-bit keys; keys are derived by HKDF-SHA256, for one session and purpose each.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import Field, StringConstraints, model_validator

from manybody.core.errors import TaskError
from manybody.core.spec import Spec, refuse
from manybody.federate.shamir import SHARE_BYTES, Share, combine, split

Vector = np.ndarray[Any, np.dtype[np.uint64]]
PartyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
FEWEST = 3  # of two parties each would know the other's vector from the sum


class Terms(Spec):
    """What all parties of a session have agreed on."""

    session: str = Field(pattern=r"^[0-9a-f]{32}$", description="number of the session, never used again")
    parties: tuple[PartyName, ...] = Field(min_length=FEWEST, max_length=10_000, description="who takes part")
    threshold: int = Field(description="so many parties must stay to the end; fewer learn nothing together")
    fraction_bits: int = Field(32, ge=0, le=40, description="numbers are rounded to multiples of 2^-fraction_bits")

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if len(set(self.parties)) < len(self.parties):
            refuse("parties", "names, each once", ", ".join(self.parties), "Name each party once.")
        if not len(self.parties) < 2 * self.threshold <= 2 * len(self.parties):
            expected = f"more than half of {len(self.parties)} parties, and no more than all"
            refuse("threshold", expected, self.threshold, "Two groups could be told different things otherwise.")
        return self

    def point(self, party: str) -> int:
        """Where a party's shares are taken."""
        return self.parties.index(party) + 1

    @property
    def limit(self) -> float:
        """The largest size that a number of a party may have, so that no sum of all reaches 2^63 steps."""
        return float(math.ldexp(1.0, 62 - self.fraction_bits)) / len(self.parties)

    def error(self, parties: int) -> float:
        """How far a sum over so many parties may be from that of their numbers: half a step each, beside double precision."""
        return math.ldexp(0.5, -self.fraction_bits) * parties


@dataclass(frozen=True)
class Secrets:
    """What a party draws for a session: two X25519 keys, one for packets and one for masks, and the seed of its own mask."""

    packets: bytes
    masks: bytes
    seed: bytes

    @classmethod
    def drawn(cls) -> Self:
        """Fresh ones, from the system's generator."""
        return cls(*(secrets.token_bytes(32) for _ in range(3)))

    def announced(self, terms: Terms, party: str) -> Announced:
        """What everybody may know of them."""
        commitment = hashlib.sha256(_label(terms, "seed", party) + self.seed).digest()
        return Announced(_public(self.packets), _public(self.masks), commitment)


@dataclass(frozen=True)
class Announced:
    """A party's public keys, and a digest that its seed can be told by."""

    packets: bytes
    masks: bytes
    commitment: bytes


def fixed(values: np.ndarray, terms: Terms) -> Vector:
    """Numbers as multiples of 2^-fraction_bits, rounded to nearest, modulo 2^64. Raises `TaskError` beyond `Terms.limit`."""
    largest = float(np.max(np.abs(values), initial=0.0))
    if not largest <= terms.limit:  # not a number is no better
        raise TaskError(f"expected numbers within {terms.limit:.6g}; got {largest:.6g}. Lower `fraction_bits` or the weights.")
    return np.rint(np.ldexp(np.asarray(values, np.float64), terms.fraction_bits)).astype(np.int64).view(np.uint64)


def numbers(vector: Vector, terms: Terms) -> np.ndarray:
    """What a sum of `fixed` numbers says, float64."""
    return np.ldexp(vector.view(np.int64).astype(np.float64), -terms.fraction_bits)


def stream(key: bytes, length: int) -> Vector:
    """A mask of `length` integers: the keystream of ChaCha20 under a key that is used for nothing else."""
    cipher = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None)
    return np.frombuffer(cipher.encryptor().update(bytes(8 * length)), dtype="<u8")


def packets(terms: Terms, party: str, own: Secrets, known: Mapping[str, Announced]) -> dict[str, bytes]:
    """For each party, encrypted so that it alone can read it, its shares of this party's seed and mask key.

    `known` are those that have announced themselves, this party among them. Raises `TaskError` where they are too few
    or not who they should be.
    """
    _refuse_strangers(terms, party, known)
    if known[party] != own.announced(terms, party) or len({each.masks for each in known.values()}) < len(known):
        raise TaskError(f"{party}: expected its own keys as it announced them, and everybody else's to differ; they do not.")
    shared = [split(secret, terms.threshold, len(terms.parties)) for secret in (own.seed, own.masks)]
    sealed = {}
    for other in known:
        point = terms.point(other) - 1
        plain = b"".join(shares[point].to_bytes() for shares in shared)
        key = _agreed(terms, own.packets, known[other].packets, "packet", party, other)
        sealed[other] = ChaCha20Poly1305(key).encrypt(bytes(12), plain, None)  # the key is used once, so any nonce will do
    return sealed


def opened(
    terms: Terms, party: str, own: Secrets, known: Mapping[str, Announced], came: Mapping[str, bytes]
) -> dict[str, tuple[Share, Share]]:
    """The shares in packets for this party, by sender: of its seed, and of its mask key."""
    if not came.keys() <= known.keys():
        raise TaskError(f"{party}: expected packets of {', '.join(sorted(known))}; got {', '.join(sorted(came))}.")
    found = {}
    for other, packet in came.items():
        key = _agreed(terms, own.packets, known[other].packets, "packet", other, party)
        try:
            plain = ChaCha20Poly1305(key).decrypt(bytes(12), packet, None)
        except InvalidTag:
            raise TaskError(f"{party}: expected a packet of {other} in this session; it has been changed.") from None
        x = terms.point(party)
        found[other] = (Share.read(x, plain[:SHARE_BYTES]), Share.read(x, plain[SHARE_BYTES:]))
    return found


def masked(
    terms: Terms, party: str, own: Secrets, known: Mapping[str, Announced], sharing: Iterable[str], vector: Vector
) -> Vector:
    """A vector under its own mask, and one with each other party that has shared its secrets (`sharing`)."""
    _refuse_strangers(terms, party, sharing)
    total = vector + stream(_derived(terms, own.seed, "seed", party), len(vector))
    for other in sharing:
        if other != party:
            total = total + between(terms, party, other, own.masks, known[other].masks, len(vector))
    return np.asarray(total)


def revealed(terms: Terms, party: str, shares: Mapping[str, tuple[Share, Share]], arrived: Sequence[str]) -> dict[str, Share]:
    """What this party tells of each other that has shared: of its seed where its vector has `arrived`, else of its mask key."""
    _refuse_strangers(terms, party, arrived)
    missing = [other for other in arrived if other not in shares]
    if missing or len(set(arrived)) < len(arrived):
        raise TaskError(f"{party}: expected vectors of parties that have shared their secrets; got {', '.join(missing)}.")
    return {other: pair[0] if other in arrived else pair[1] for other, pair in shares.items()}


def unmasked(
    terms: Terms,
    known: Mapping[str, Announced],
    vectors: Mapping[str, Vector],
    told: Mapping[str, Mapping[str, Share]],
) -> Vector:
    """The sum of the vectors that have arrived, from what `threshold` parties or more have told (by teller, then party).

    Raises `TaskError` where they are too few, or where what they told is not the secret that was announced.
    """
    total: Vector = np.asarray(sum(vectors.values(), start=np.uint64(0)))
    length = len(total)
    for party in sorted({party for each in told.values() for party in each}):
        secret = combine([each[party] for each in told.values() if party in each], terms.threshold)
        if party in vectors:
            if hashlib.sha256(_label(terms, "seed", party) + secret).digest() != known[party].commitment:
                raise TaskError(f"{party}: the shares of its seed do not give what it announced. Somebody has changed theirs.")
            total = total - stream(_derived(terms, secret, "seed", party), length)
        else:
            if _public(secret) != known[party].masks:
                raise TaskError(f"{party}: the shares of its key do not give what it announced. Somebody has changed theirs.")
            for other in vectors:  # each has a mask with the one that is gone, which nothing cancels
                total = total - between(terms, other, party, secret, known[other].masks, length)
    return np.asarray(total)


def between(terms: Terms, party: str, other: str, private: bytes, public: bytes, length: int) -> Vector:
    """The mask between two parties as `party` adds it; both keys together are one of each."""
    first, second = sorted((party, other))
    mask = stream(_agreed(terms, private, public, "mask", first, second), length)
    return mask if party == first else np.asarray(np.uint64(0) - mask)


def _refuse_strangers(terms: Terms, party: str, named: Iterable[str]) -> None:
    there = set(named)
    if party not in there or not there <= set(terms.parties) or len(there) < terms.threshold:
        expected = f"at least {terms.threshold} of {', '.join(terms.parties)}, {party} among them"
        raise TaskError(f"{party}: expected {expected}; got {', '.join(sorted(there)) or 'nobody'}.")


def _public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def _agreed(terms: Terms, private: bytes, public: bytes, *purpose: str) -> bytes:
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise TaskError(f"{', '.join(purpose)}: expected an X25519 key; got one that agrees on nothing ({error}).") from error
    return _derived(terms, shared, *purpose)


def _derived(terms: Terms, secret: bytes, *purpose: str) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=None, info=_label(terms, *purpose)).derive(secret)


def _label(terms: Terms, *purpose: str) -> bytes:
    return "\x1f".join(("manybody-secure-sum-1", terms.digest, *purpose)).encode()
