"""The documentation runs: every block of code on a page, in order, in one folder, as a reader would.

A block with a title is a file. A `toml` block that is a pyproject.toml is installed as pip would, by its metadata. A
`sh` or `python` block without a title is run, but for commands that are run from a clean clone or for an hour.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest

from manybody.testing.flower import REMEDY, interpreter

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r'^```(?P<language>[a-z]*)(?: title="(?P<title>[^"]+)")?\n(?P<body>.*?)^```$', re.M | re.S)
# What is run elsewhere: by continuous integration from a clean clone, or as a benchmark.
FLOWER = ("flower",)  # pages whose code needs Flower, which has an environment of its own
ELSEWHERE = re.compile(r"((make [a-z]+|python -m benchmarks[. ].*|\.venv/bin/pre-commit install)( +#.*)?\n)+")
MEMBER_LINES = 40  # the most that a complete member of an extension point may take


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    title: str | None
    body: str


def blocks(page: Path) -> list[Block]:
    return [Block(m["language"], m["title"], m["body"]) for m in FENCE.finditer(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_code_runs(page: Path, tmp_path: Path) -> None:
    python = python_of(page)
    paths = [str(Path(python[0]).parent), os.environ["PATH"]]
    environment = os.environ | {
        "MANYBODY_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(tmp_path),
        "PATH": os.pathsep.join(paths),
    }
    for command, body in steps(page, tmp_path, python):
        done = subprocess.run(
            [*command, "-c", body], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, f"{page.name}:\n{body}\n{done.stdout}\n{done.stderr}"


def python_of(page: Path) -> list[str]:
    """The interpreter for a page's code. Warnings are errors, but for what Flower says of the versions that it wants."""
    if page.stem not in FLOWER:
        return [sys.executable, "-W", "error"]
    flower = interpreter()
    if flower is None:
        pytest.skip(REMEDY)
    return [flower]


def steps(page: Path, place: Path, python: list[str]) -> Iterator[tuple[list[str], str]]:
    """Interpreter and program of each step; files are written on the way. Python blocks in a row share their names."""
    script = ""
    for block in blocks(page):
        if block.language == "python" and not block.title:
            script += block.body + "\n"
        elif block.title:
            (place / block.title).write_text(block.body, encoding="utf-8")
            if block.title == "pyproject.toml":
                install(place, block.body)
        elif block.language == "sh" and not ELSEWHERE.fullmatch(block.body):
            if script:
                yield python, script
            script = ""
            yield ["bash", "-euo", "pipefail"], block.body
    if script:
        yield python, script


def install(place: Path, pyproject: str) -> None:
    """Put the metadata beside the modules, where a folder on the path makes it an installed package."""
    project = tomllib.loads(pyproject)["project"]
    info = place / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in members.items()) for group, members in groups]
    (info / "entry_points.txt").write_text("".join(lines))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_of_a_kind_that_is_run_or_read(page: Path) -> None:
    for block in blocks(page):
        assert block.language in ("sh", "python", "yaml", "toml", "text"), (
            f"{page.name} has a block of {block.language or 'no kind'}"
        )
        assert block.language != "yaml" or block.title, f"{page.name} has a study that no command runs"


def test_members_on_the_extension_page_are_minimal() -> None:
    members = [block for block in blocks(ROOT / "docs" / "extending.md") if block.title and block.language == "python"]
    assert len(members) == 5  # system, method and its stage, measure, check
    assert max(block.body.count("\n") for block in members) <= MEMBER_LINES


class Links(HTMLParser):
    """What a page loads by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if "src" in attributes:
            self.loaded.append(attributes["src"] or "")
        if tag == "link" and attributes.get("rel") in ("stylesheet", "icon", "preconnect", "preload", "modulepreload"):
            self.loaded.append(attributes.get("href") or "")


def test_the_documentation_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "site").glob("*.html"))
    assert {page.stem for page in pages} >= {page.stem for page in PAGES if page.parent.name == "docs"}
    for page in pages:
        loaded = Links(page.read_text(encoding="utf-8")).loaded
        assert loaded
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)], page.name
