"""Certificates of a cluster: who has them belongs to it. Both sides of every connection show and check them."""

from __future__ import annotations

import os
from pathlib import Path

import dask
from distributed import Security

from manybody.core.errors import InputError, Problem

FILES = ("ca.pem", "cert.pem", "key.pem")


def security_of(folder: Path) -> Security:
    """The certificates in a folder: `ca.pem`, `cert.pem` and `key.pem`, which all roles share. Nothing goes unencrypted."""
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        remedy = (
            "Copy them from where the scheduler was started, or name others by DASK_DISTRIBUTED__COMM__TLS__CA_FILE and so on."
        )
        raise InputError(Problem(str(folder), f"the cluster's {', '.join(FILES)}", f"no {', '.join(missing)}", remedy))
    ca, cert, key = (str(folder / name) for name in FILES)
    return Security(  # type: ignore[no-untyped-call]  # the package's types end here
        require_encryption=True, tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key, tls_scheduler_cert=cert,
        tls_scheduler_key=key, tls_worker_cert=cert, tls_worker_key=key,
    )  # fmt: skip


def find_security(folder: Path) -> Security:
    """The certificates that Dask's own configuration names (files or ``DASK_DISTRIBUTED__COMM__TLS__*``), else the folder's."""
    if dask.config.get("distributed.comm.tls.ca-file", None):
        return Security(require_encryption=True)  # type: ignore[no-untyped-call]
    return security_of(folder)


def write_certificates(folder: Path) -> None:
    """Make the certificates of a new cluster, readable by their owner alone; what is there already stays."""
    if all((folder / name).is_file() for name in FILES):
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = Security.temporary()  # type: ignore[no-untyped-call]  # self-signed: its own authority
    contents = (made.tls_ca_file, made.tls_scheduler_cert, made.tls_scheduler_key)
    for name, content in zip(FILES, contents, strict=True):
        (folder / name).unlink(missing_ok=True)
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(content)
