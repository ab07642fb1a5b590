"""Addresses: which backend they mean, and what is said of those that mean none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from manybody.core.errors import InputError
from manybody.network.addresses import open_backend
from manybody.network.cluster import Cluster
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


def test_cluster_that_is_up_has_the_address_that_it_prints(tmp_path: Path) -> None:
    """`manybody network up --cluster` makes certificates that `--network` finds; asked to end, it ends with all of its own."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "manybody", "network", "up", "--cluster", "--workers", "3"],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"MANYBODY_HOME": str(tmp_path)},
    ) as up:  # fmt: skip
        assert up.stdout is not None
        words = up.stdout.readline().split()
        assert words[:2] == ["Scheduler", "at"]
        backend = open_backend(words[2], Home(tmp_path), None)
        assert isinstance(backend, Cluster)
        assert [(node.name, node.workers) for node in backend.nodes()] == [("node-1", 3)]
        backend.close()
        started = psutil.Process(up.pid).children(recursive=True)
        up.send_signal(signal.SIGTERM)
        assert up.wait(20.0) == 0
        assert started
        assert not any(process.is_running() for process in started)
