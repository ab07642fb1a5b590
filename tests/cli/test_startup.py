"""The command line starts quickly: nothing heavy is loaded before a verb needs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numba", "scipy", "pint", "sqlalchemy", "matplotlib", "xarray", "zarr", "ase", "numpy")
HELP = "import manybody.cli\ntry:\n    manybody.cli.main({})\nexcept SystemExit as stop:\n    assert stop.code == 0"
SHARE = 1 / 3  # of the time that `import torch` takes, the longest that a person waits for --help


def python(program: str) -> str:
    """What a program prints in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def cpu_seconds(program: str) -> float:
    """The least processor time of two fresh interpreters: other work on the machine only ever adds."""
    clock = "\nimport time as _t; print(_t.process_time())"
    return min(float(python(f"{program}{clock}").splitlines()[-1]) for _ in range(2))


@pytest.mark.parametrize(
    "program",
    ["import manybody.cli", HELP.format(["--help"]), HELP.format(["run", "--help"])],
    ids=["import", "help", "run-help"],
)
def test_nothing_heavy_is_loaded(program: str) -> None:
    loaded = python(f"{program}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))").splitlines()[-1]
    assert not set(HEAVY) & set(loaded.split())


def test_a_refusal_loads_no_torch() -> None:
    program = (
        "import manybody.cli, sys\ntry:\n    manybody.cli.main(['run', '/nowhere.yaml'])\nexcept SystemExit as stop:\n"
        "    assert stop.code == 2\nprint('torch' in sys.modules)"
    )
    assert python(program).splitlines()[-1] == "False"


def test_help_takes_under_a_third_of_importing_torch() -> None:
    torch = cpu_seconds("import torch")
    assert cpu_seconds("import manybody.cli") < SHARE * torch
    assert cpu_seconds(HELP.format(["--help"])) < SHARE * torch
