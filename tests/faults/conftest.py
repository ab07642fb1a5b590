"""Real conductors in processes of their own, to be killed and starved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from manybody.core.digest import digest_bytes
from manybody.core.study import Study
from manybody.core.task import Task
from manybody.store.home import Home
from manybody.testing.methods import installed

STUDY = Study.model_validate(
    {
        "name": "faults",
        "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
        "method": "molecular-dynamics",
        "measures": ["potential-energy"],
        "checks": ["conservation"],
    }
)
SCRIPT = Path(__file__).with_name("conductor.py")


@dataclass
class Conductor:
    """A conductor's process, and what it tells."""

    process: subprocess.Popen[str]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield json.loads(line)

    def until(self, kind: str) -> dict[str, Any]:
        """What it tells next of this kind."""
        for told in self:
            if told["kind"] == kind:
                return told
        assert self.process.stderr is not None
        raise AssertionError(f"the conductor ended without `{kind}`: {self.process.stderr.read()}")

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@dataclass
class Site:
    """A home, and the conductors that were started on it."""

    home: Home
    environment: dict[str, str]
    conductors: list[Conductor] = field(default_factory=list)

    def start(self, tasks: list[Task], workers: int = 2) -> Conductor:
        """Start a conductor for these tasks."""
        listed = self.home.path / f"tasks-{len(self.conductors)}.json"
        listed.parent.mkdir(exist_ok=True)
        listed.write_text(json.dumps([task.document() for task in tasks]), encoding="utf-8")
        command = [sys.executable, str(SCRIPT), str(self.home.path), str(listed), str(workers)]
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.conductors.append(Conductor(process))
        return self.conductors[-1]

    def visible(self) -> list[Path]:
        """Every result that a reader could find."""
        aside = (self.home.objects.incoming, self.home.objects.quarantine)
        return [path for path in self.home.objects.root.rglob("*") if path.is_file() and path.parent not in aside]

    def assert_intact(self) -> None:
        """Every visible result has the bytes that its name promises."""
        for path in self.visible():
            assert digest_bytes(path.read_bytes()) == path.parent.name + path.stem


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(Home(tmp_path / "home"), os.environ | installed(tmp_path / "plugin"))
    ledger = site.home.ledger()
    ledger.record_study(STUDY)
    ledger.close()
    yield site
    for conductor in site.conductors:
        conductor.close()
