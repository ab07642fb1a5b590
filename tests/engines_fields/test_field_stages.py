"""Rounds: whatever the split, what is gathered has the same bits; and what a task refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from manybody.core.errors import TaskError
from manybody.core.random import Key
from manybody.core.task import Output, Task
from manybody.engines.fields.engine import FieldEngine
from manybody.engines.fields.spec import AdvectedField, FiniteVolume
from manybody.engines.fields.stages import advance, gather
from manybody.engines.fields.state import FieldState
from manybody.store.encoding import encode
from manybody.testing.engine import check_engine

Compute = Callable[..., dict[str, Output]]


def method(**changes: Any) -> FiniteVolume:
    fields = {
        "rows": 66,
        "columns": 20,
        "time_step": 0.01,
        "duration": 0.14,
        "sample_every": 0.07,
        "parts": 1,
        "steps_per_round": 1,
    }
    return FiniteVolume.model_validate(fields | changes)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_what_is_gathered_does_not_depend_on_the_split(dye: AdvectedField, compute: Compute, precision: str) -> None:
    found = set()
    for parts, steps in ((1, 1), (1, 7), (2, 1), (2, 4), (3, 2), (8, 1)):
        tasks, measured = method(parts=parts, steps_per_round=steps, precision=precision).plan(dye, 0, 0)
        found.add(encode(compute(method(), tasks)[measured[0].digest]))
    assert len(found) == 1, "the encoded outputs, document and all series included, are equal byte for byte"


def test_what_is_gathered_is_what_the_engine_gives(dye: AdvectedField, compute: Compute) -> None:
    tasks, measured = method(parts=3, steps_per_round=2).plan(dye, 0, 0)
    output = compute(method(), tasks)[measured[0].digest]
    engine = FieldEngine(dye, method().grid)
    state = engine.step(engine.init(Key.from_seed(1)), 14)
    np.testing.assert_array_equal(output.arrays["field"], state.field)
    np.testing.assert_allclose(output.arrays["time"], [0.0, 0.07, 0.14], rtol=1e-15)
    assert output.arrays["error"][-1] == engine.error(state) == output.document["field_error"]
    assert output.arrays["variance"][-1] == engine.observables(state)["variance"]


def test_the_engine_keeps_the_contract(dye: AdvectedField) -> None:
    """The mean may change by round-off: 50 steps, each of at most 8 half units in the last place of about 4 deviations."""
    check_engine(FieldEngine(dye, method().grid), conserved=50 * 8 * 2**-53 * 4)


def test_translating_and_advancing_commute_to_the_bit(dye: AdvectedField) -> None:
    engine = FieldEngine(dye, method().grid)
    state = engine.step(engine.init(Key.from_seed(0)), 3)
    later = engine.step(state, 2).field
    for rows, columns in ((1, 0), (0, 1), (37, 13)):
        moved = FieldState(np.roll(state.field, (rows, columns), (0, 1)), state.step)
        assert engine.conserved(moved) == engine.conserved(state)
        np.testing.assert_array_equal(engine.step(moved, 2).field, np.roll(later, (rows, columns), (0, 1)))


def test_the_mean_stays_to_round_off(dye: AdvectedField, compute: Compute) -> None:
    tasks, measured = method(parts=2, steps_per_round=4, duration=1.4).plan(dye, 0, 0)
    mean = compute(method(), tasks)[measured[0].digest].arrays["mean"]
    (claim,) = method(duration=1.4).conserves(dye)
    assert np.abs(mean - mean[0]).max() <= claim.tolerance < 1e-12


def first_round(dye: AdvectedField, compute: Compute) -> tuple[Task, dict[str, Output]]:
    tasks, _ = method(parts=2, steps_per_round=4).plan(dye, 0, 0)
    task = next(task for task in tasks if task.stage == "advance")
    results = compute(method(), tuple(task for task in tasks if task.stage == "start"))
    return task, {name: results[digest] for name, digest in task.inputs.items()}


def test_a_round_tells_how_far_it_is(dye: AdvectedField, compute: Compute, node: Any) -> None:
    task, inputs = first_round(dye, compute)
    advance(task, inputs, node)
    assert [told.fraction for told in node.told] == [0.25, 0.5, 0.75, 1.0]
    assert node.told[-1].simulated == pytest.approx(0.04 / 2), "half of the square, four steps"


@pytest.mark.parametrize("fault", ["missing", "short", "single", "nan"])
def test_a_round_refuses_a_neighbour_that_is_not_sound(dye: AdvectedField, compute: Compute, node: Any, fault: str) -> None:
    task, inputs = first_round(dye, compute)
    slab = inputs["west"].arrays["slab"]
    if fault == "missing":
        del inputs["west"]
    else:
        bad = {"short": slab[:31], "single": slab.astype("float32"), "nan": np.where(slab == slab.max(), np.nan, slab)}[fault]
        inputs["west"] = Output({"slab": bad})
    with pytest.raises(TaskError, match=r"\[32 or more, 20\] of input `west`.*Compute the task it comes from again"):
        advance(task, inputs, node)


def test_what_is_read_of_a_neighbour_gives_the_same_as_all_of_it(dye: AdvectedField, compute: Compute, node: Any) -> None:
    """`reads` tells the rows that a round needs: given nothing else, it gives the same bits."""
    task, inputs = first_round(dye, compute)
    rows = {name: FiniteVolume.reads(task, name) for name in inputs}
    assert rows == {"west": {"slab": slice(-32, None)}, "own": None, "east": {"slab": slice(32)}}
    cut = {name: Output({"slab": inputs[name].arrays["slab"][rows[name]["slab"]]}) for name in ("west", "east")}  # type: ignore[index]
    assert encode(advance(task, inputs | cut, node)) == encode(advance(task, inputs, node))


def test_gathering_refuses_slabs_that_do_not_make_up_the_grid(dye: AdvectedField, compute: Compute, node: Any) -> None:
    tasks, _ = method(parts=2, steps_per_round=4).plan(dye, 0, 0)
    results = compute(method(), tasks[:2])
    with pytest.raises(TaskError, match=r"make up \[66, 20\]; got \[\[33, 20\]\]"):
        gather(tasks[2], {"part 0000": results[tasks[0].digest]}, node)
