"""Keys and certificates: the federation's authority, the gateway's server key, each member's own key.

ECDSA on P-256 throughout (FIPS 186-5): every TLS library speaks it. Certificates are valid from a day before they are
made, so that a machine whose clock is slow can join.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from manybody.core.errors import InputError, Problem

Key = ec.EllipticCurvePrivateKey
CURVE = ec.SECP256R1()
SIGNATURE = ec.ECDSA(hashes.SHA256())
SLACK = datetime.timedelta(days=1)  # how far a member's clock may lag behind the authority's
AUTHORITY_DAYS, MEMBER_DAYS, SERVER_DAYS = 3650, 365, 365


@dataclass(frozen=True)
class Authority:
    """Who signs: the key, and the certificate that all members pin."""

    key: Key
    certificate: x509.Certificate

    @classmethod
    def create(cls) -> Authority:
        """A new authority, named at random so that two are never mistaken for each other."""
        key = ec.generate_private_key(CURVE)
        name = _name(f"Manybody authority {os.urandom(4).hex()}")
        builder = _builder(name, name, key.public_key(), AUTHORITY_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        return cls(key, builder.sign(key, hashes.SHA256()))

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """The authority kept in a folder."""
        return cls(load_key(folder / "authority.key"), load_certificate(folder / "authority.pem"))

    def save(self, folder: Path) -> None:
        """Keep it, the key readable by its owner alone."""
        write_key(folder / "authority.key", self.key)
        (folder / "authority.pem").write_bytes(pem(self.certificate))

    def sign_server(self, key: Key, hosts: list[str]) -> x509.Certificate:
        """A certificate for a gateway that is reached under `hosts`, names or addresses."""
        builder = self._member("Manybody gateway", key.public_key(), SERVER_DAYS, ExtendedKeyUsageOID.SERVER_AUTH)
        names = x509.SubjectAlternativeName([_general_name(host) for host in dict.fromkeys(hosts)])
        return builder.add_extension(names, critical=False).sign(self.key, hashes.SHA256())

    def sign_member(self, request: x509.CertificateSigningRequest, name: str, days: int = MEMBER_DAYS) -> x509.Certificate:
        """A certificate for a member's own key; of the request nothing but the key is taken."""
        key = request.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey), "checked by `parse_request`"
        return self._member(name, key, days, ExtendedKeyUsageOID.CLIENT_AUTH).sign(self.key, hashes.SHA256())

    def _member(
        self, name: str, key: ec.EllipticCurvePublicKey, days: int, usage: x509.ObjectIdentifier
    ) -> x509.CertificateBuilder:
        builder = _builder(_name(name), self.certificate.subject, key, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return builder.add_extension(issuer, critical=False)


def new_key() -> Key:
    """A fresh private key."""
    return ec.generate_private_key(CURVE)


def signing_request(key: Key, name: str) -> str:
    """A request to have a key signed, as PEM; proves that the asker has the private key."""
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(name)).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def parse_request(text: str) -> x509.CertificateSigningRequest | None:
    """A signing request for a P-256 key whose own signature holds; None for anything else."""
    try:
        request = x509.load_pem_x509_csr(text.encode())
        key = request.public_key()
        fits = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
        return request if fits and request.is_signature_valid else None
    except (ValueError, TypeError, InvalidSignature):
        return None


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def fingerprint_der(data: bytes) -> str:
    """SHA-256 of a certificate as TLS hands it over."""
    return hashlib.sha256(data).hexdigest()


def sign(key: Key, message: bytes) -> str:
    """The signature of a message, base64."""
    return base64.b64encode(key.sign(message, SIGNATURE)).decode()


def verify(certificate: str, message: bytes, signature: str) -> bool:
    """Whether a signature of a message is by the key of a PEM certificate."""
    key = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(base64.b64decode(signature, validate=True), message, SIGNATURE)
    except (InvalidSignature, ValueError):
        return False
    return True


def pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def write_key(path: Path, key: Key) -> None:
    """Write a private key, readable by its owner alone from the first moment."""
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)


def load_key(path: Path) -> Key:
    """A private key from a file that `write_key` made; anything else raises `InputError`."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            Problem(str(path), "a private key in PEM", str(error), "Restore it from a copy, or join anew.")
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InputError(Problem(str(path), "a P-256 key", type(key).__name__, "Restore it from a copy, or join anew."))
    return key


def load_certificate(path: Path) -> x509.Certificate:
    """A certificate from a PEM file; anything else raises `InputError`."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            Problem(str(path), "a certificate in PEM", str(error), "Restore it from a copy, or join anew.")
        ) from error


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])  # 64: the standard's limit (RFC 5280, ub-common-name)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
