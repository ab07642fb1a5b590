"""The guide to joining a lab machine, followed word by word with real processes on the loopback."""

from __future__ import annotations

import re
import shlex
from contextlib import ExitStack
from pathlib import Path

from manybody.testing.federation import Process

GUIDE = Path(__file__).parents[2] / "docs" / "join-a-lab-machine.md"


def test_the_three_commands_of_the_guide(tmp_path: Path) -> None:
    invite, install, join = re.findall(r"^```text\n(.*?)\n```$", GUIDE.read_text(encoding="utf-8"), re.M)
    assert install.startswith("pip install 'manybody[")  # what runs this test has been installed so
    gateway, lab = tmp_path / "gateway", tmp_path / "lab"
    with ExitStack() as running:

        def start(home: Path, words: list[str]) -> Process:
            process = Process(home, *words)
            running.callback(process.kill)
            return process

        start(gateway, ["network", "up"]).wait_for("Gateway at")
        line = start(gateway, shlex.split(invite)[1:]).wait_for(r"https://\S+#\S+")
        *verb, place = shlex.split(join)[1:]
        assert re.fullmatch(r"https://[^/]+/#FINGERPRINT/TOKEN", place)
        node = start(lab, [*verb, line, "--name", "lab-17"])  # measures itself, as the guide says
        node.wait_for("is ready")
        assert list(lab.rglob("*key*.pem")), "the node keeps a key of its own"
        start(gateway, ["nodes"]).wait_for("lab-17")
        start(lab, ["leave"]).wait_for("has left")
        start(gateway, ["nodes"]).wait_for("No node has joined")
    assert not list(lab.rglob("*key*.pem")), "leaving removes the key"
