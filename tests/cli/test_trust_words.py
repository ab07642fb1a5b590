"""`manybody run --trust`: words that are no policy are refused before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from manybody.cli import main

STUDY = """
name: tiny
system: {name: lennard-jones-liquid, temperature: 0.9, density: 0.8, atoms: 108, cutoff: 2.5}
method: {name: molecular-dynamics, equilibration: 2, duration: 8, segment: 4, frame_every: 0.8}
measures: [potential-energy]
checks: [conservation]
"""


def test_a_misspelt_setting_is_refused_with_the_right_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(STUDY)
    monkeypatch.setenv("MANYBODY_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["manybody", "run", "tiny.yaml", "--trust", "spto=0.2"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "Did you mean `spot`?" in capsys.readouterr().err
    assert not (tmp_path / "home").exists(), "nothing has been done"
