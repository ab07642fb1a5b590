"""The cluster keeps the contract of backends, with a scheduler and two Dask workers as processes of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from manybody.core.protocols import Backend
from manybody.network.cluster import Cluster
from manybody.network.cluster_local import LocalCluster
from manybody.testing.backend import BackendContract
from manybody.testing.methods import installed


class TestCluster(BackendContract):
    machines: LocalCluster

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _machines(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        """One scheduler and two workers for all tests: every test connects anew."""
        folder = tmp_path_factory.mktemp("cluster")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in installed(folder / "plugin").items():
                patch.setenv(name, value)
            machines = LocalCluster(folder, nodes=2)
        with machines:
            cls.machines = machines
            yield

    def start(self, objects_root: Path, workers: int, checkpoint_s: float = 30.0) -> Backend:  # type: ignore[override]
        return Cluster(self.machines.address, objects_root, self.machines.security, workers, checkpoint_s=checkpoint_s)
