"""Every wrong study file is refused with exit code 2, its line, what was expected, what came and the remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from manybody.cli import main

TABLE = yaml.safe_load((Path(__file__).parent / "wrong_files.yaml").read_text())


def wrong_text(case: dict[str, Any]) -> str:
    """The text of a wrong file: whole, or the base with one place changed."""
    if "text" in case:
        return str(case["text"])
    changed = case["to"] if "to" in case else f"atoms: {'9' * case['digits']}"
    assert TABLE["base"].count(case["from"]) == 1, "a case changes one place"
    return str(TABLE["base"]).replace(case["from"], changed)


def refusal(path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What `manybody run` says of a file that it refuses with exit code 2."""
    with pytest.raises(SystemExit) as exit_:
        main(["run", str(path), *arguments])
    said = capsys.readouterr()
    assert exit_.value.code == 2, said.err
    assert said.out == ""
    assert "Traceback" not in said.err
    return said.err


def test_the_base_is_right(tmp_path: Path) -> None:
    from manybody.study.file import load_study

    path = tmp_path / "study.yaml"
    path.write_text(TABLE["base"])
    assert load_study(path).repeats == 2


@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda case: case["name"].replace(" ", "-"))
def test_wrong_file(case: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(wrong_text(case))
    lines = refusal(path, capsys).splitlines()
    assert case["where"] in lines, lines
    block = lines[lines.index(case["where"]) :][1:4]
    for line, (word, wanted) in zip(
        block, (("expected", case["expected"]), ("got", case["got"]), ("remedy", case["remedy"])), strict=True
    ):
        assert line.split()[0] == word
        assert wanted in line


def test_there_are_enough_cases() -> None:
    assert len(TABLE["cases"]) >= 30
    assert len({case["name"] for case in TABLE["cases"]}) == len(TABLE["cases"])


@pytest.mark.parametrize("name", ["unit in a reduced study", "tab", "empty file"])
def test_wrong_file_in_a_process_of_its_own(name: str, tmp_path: Path) -> None:
    case = next(case for case in TABLE["cases"] if case["name"] == name)
    path = tmp_path / "study.yaml"
    path.write_text(wrong_text(case))
    done = subprocess.run([sys.executable, "-m", "manybody", "run", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert case["where"] in done.stderr
    assert case["remedy"] in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(tmp_path / "argon.yaml", capsys)
    assert "argon.yaml" in said
    assert "manybody new" in said


def test_folder_without_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "a folder with study.yaml" in refusal(tmp_path, capsys)


def test_huge_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(b"# padding\n" * 100_001)
    assert "at most 1000000 bytes" in refusal(path, capsys)


def test_binary_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(b"name: argon\n\x89PNG\r\n\x1a\n\x00")
    said = refusal(path, capsys)
    assert "study.yaml:2" in said
    assert "the byte 0x89" in said


def test_deep_nesting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: " + "[" * 5000 + "]" * 5000)
    assert "nesting deeper than 30 levels" in refusal(path, capsys)


def test_more_values_than_any_study_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "study.yaml"
    tens = "".join(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcd", "bcde", strict=True))
    path.write_text("a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + tens)
    assert "aliases that unfold without end" in refusal(path, capsys)


def test_all_problems_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = TABLE["base"].replace("temperature: 0.85", "temperature: -1").replace("repeats: 2", "repeat: 2")
    path = tmp_path / "study.yaml"
    path.write_text(text.replace("{system.density: 0.820}", "{system.density: 1 K}").replace("seed: 1", "seed: 1\nseed: 2"))
    said = refusal(path, capsys, "--set", "method.time_step=1", "--set", "nonsense")
    for where in (
        "study.yaml:5 (system.temperature)",
        "study.yaml:17 (repeat)",
        "study.yaml:16 (sweep, point 2, system.density)",
    ):
        assert where in said
    for where in ("study.yaml:25 (seed)", "--set method.time_step=1", "--set nonsense", "6 problems; nothing has been done."):
        assert where in said
