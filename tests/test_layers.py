"""The layers hold: imports point down, siblings never meet, and the torch-free layers load without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
TORCH_FREE = ("core", "store", "cli", "study")


def test_the_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


def test_torch_free_modules_and_every_spec_load_without_torch() -> None:
    package = SOURCE / "manybody"
    files = [file for layer in TORCH_FREE for file in sorted((package / layer).rglob("*.py")) if "migrations" not in file.parts]
    files += sorted(package.rglob("spec.py"))
    modules = [".".join(file.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__") for file in files]
    assert len(modules) > 30
    loop = "    importlib.import_module(name)\n    assert 'torch' not in sys.modules, name"
    program = f"import importlib, sys\nfor name in {modules!r}:\n{loop}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
