"""Addresses: which backend they mean, and what is said of those that mean none."""

from __future__ import annotations

from pathlib import Path

import pytest

from manybody.core.errors import InputError
from manybody.network.addresses import open_backend
from manybody.network.local import Embedded
from manybody.store.home import Home


def test_no_address_is_this_machine(tmp_path: Path) -> None:
    backend = open_backend(None, Home(tmp_path), 3)
    assert isinstance(backend, Embedded)
    assert [node.workers for node in backend.nodes()] == [3]
    backend.close()


@pytest.mark.parametrize(
    "address",
    [
        "", "cluster", "localhost:8786", "tls://", "tls://host", "tls://host:port", "tls://host:99999", "https://host",
        "http://host:1", "tls://user@host:1", "tls://host:1/path", "https://host:1/?query", "dask://[::1:5",
    ],
)  # fmt: skip
def test_wrong_address_is_a_problem_of_the_input(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_backend(address, Home(tmp_path), None)
    [problem] = caught.value.problems
    assert problem.where == "network"
    assert "tls://HOST:PORT" in problem.expected
    assert address in problem.came


def test_open_scheduler_elsewhere_is_refused(tmp_path: Path) -> None:
    """Whoever reaches a scheduler without TLS has code run by it."""
    with pytest.raises(InputError, match="Start the scheduler and its workers with certificates"):
        open_backend("tcp://192.0.2.1:8786", Home(tmp_path), None)


@pytest.mark.parametrize("scheme", ["dask", "tls"])
def test_cluster_needs_certificates(scheme: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ca\.pem, cert\.pem, key\.pem"):
        open_backend(f"{scheme}://127.0.0.1:1", Home(tmp_path), None)


@pytest.mark.parametrize("scheme", ["manybody", "https"])
def test_federation_is_that_of_the_home(scheme: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gateway"):
        open_backend(f"{scheme}://127.0.0.1:1", Home(tmp_path), None)
