"""What is wrong with a result on the face of it, and what looks like no other."""

import numpy as np
import pytest

from manybody.core.task import Output, Task
from manybody.study.structure import Shapes, fault_of, signature


@pytest.mark.parametrize(
    ("output", "fault"),
    [
        (Output({"x": np.zeros(3), "n": np.arange(4)}, {"energy": 1.0, "deep": [{"a": 0.5}]}), ""),
        (Output({"x": np.array([0.0, np.nan, -np.inf])}), "array `x` holds 2 of 3 numbers that are not finite"),
        (Output({"x": np.array([1 + 1j, complex(0, np.inf)], dtype=np.complex64)}), "array `x` holds 1 of 2 numbers"),
        (Output({}, {"deep": [{"a": float("inf")}]}), "document.deep[0].a is not finite"),
        (Output({"flags": np.array([True])}, {"text": "nan", "none": None}), ""),
    ],
)
def test_numbers_that_are_not_finite_are_found(output: Output, fault: str) -> None:
    assert fault_of(output).startswith(fault)
    assert bool(fault_of(output)) == bool(fault)


def test_signatures_tell_names_types_and_shapes() -> None:
    assert signature(Output({"b": np.zeros((2, 3)), "a": np.zeros(1, np.float32)})) == (
        ("a", "float32", (1,)),
        ("b", "float64", (2, 3)),
    )


def test_the_odd_one_is_found_whenever_it_comes() -> None:
    """One of five has another shape; as long as it is not outvoted, nobody is above suspicion."""
    tasks = [Task(method="m", stage="s", version="1", system={}, parameters={}, repeat=repeat) for repeat in range(5)]
    for odd in range(5):
        shapes = Shapes()
        for place, task in enumerate(tasks):
            suspects = shapes.suspects(task, Output({"x": np.zeros(4 if place == odd else 3)}))
        assert suspects == {tasks[odd].digest}
    other_kind = tasks[0].model_copy(update={"parameters": {"longer": 1}})
    assert shapes.suspects(other_kind, Output({"x": np.zeros(9)})) == set()
