"""The table of faults in the documentation says what the tests show, and no fault is without a test."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("fault_table.py")


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """What the script defines."""
    return runpy.run_path(str(SCRIPT), run_name="fault_table")


def test_the_table_of_the_page_is_that_of_the_tests(made: dict[str, Any]) -> None:
    text = made["PAGE"].read_text(encoding="utf-8")
    assert made["BEGIN"] in text
    assert made["page"](text, made["everything"]()) == text, f"run `python {SCRIPT.relative_to(SCRIPT.parents[2])} --write`"


def test_some_test_shows_what_happens_for_every_fault(made: dict[str, Any]) -> None:
    assert {each.fault for each in made["everything"]()} == set(made["FAULTS"])


def test_a_mark_with_an_unknown_fault_or_without_a_word_is_refused(made: dict[str, Any]) -> None:
    path = made["TESTS"] / "faults" / "test_nowhere.py"
    marks = {
        '("gremlins", on="federation", happens="h", kept="k")': SystemExit,
        '("clock skew", on="abacus", happens="h", kept="k")': SystemExit,
        '("clock skew", on="federation", happens="h")': TypeError,
    }
    for words, error in marks.items():
        mark = made["ast"].parse(f"pytest.mark.fault{words}", mode="eval").body
        with pytest.raises(error):
            made["shown"](mark, str(path))
