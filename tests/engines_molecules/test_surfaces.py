"""Surfaces and basins from populations that are known, and the checks that compare them: what holds, and what must not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from manybody.core.study import Study
from manybody.core.task import Output
from manybody.engines.molecules.sampling import BiasedDynamics
from manybody.engines.molecules.spec import KELVIN, MOLECULAR_UNITS
from manybody.engines.molecules.surfaces import AXIAL, EQUATORIAL, EXTENDED, Region
from manybody.store.objects import ObjectStore
from manybody.store.rows import ResultRow
from manybody.study.answers import answers
from manybody.study.certify import findings
from manybody.study.expand import expand
from manybody.study.export import results_dataset
from manybody.study.maps import is_map, map_figure
from manybody.study.measure import Measured
from manybody.testing.check import verify_check

KT = 300 * KELVIN
BINS, BLOCKS = 24, 10
TORSIONS = ((4, 6, 8, 14), (6, 8, 14, 16))


def study(*checks: str | dict[str, object]) -> Study:
    common = {"name": "biased-dynamics", "torsions": TORSIONS, "bins": BINS, "blocks": BLOCKS}
    return Study.model_validate(
        {
            "name": "synthetic",
            "units": MOLECULAR_UNITS,
            "system": {"name": "molecule", "temperature": KT},
            "method": common,
            "sweep": [{"method.bias": {"name": "metadynamics"}}, {"method.bias": {"name": "umbrella", "windows": [3, 3]}}],
            "repeats": 2,
            "measures": ["axial-free-energy", {"name": "free-energy-surface", "cells": 12}],
            "checks": checks or ({"name": "same-curves", "measures": ["free-energy-surface"], "missing": 0.05},),
        }
    )


def shares() -> np.ndarray:
    """Populations of three basins, exp(-F / kT), [BINS, BINS]."""
    centres = np.radians(-180 + 360 * (np.arange(BINS) + 0.5) / BINS)
    phi, psi = np.meshgrid(centres, centres, indexing="ij")
    wells = [(-80, 70, 0.0), (-155, 165, 0.8), (70, -60, 2.0)]
    parts = [np.exp(4 * (np.cos(phi - np.radians(a)) + np.cos(psi - np.radians(b)) - 2) - depth) for a, b, depth in wells]
    found = np.sum(parts, axis=0)
    return found / found.sum()


@pytest.fixture
def synthetic(tmp_path: Path) -> Callable[..., Measured]:
    """Evidence in which every block of every run holds independent counts of the same populations, but for `wrong` ones."""

    def make(asked: Study, wrong: float = 0.0, missing: bool = False) -> Measured:
        store, plan, generator = ObjectStore(tmp_path / "objects"), expand(asked), np.random.default_rng(7)
        rows = {}
        for task in plan.tasks:
            odd = task.stage == "weigh" and task.parameters["bias"]["name"] == "umbrella"
            expected = shares()
            if odd:
                region = AXIAL.cells(BINS)
                expected[region] *= 0.0 if missing else np.exp(-wrong)
            counts = generator.poisson(20_000 * expected, (BLOCKS, BINS, BINS)).astype(float)
            left_out = [counts.sum(axis=0), *(counts.sum(axis=0) - counts)]
            populations = np.array([part / part.sum() for part in left_out])
            time = np.arange(1.0, 9.0)
            output = Output({"populations": populations, "time": time, "effective_energy": 0 * time}, {})
            stored = store.put(output)
            rows[task.digest] = ResultRow(task.digest, stored.digest, stored.nbytes, 1.0, "worker", "attempt", 0.0, {})
        return Measured(plan, rows, store)

    return make


def exact(region: Region) -> float:
    found = shares()
    return float(-KT * np.log(found[region.cells(BINS)].sum() / found[EQUATORIAL.cells(BINS)].sum()))


def test_free_energies_of_basins_are_those_of_the_populations(synthetic: Callable[..., Measured]) -> None:
    measured = synthetic(study())
    for point in measured.plan.points:
        found = measured.estimate(point, "axial-free-energy")
        assert abs(found.value - exact(AXIAL)) < 4 * found.error
        assert found.error < 0.05
        surface = measured.estimate(point, "free-energy-surface")
        assert surface.axis is not None
        assert surface.axis.shape == (144, 2)
        told = np.isfinite(surface.value)
        assert 40 < told.sum() < 144  # what lies too high is left open
        low = surface.axis[np.nanargmin(surface.value)]
        assert np.abs(low - [-75, 75]).max() <= 15  # the cell of the deepest well


def test_regions_come_round_and_do_not_overlap() -> None:
    cells = [region.cells(72).astype(int) for region in (EQUATORIAL, EXTENDED, AXIAL)]
    assert np.max(sum(cells)) == 1
    assert Region(ranges=((170, -170),)).cells(36)[:, 0].nonzero()[0].tolist() == [0, 35]
    assert EXTENDED.cells(72)[0, 71]  # -177.5, 177.5 degrees


def test_curves_that_differ_are_told_apart(synthetic: Callable[..., Measured]) -> None:
    """Half a kT in one basin of three, and a basin that one method never finds."""
    asked = study()
    good, check = synthetic(asked), asked.checks[0]
    verify_check(check, good, synthetic(asked, wrong=0.5))
    found = {finding.name.rpartition(", ")[2]: finding for finding in check.judge(synthetic(asked, missing=True), ())}
    assert found["coverage"].verdict == "fails"


def test_the_histogram_of_unbiased_runs_is_an_oracle(synthetic: Callable[..., Measured]) -> None:
    asked = study({"name": "unbiased", "duration": 100.0})
    verify_check(asked.checks[0], synthetic(asked), synthetic(asked, wrong=0.5))
    tasks = asked.checks[0].tasks(expand(asked))
    assert [task.stage for task in tasks] == ["equilibrate", "sample", "weigh"] * 2
    assert tasks[1].parameters["bias"] == {"name": "none"}


def test_reports_draw_maps_and_exports_hold_them(synthetic: Callable[..., Measured]) -> None:
    measured = synthetic(study())
    certificate = findings(measured.plan, measured)
    found = answers(measured.plan, measured, certificate)
    assert [answer.measure.name for answer in found if is_map(answer)] == ["free-energy-surface"] * 2
    drawn = map_figure([answer for answer in found if is_map(answer)])
    assert drawn.name == "map-free-energy-surface"
    assert "metadynamics" in drawn.alt
    assert "psi" in drawn.svg or "ψ" in drawn.svg
    dataset = results_dataset(measured.plan, measured)
    assert dataset.free_energy_surface.shape == (2, 144)
    assert dataset.free_energy_surface_axis.shape == (144, 2)


def test_one_torsion_is_a_curve() -> None:
    method = BiasedDynamics(torsions=TORSIONS[:1], bias={"name": "umbrella", "windows": [9], "stiffness": [20.0]}, duration=9.0)
    assert method.windows == 9
    assert Region(ranges=((0, 90),)).cells(8).shape == (8, 1)
