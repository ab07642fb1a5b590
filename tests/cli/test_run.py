"""`manybody run` and `show` on real runs, as real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manybody.cli import main
from manybody.core.certificate import Certificate
from manybody.store.home import Home
from manybody.study.file import load_study

STUDY = """
name: tiny
title: A tiny study
system: {name: lennard-jones-liquid, temperature: 0.9, density: 0.8, atoms: 108, cutoff: 2.5}
method: {name: molecular-dynamics, equilibration: 2, duration: 8, segment: 4, frame_every: 0.8}
sweep: {system.density: [0.75, 0.8]}
measures: [potential-energy, pressure]
checks: [conservation]
"""
DOOMED = STUDY.replace("checks: [conservation]", "checks: [reference]")  # 8 tau decide nothing against published values
LONG = STUDY.replace("duration: 8", "duration: 120").replace("segment: 4", "segment: 20")


def manybody(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command run in a folder, with a home of its own there."""
    environment = os.environ | {"MANYBODY_HOME": str(folder / "home"), "COLUMNS": "200"}
    command = [sys.executable, "-m", "manybody", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=280)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder in which the tiny study has been run, and what the command said."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(STUDY)
    return folder, manybody(folder, "run", "tiny.yaml", "--json")


def test_json_line(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = finished
    said = json.loads(done.stdout.splitlines()[-1])
    assert set(said) == {"study", "digest", "verdict", "certificate", "report", "tasks", "wall_s"}
    assert said["study"] == "tiny"
    assert said["digest"] == load_study(folder / "tiny.yaml").digest
    assert said["tasks"] == {"total": 6, "computed": 6, "cached": 0, "failed": 0}
    assert (done.returncode == 0) == (said["verdict"] == "holds")
    certificate = Certificate.model_validate_json((folder / said["certificate"]).read_bytes())
    assert (certificate.verdict, certificate.digest) == (said["verdict"], said["digest"])
    assert (folder / said["report"]).stat().st_size > 1000
    assert said["wall_s"] > 0


def test_progress_goes_to_standard_error(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = finished
    assert len(done.stdout.splitlines()) == 1
    for words in (
        "tiny: A tiny study",
        "2 points, 1 run each: 6 tasks, 0 already done",
        "6 of 6 tasks done",
        "simulated",
        "Report: ",
    ):
        assert words in done.stderr


def test_the_kept_study_repeats_the_run(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = finished
    said = json.loads(done.stdout)
    again = manybody(folder, "run", str(Path(said["report"]).parent / "study.yaml"), "--json", "--quiet")
    assert json.loads(again.stdout)["digest"] == said["digest"]
    assert json.loads(again.stdout)["tasks"] == {"total": 6, "computed": 0, "cached": 6, "failed": 0}
    assert again.stderr == ""


def test_a_setting_recomputes_only_what_changed(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = finished
    arguments = ("--set", "sweep={system.density: [0.75, 0.7]}", "--out", "elsewhere", "--nodes", "1")
    done = manybody(folder, "run", "tiny.yaml", *arguments, "--json")
    said = json.loads(done.stdout)
    assert said["tasks"] == {"total": 6, "computed": 3, "cached": 3, "failed": 0}
    assert Path(said["report"]).parent == Path("elsewhere")
    assert "1 worker on" in done.stderr


def test_undecided_is_exit_code_1(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = finished
    (folder / "doomed.yaml").write_text(DOOMED)
    done = manybody(folder, "run", "doomed.yaml", "--quiet")
    assert done.returncode == 1
    assert re.match(r"  (undecided|fails): ", done.stdout)
    assert re.match(r"(undecided|fails) \(0 of ", done.stdout.splitlines()[-1])
    assert done.stderr == ""


def test_json_line_of_a_run_that_is_stopped(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = finished
    done = manybody(
        folder, "run", "tiny.yaml", "--set", "method.duration=4000", "--set", "budget.wall_time=1 s", "--json", "--quiet"
    )
    said = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 1
    assert (said["study"], said["verdict"], said["certificate"]) == ("tiny", "undecided", None)
    assert "Run again to go on" in said["error"]
    assert said["error"] in done.stderr


Show = Callable[..., tuple[int, str, str]]


@pytest.fixture
def show(
    finished: tuple[Path, subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Show:
    """`manybody show` where the tiny study has been run: exit code, standard output, standard error."""
    monkeypatch.chdir(finished[0])
    monkeypatch.setenv("MANYBODY_HOME", str(finished[0] / "home"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main(["show", *words])
        said = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, said.out, said.err

    return call


def test_show_as_json(finished: tuple[Path, subprocess.CompletedProcess[str]], show: Show) -> None:
    said = json.loads(finished[1].stdout)

    def answer(*words: str) -> Any:
        code, out, _ = show(*words, "--json")
        assert code == 0
        return json.loads(out)

    assert said["digest"] in {study["digest"] for study in answer()["studies"]}
    first = next(run for run in answer("runs") if run["run"] == 1)
    assert (first["study"], first["state"], first["digest"]) == ("tiny", said["verdict"], said["digest"])
    assert first["command"] == "manybody run tiny.yaml"
    run = answer("1")
    assert [task["state"] for task in run["tasks"]] == ["finished"] * 6
    task = answer(run["tasks"][1]["task"][:10])
    assert task["result"]["digest"] == run["tasks"][1]["result"]
    assert task["task"]["stage"] == "produce"
    assert answer("certificate", "1")["verdict"] == said["verdict"]
    assert answer("certificate", said["certificate"])["digest"] == said["digest"]
    assert {row["study"] for row in answer("tiny")} == {"tiny"}


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ((), ("study", "tiny", "recorded")),
        (("studies",), ("A tiny study",)),
        (("runs",), ("folder", "runs/tiny-")),
        (("1",), ("equilibrate", "produce", "finished", "manybody run tiny.yaml")),
        (("certificate", "1"), ("conservation of", "tolerance", "Not checked: reference")),
    ],
)
def test_show_for_people(show: Show, what: tuple[str, ...], words: tuple[str, ...]) -> None:
    code, out, _ = show(*what)
    assert code == 0
    assert all(word in out for word in words), out


@pytest.mark.parametrize(
    "what",
    [
        ("99",),
        ("zzz",),
        ("ffffffff",),
        ("runs", "3"),
        ("certificate", "99"),
        ("certificate", "nowhere.json"),
        ("certificate", "tiny.yaml"),
    ],
)
def test_show_of_what_is_not_there(show: Show, what: tuple[str, ...]) -> None:
    code, _, said = show(*what)
    assert code == 2
    assert "remedy" in said


def test_control_c_keeps_finished_work(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(LONG)
    environment = os.environ | {"MANYBODY_HOME": str(tmp_path / "home"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "manybody", "run", "long.yaml"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": tmp_path, "env": environment}
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        said = []
        for line in process.stdout:
            said.append(line)
            if re.match(r"  [1-9]\d* of 14 tasks done", line):
                os.killpg(process.pid, signal.SIGINT)  # what a terminal does: to the run and to its workers
                break
        said += list(process.stdout)
        assert process.wait(timeout=60) == 130, "".join(said)
    kept = re.search(r"Interrupted: (\d+) of 14 tasks are finished and kept. Run the same command again to go on.", "".join(said))
    assert kept, "".join(said)
    assert "Traceback" not in "".join(said)
    home = Home(tmp_path / "home")
    ledger = home.ledger()
    (run,) = ledger.runs()
    assert run.verdict == "interrupted"
    before = {row.task.digest: row.result for row in ledger.tasks(run.id) if row.state == "finished"}
    assert 0 < len(before) < 14
    done = manybody(tmp_path, "run", "long.yaml", "--json", "--quiet")
    tasks = json.loads(done.stdout)["tasks"]
    assert tasks == {"total": 14, "computed": 14 - len(before), "cached": len(before), "failed": 0}
    after = {row.task.digest: row for row in ledger.tasks(ledger.runs()[0].id)}
    assert all(after[digest].result == result and after[digest].attempts == 1 for digest, result in before.items())
    ledger.close()
