"""What a study of a field may ask for, and how it is laid out as tasks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from manybody.core.study import Study
from manybody.engines.fields.known_answers import stability_limit
from manybody.engines.fields.parts import STEP_HALO, part_rows
from manybody.engines.fields.spec import CELL_BYTES, ROUNDING, AdvectedField, FiniteVolume
from manybody.numerics.rounds import Costs
from manybody.numerics.stencils import HALO


def method(**changes: Any) -> FiniteVolume:
    fields = {"rows": 64, "columns": 32, "time_step": 0.01, "duration": 0.4, "sample_every": 0.1, "parts": 2}
    return FiniteVolume.model_validate(fields | changes)


def test_the_spec_knows_the_halo_of_the_kernels() -> None:
    assert STEP_HALO == HALO
    assert CELL_BYTES.keys() == ROUNDING.keys()


@pytest.mark.parametrize(
    ("changes", "expected", "remedy"),
    [
        ({"sample_every": 0.105}, "a whole multiple of time_step = 0.01", "Take 0.1."),
        ({"duration": 0.1}, "at least 2 samples, 0.2", "Sample more often."),
        ({"parts": 9}, "slabs of at least 8 rows", "Take at most 8 parts."),
        ({"steps_per_round": 5}, "1 to 4 with 2 parts", "take fewer parts or steps"),
        ({"steps_per_round": 0}, "1 to 4 with 2 parts", "take fewer parts or steps"),
        ({"parts": 1, "steps_per_round": 11}, "1 to 8 with 1 parts", "take fewer parts or steps"),
    ],
)
def test_impossible_splits_are_refused_with_the_remedy(changes: dict[str, Any], expected: str, remedy: str) -> None:
    with pytest.raises(ValidationError) as caught:
        method(**changes)
    assert expected in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "expected"), [({"waves": [], "gaussians": []}, "wave or Gaussian"), ({"velocity_x": 0}, "neither")]
)
def test_fields_in_which_nothing_happens_are_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        AdvectedField.model_validate({"gaussians": [{}]} | fields)


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ({"waves": [{"cycles_x": 9, "cycles_y": 0}]}, "at least 72 rows"),
        ({"waves": [{"cycles_x": 0, "cycles_y": 5}]}, "at least 40 columns"),
        ({"gaussians": [{"width": 0.05}]}, "at least 40 columns"),
        ({"waves": [{"cycles_x": 0, "cycles_y": 0}]}, "a wave that varies"),
    ],
)
def test_what_the_grid_does_not_resolve_is_refused(system: dict[str, Any], expected: str) -> None:
    document = {"name": "rough", "system": {"name": "advected-field"} | system, "measures": ["field-error"], "checks": ["exact"]}
    with pytest.raises(ValidationError, match=expected):
        Study.model_validate(document | {"method": method(time_step=0.001)})


def test_a_time_step_beyond_the_limit_is_refused_by_the_study(dye: AdvectedField) -> None:
    limit = stability_limit(dye, 64, 32)
    step = 1.02 * limit
    document = {
        "name": "fast", "system": dye, "measures": ["field-error"], "checks": ["exact"],
        "method": method(time_step=step, sample_every=step, duration=4 * step),
    }  # fmt: skip
    with pytest.raises(ValidationError, match=r"time_step of at most 0\.\d+.*Lower `time_step`"):
        Study.model_validate(document)
    document["method"] = method(time_step=0.98 * limit, sample_every=limit * 0.98, duration=4 * limit)
    assert Study.model_validate(document).method.name == "finite-volume"


@pytest.mark.parametrize(("rows", "parts"), [(64, 1), (64, 3), (130, 7), (16, 2)])
def test_parts_cover_every_row_once(rows: int, parts: int) -> None:
    bounds = [part_rows(rows, parts, part) for part in range(parts)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == rows
    assert all(before[1] == after[0] for before, after in pairwise(bounds))
    assert min(last - first for first, last in bounds) == rows // parts


def test_rounds_fill_the_time_between_samples(dye: AdvectedField) -> None:
    tasks, measured = method(steps_per_round=4).plan(dye, 0, 0)
    rounds = [task for task in tasks if task.stage == "advance"]
    assert [task.parameters["steps"] for task in rounds[:6:2]] == [4, 4, 2]
    assert [task.parameters["begin"] for task in rounds[::2]] == [0, 4, 8, 10, 14, 18, 20, 24, 28, 30, 34, 38]
    assert [task.stage for task in measured] == ["gather"]
    known: set[str] = set()
    for task in tasks:
        assert set(task.inputs.values()) <= known
        known.add(task.digest)


def test_a_longer_study_keeps_the_tasks_of_a_shorter_one(dye: AdvectedField) -> None:
    short, _ = method().plan(dye, 0, 0)
    long, _ = method().extended(2.0).plan(dye, 0, 0)
    assert {task.digest for task in short} < {task.digest for task in long}


def test_auto_follows_the_costs_and_nothing_else(dye: AdvectedField) -> None:
    far, near = Costs(latency_s=1.0), Costs(dispatch_s=0.0, latency_s=1e-6, bytes_per_s=1e12)
    assert method(costs=far).split.steps_per_round > method(costs=near).split.steps_per_round == 1
    assert method(costs=far).plan(dye, 0, 0) == method(costs=far).plan(dye, 0, 0)
    chosen = method(costs=far).split.steps_per_round
    explicit, _ = method(costs=far, steps_per_round=chosen).plan(dye, 0, 0)
    assert [task.digest for task in explicit] == [task.digest for task in method(costs=far).plan(dye, 0, 0)[0]]
