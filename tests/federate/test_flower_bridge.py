"""The bridge to Flower, tested by flower_bridge.py in the environment that has Flower."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from manybody.testing.flower import REMEDY, interpreter

HERE = Path(__file__).parent
PAGE = HERE / "flower_bridge.py"
NAMES = re.findall(r"^def (test_\w+)", PAGE.read_text(), flags=re.MULTILINE)
THEIRS = "ignore::DeprecationWarning:typer"  # an older typer, which Flower wants, on a newer click


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    python = interpreter()
    if python is None:
        pytest.skip(REMEDY)
    place = str(tmp_path_factory.mktemp("bridge") / "tests")
    command = [python, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-W", THEIRS, "--basetemp", place, PAGE]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False).stdout


@pytest.mark.parametrize("name", NAMES)
def test_bridge(name, said):
    outcomes = re.findall(rf"^(\w+) \S*::{name}(?:\[.*\])?(?: - .*)?$", said, flags=re.MULTILINE)
    assert outcomes, said
    assert set(outcomes) == {"PASSED"}, said
