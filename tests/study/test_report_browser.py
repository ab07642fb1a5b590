"""The report in a real browser: what it shows, that it complains of nothing, and that it asks nobody for anything."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manybody.study.notation import with_error
from manybody.study.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: `make test` as root installs it, or install the package `chromium`"
)

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--window-size=1000,1400",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # nothing leaves, whatever is asked for
)


def browse(page: Path, *flags: str) -> tuple[str, list[str], list[str]]:
    """The page's document after loading, what its console said, and what it requested over the network."""
    assert CHROMIUM is not None
    log = page.parent / "net.json"
    own = [f"--user-data-dir={page.parent / 'profile'}", f"--log-net-log={log}"]
    command = [CHROMIUM, *FLAGS, *own, *flags, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, re.findall(r":CONSOLE[^\]]*\] (.*)", done.stderr), requests(json.loads(log.read_text()))


def requests(log: dict[str, Any]) -> list[str]:
    """The addresses that a page asked for; what the browser asks on its own behalf has no origin."""
    start = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    parameters = [event.get("params", {}) for event in log["events"] if event["type"] == start]
    return [each["url"] for each in parameters if each.get("initiator", "not an origin") != "not an origin"]


def test_the_report_shows_verdict_and_values_and_asks_for_nothing(hand_made: Callable[..., Any], tmp_path: Path) -> None:
    plan, evidence, certificate = hand_made()
    report = write_report(tmp_path, plan, evidence, certificate, {"host": "a-machine"}, "manybody run studies/hand-made")
    picture = tmp_path / "report.png"
    document, console, asked = browse(report, f"--screenshot={picture}")
    assert console == []
    assert asked == []
    assert 'role="status"' in document
    assert "All 4 claims tested hold." in document
    for point in plan.points:
        number = evidence.estimate(point, "hand-energy")
        assert with_error(number.value, number.error) in document
    pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
    assert len(np.unique(pixels, axis=0)) > 200
    ink = np.any(pixels != pixels[0], axis=1).mean()
    assert 0.02 < ink < 0.9  # neither blank nor one block


def test_the_report_is_readable_in_the_dark(hand_made: Callable[..., Any], tmp_path: Path) -> None:
    report = write_report(tmp_path, *hand_made(), {}, "manybody run studies/hand-made")
    picture = tmp_path / "dark.png"
    browse(report, f"--screenshot={picture}", "--blink-settings=preferredColorScheme=0")
    pixels = np.asarray(Image.open(picture).convert("L"))
    assert np.median(pixels) < 40  # dark paper
    assert pixels.max() > 200  # light ink


def test_the_browser_would_notice_a_request_and_a_complaint(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        '<!DOCTYPE html><title>bad</title><img src="http://example.invalid/x.png"><script>console.error("oh no")</script>'
    )
    _, console, asked = browse(page)
    assert any("oh no" in line for line in console)
    assert asked == ["http://example.invalid/x.png"]
