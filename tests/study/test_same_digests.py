"""The study of the gallery that needs no split, small, on all backends with real processes: the same bits everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from manybody.study.expand import expand
from manybody.study.file import load_study
from manybody.testing.three_backends import BACKENDS, results_on

GALLERY = Path(__file__).parents[2] / "studies" / "lennard-jones-liquid"
SMALL = ["scale=0.01", "system.atoms=256", "method.equilibration=1", "repeats=2", "sweep=[{system.density: 0.776}]"]


@pytest.mark.timeout(600)
def test_a_liquid_has_the_same_bits_on_three_backends(tmp_path: Path) -> None:
    """Runs, their coarser twins and their replicas: every result of embedded workers, a Dask cluster, and a federation."""
    study = load_study(GALLERY, SMALL)
    found = {where: results_on(where, study, tmp_path / where) for where in BACKENDS}
    assert found["embedded"].keys() == {task.digest for task in expand(study).tasks}
    assert found["cluster"] == found["embedded"]
    assert found["federation"] == found["embedded"]
