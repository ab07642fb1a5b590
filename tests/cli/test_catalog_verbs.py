"""`systems`, `methods`, `measures`, `checks`, `new` and `doctor`: what they say is what the typed specs say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manybody import __version__
from manybody.cli import main
from manybody.core import catalog
from manybody.study.file import load_study


def call(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What a command prints, having left with the exit code."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    said = capsys.readouterr()
    assert exit_.value.code == code, said.err
    return said.out if code == 0 else said.out + said.err


@pytest.mark.parametrize("group", ["systems", "methods", "measures", "checks"])
def test_every_member_is_shown_with_every_parameter(group: catalog.Group, capsys: pytest.CaptureFixture[str]) -> None:
    members = {member["name"]: member for member in json.loads(call(capsys, group, "--json"))}
    assert set(members) == set(catalog.entries(group))
    for name, member in members.items():
        fields = catalog.load_spec(group, name).model_fields
        assert [parameter["name"] for parameter in member["parameters"]] == [field for field in fields if field != "name"]
        assert member["summary"]
        assert all(parameter["description"] for parameter in member["parameters"])
    said = call(capsys, group)
    assert all(name in said for name in members)


def test_parameters_carry_unit_default_and_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    (system,) = json.loads(call(capsys, "systems", "lennard-jones-liquid", "--json"))
    parameters = {parameter["name"]: parameter for parameter in system["parameters"]}
    assert parameters["temperature"] | {"description": ""} == {
        "name": "temperature",
        "kind": "number",
        "dimension": "temperature",
        "unit": "K",
        "required": True,
        "default": None,
        "bounds": {"gt": 0},
        "limits": "> 0",
        "choices": [],
        "description": "",
    }
    assert parameters["cutoff"]["default"] == 3.0
    assert parameters["atoms"]["kind"] == "whole number"
    (method,) = json.loads(call(capsys, "methods", "molecular-dynamics", "--json"))
    thermostat = next(parameter for parameter in method["parameters"] if parameter["name"] == "thermostat")
    assert thermostat["choices"] == ["bussi", "langevin", "nose-hoover", "none"]


def test_an_unknown_member_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean `conservation`?" in call(capsys, "checks", "conversation", code=2)


def test_new_writes_a_study_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "argon.yaml"
    assert str(path) in call(capsys, "new", "lennard-jones-liquid", str(path))
    study = load_study(path)
    assert study.system.name == "lennard-jones-liquid"
    text = path.read_text()
    for field in type(study.system).model_fields.values():
        assert not field.description or field.description in text


@pytest.mark.parametrize("system", catalog.entries("systems"))
def test_new_writes_a_study_of_any_system(system: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, "new", system, str(tmp_path / "study.yaml"))
    study = load_study(tmp_path / "study.yaml")
    assert study.system.name == system
    assert study.measures
    assert all(not check.methods or study.method.name in check.methods for check in study.checks)


def test_new_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "argon.yaml"
    path.write_text("mine")
    assert "not there yet" in call(capsys, "new", "lennard-jones-liquid", str(path), code=2)
    assert path.read_text() == "mine"
    assert "Did you mean" in call(capsys, "new", "lenard-jones", str(tmp_path / "other.yaml"), code=2)
    assert "No such file" in call(capsys, "new", "lennard-jones-liquid", str(tmp_path / "no" / "folder.yaml"), code=2)


def test_doctor_finds_everything_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MANYBODY_HOME", str(tmp_path / "home"))
    found = {diagnosis["name"]: diagnosis for diagnosis in json.loads(call(capsys, "doctor", "--json"))}
    assert found["manybody"]["found"] == __version__
    assert found["home"]["found"].startswith(str(tmp_path / "home"))
    assert found["ledger"]["found"] == "none yet; the first run makes it"
    assert {"python", "torch", "compiler", "gpu", "numba threading", "space", "systems", "backends"} <= set(found)
    assert not (tmp_path / "home").exists()
    assert "Studies can run." in call(capsys, "doctor")


def test_doctor_says_what_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"this is no database" * 100)
    monkeypatch.setenv("MANYBODY_HOME", str(tmp_path))
    said = call(capsys, "doctor", code=1)
    assert "missing  ledger" in said
    assert f"Move {tmp_path / 'ledger.sqlite'} away" in said


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version") == f"manybody {__version__}\n"


def test_an_unknown_verb_is_wrong_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert "simulate" in call(capsys, "simulate", code=2)
