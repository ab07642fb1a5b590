"""The study of the gallery that needs no split, small, on all backends with real processes: the same bits everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ["scale=0.01", "system.atoms=256", "method.equilibration=1", "repeats=2", "sweep=[{system.density: 0.776}]"]


@pytest.mark.timeout(600)
def test_a_liquid_has_the_same_bits_on_three_backends(tmp_path: Path) -> None:
    """Runs, their coarser twins and their replicas: every result of embedded workers, a Dask cluster, and a federation."""
    command = [sys.executable, "-m", "benchmarks.same_digests", "studies/lennard-jones-liquid", "--folder", str(tmp_path)]
    command += [word for setting in SMALL for word in ("--set", setting)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = json.loads(told.splitlines()[-1])
    assert found["backends"] == ["embedded", "cluster", "federation"]
    assert found["equal"] == found["tasks"] == 7  # two runs of two links, two steps compared, a replica
