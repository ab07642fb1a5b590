"""The reference check."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from manybody.checks.reference import Reference, read_table
from manybody.core.certificate import Verdict
from manybody.testing.check import verify_check


@pytest.mark.parametrize("wrong", [{"energy_offset": 0.01}, {"energy_offset": -0.01}, {"pressure_offset": 0.03}, {"noise": 40.0}])
def test_contract(evidence, wrong) -> None:
    verify_check(Reference(), evidence("reference"), evidence("reference", **wrong))


def test_agreement_within_large_errors_is_undecided(evidence) -> None:
    found = Reference().judge(evidence("reference", noise=40.0), ())
    assert {finding.verdict for finding in found} == {Verdict.UNDECIDED}


def test_a_cutoff_without_correction_is_noticed(evidence) -> None:
    # At r_c = 3 the tail is worth -0.24 in U and -0.37 in p at this density.
    found = Reference().judge(evidence("reference", energy_offset=0.24, pressure_offset=0.37), ())
    assert all(finding.verdict is Verdict.FAILS for finding in found)


def test_a_point_that_nobody_published_is_undecided(evidence, tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("# Somebody, 2020\nsystem.density,pressure,pressure error\n0.82,0.5535,0.003\n")
    found = Reference(table=str(table)).judge(evidence({"name": "reference", "table": str(table)}), ())
    assert [finding.verdict for finding in found] == [Verdict.UNDECIDED, Verdict.HOLDS]
    assert found[1].source == "Somebody, 2020"


def test_shipped_table_is_the_published_one() -> None:
    table = read_table("nist-lennard-jones")
    assert "SRD 173" in table.source
    first = table.rows[0]
    assert (first["potential-energy"], first["potential-energy error"]) == (-5.5121, 4.55e-4)
    assert len(table.rows) == 10


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, "path of a CSV file"),
        ("system.density,pressure,pressure error\n0.8,1,1\n", "comment lines with the source"),
        ("# source\nsystem.density,pressure\n0.8,1\n", "comment lines with the source"),
        ("# source\nsystem.density,pressure,pressure error\n0.8,one,1\n", "a number in every cell"),
        ("# source\nsystem.density,pressure,pressure error\n0.8\n", "a number in every cell"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(tmp_path: Path, text: str | None, part: str) -> None:
    table = tmp_path / "table.csv"
    if text is not None:
        table.write_text(text)
    with pytest.raises(ValidationError, match=part):
        Reference(table=str(table))


def test_a_misspelt_table_is_answered_with_the_closest() -> None:
    with pytest.raises(ValidationError, match="Did you mean `nist-lennard-jones`"):
        Reference(table="nist-lennard-jonse")
