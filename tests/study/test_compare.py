"""Answers of two nodes: equal bits within a class of machines, what is measured between classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manybody.core.certificate import Verdict
from manybody.core.random import Key
from manybody.core.study import Study
from manybody.core.task import Output
from manybody.store.objects import ObjectStore
from manybody.study.audit import Answer
from manybody.study.compare import Comparing
from manybody.study.expand import expand
from manybody.study.roster import Somebody

PLAN = expand(
    Study.model_validate(
        {
            "name": "compared",
            "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
            "method": "molecular-dynamics",
            "measures": ["potential-energy"],
            "checks": ["conservation"],
        }
    )
)
MEASURED, NOT_MEASURED = PLAN.realisations[0].measured[0], PLAN.realisations[0].tasks[0]


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path, scratch=True)


def liquid(course: int, scale: float = 1.0, samples: int = 4096) -> Output:
    """A segment as its node would record it: energies that fluctuate, in another course with other numbers."""
    noise = Key.from_seed(7, course).generator().normal(size=samples)
    series = 500 * (-5.5 + 0.05 * noise) * scale
    return Output(
        {"time": 0.08 * np.arange(1, samples + 1), "potential_energy": series, "pairs": np.zeros(samples)}, {"steps": samples}
    )


def compared(objects: ObjectStore, one: Output, other: Output, classes: tuple[str, str], task=MEASURED) -> tuple[Verdict, str]:
    answers = [
        Answer(task.digest, task.digest, 0, name, Somebody(name, name, each), objects.put(output).digest)
        for name, output, each in zip("ab", (one, other), classes, strict=True)
    ]
    found = [Comparing(PLAN, objects)(*pair) for pair in (answers, answers[::-1])]
    assert found[0] == found[1], "it does not matter who is asked first"
    return found[0].verdict, found[0].how


def test_equal_bits_agree_on_any_machines(objects: ObjectStore) -> None:
    assert compared(objects, liquid(1), liquid(1), ("x", "y")) == (Verdict.HOLDS, "bits")


def test_one_class_of_machine_has_no_excuse(objects: ObjectStore) -> None:
    assert compared(objects, liquid(1), liquid(2), ("x", "x")) == (Verdict.FAILS, "bits")


def test_another_course_agrees_between_classes_and_one_per_cent_does_not(objects: ObjectStore) -> None:
    """The error of the mean is 0.05 / sqrt(4096) = 0.014 % of 5.5 s.d.: one per cent is some seventy of them."""
    how = "observables, between classes of machines"
    assert compared(objects, liquid(1), liquid(2), ("x", "y")) == (Verdict.HOLDS, how)
    assert compared(objects, liquid(1), liquid(2), ("", "")) == (Verdict.HOLDS, how), "a class that nobody told is no class"
    assert compared(objects, liquid(1), liquid(2, scale=1.01), ("x", "y")) == (Verdict.FAILS, how)


def test_another_shape_fails_between_classes_too(objects: ObjectStore) -> None:
    verdict, how = compared(objects, liquid(1), liquid(2, samples=2048), ("x", "y"))
    assert (verdict, how) == (Verdict.FAILS, "names, types and shapes")


def test_what_cannot_be_told_is_undecided(objects: ObjectStore) -> None:
    """Nothing is measured on the way to equilibrium; and a few samples have no error bar to rely on."""
    assert compared(objects, liquid(1), liquid(2), ("x", "y"), NOT_MEASURED)[0] is Verdict.UNDECIDED
    assert compared(objects, liquid(1, samples=8), liquid(2, samples=8), ("x", "y"))[0] is Verdict.UNDECIDED
