from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import xarray

from manybody.study.export import replace_whole, write_results


@pytest.fixture
def written(hand_made: Callable[..., Any], tmp_path: Path) -> Any:
    plan, evidence, _ = hand_made()
    return plan, evidence, write_results(tmp_path, plan, evidence)


def test_xarray_opens_the_results_and_finds_the_estimates(written: Any) -> None:
    plan, evidence, (results, _) = written
    with xarray.open_zarr(results, chunks=None) as dataset:
        assert dict(dataset.sizes) == {"point": 4, "repeat": 2, "sample": 512, "hand_curve_bin": 24}
        for place, point in enumerate(plan.points):
            number, curve = evidence.estimate(point, "hand-energy"), evidence.estimate(point, "hand-curve")
            assert dataset.hand_energy[place] == number.value
            assert dataset.hand_energy_error[place] == number.error
            assert dataset.hand_energy_samples_effective[place] == number.samples_effective
            np.testing.assert_array_equal(dataset.hand_curve[place], curve.value)
            np.testing.assert_array_equal(dataset.hand_curve_error[place], curve.error)
            np.testing.assert_array_equal(dataset.hand_curve_axis[place], curve.axis)
        for run in plan.realisations:
            series = dataset.hand_energy_samples.sel(point=run.point.index, repeat=run.repeat)
            np.testing.assert_array_equal(series, evidence.samples(run, "hand-energy").values)


def test_the_results_say_where_they_were_measured_and_from_what(written: Any) -> None:
    plan, _, (results, _) = written
    with xarray.open_zarr(results, chunks=None) as dataset:
        np.testing.assert_array_equal(dataset["system.density"], [0.776, 0.82, 0.86, 0.776])
        np.testing.assert_array_equal(dataset["system.temperature"], [0.85, 0.85, 0.85, 0.9])
        assert list(dataset.label.values) == [point.label for point in plan.points]
        assert dataset.hand_energy.attrs["units"] == "ε"
        assert dataset.attrs["digest"] == plan.study.digest
        assert json.loads(dataset.attrs["document"]) == plan.study.document()
        assert "manybody" in dataset.attrs["versions"]


def test_points_of_different_length_are_padded_with_nan(hand_made: Callable[..., Any], tmp_path: Path) -> None:
    plan, evidence, _ = hand_made(sweep=[{"method.duration": 20.0}, {"method.duration": 60.0}], repeats=1)
    results, _ = write_results(tmp_path, plan, evidence)
    with xarray.open_zarr(results, chunks=None) as dataset:
        counts = np.isfinite(dataset.hand_energy_samples).sum("sample").values
        assert counts.tolist() == [[256], [768]]


def test_ase_opens_the_last_configuration_of_every_realisation(written: Any) -> None:
    plan, evidence, (_, configurations) = written
    frames = ase.io.read(configurations, index=":")
    assert len(frames) == len(plan.realisations)
    for frame, run in zip(frames, plan.realisations, strict=True):
        arrays = evidence.output(run.tasks[-1]).arrays
        np.testing.assert_allclose(frame.get_positions(), arrays["positions"], atol=1e-8)  # written with 8 decimals
        np.testing.assert_allclose(frame.get_velocities(), arrays["velocities"], atol=1e-8)
        np.testing.assert_allclose(frame.cell.lengths(), arrays["box"], atol=1e-12)
        assert frame.pbc.all()
        assert frame.info["point"] == run.point.label
        assert frame.info["repeat"] == run.repeat
        assert frame.info["task"] == run.tasks[-1].digest


def test_writing_again_replaces_and_leaves_nothing_beside(written: Any, hand_made: Callable[..., Any], tmp_path: Path) -> None:
    plan, evidence, _ = hand_made(seed=7)
    write_results(tmp_path, plan, evidence)
    with xarray.open_zarr(tmp_path / "results.zarr", chunks=None) as dataset:
        assert dataset.attrs["digest"] == plan.study.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["configurations.extxyz", "results.zarr"]


def test_a_writer_that_fails_leaves_the_old_file_whole(tmp_path: Path) -> None:
    place = tmp_path / "numbers"
    place.write_text("old")

    def half(path: Path) -> None:
        path.write_text("ne")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        replace_whole(place, half)
    assert place.read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]
