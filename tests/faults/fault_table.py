"""Makes the table of docs/faults.md from the tests: ``python tests/faults/fault_table.py --write``.

A test tells what it shows by ``@pytest.mark.fault(NAME, on=.., happens=.., kept=..)``, with texts written out. NAME is
one of `FAULTS`, each of which some test must show.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "faults.md"
BEGIN, END = "<!-- faults: generated -->", "<!-- faults: end -->"
BACKENDS = ("embedded", "cluster", "federation", "all")
FAULTS = (
    "kill -9 of a worker",
    "kill -9 of a node",
    "kill -9 of the gateway or the scheduler",
    "kill -9 of the run",
    "a node that hangs and comes back",
    "a gateway that hangs and comes back",
    "a node that is 10 times slower",
    "NaN from a node",
    "a result of the wrong shape",
    "numbers off by 1 %",
    "a truncated body",
    "300 MB of garbage to each endpoint",
    "a network cut and healed",
    "a node that joins at half time",
    "clock skew",
    "a full disk",
    "a second coordinator started by mistake",
    "a replayed message",
    "an expired certificate",
    "an unknown certificate",
    "a revoked certificate",
    "a client where a node is expected",
    "a result that rots on the disk",
    "all of these at random",
)


@dataclass(frozen=True)
class Shown:
    """What one test shows of one fault."""

    fault: str
    on: str
    happens: str
    kept: str
    test: str


def marks(path: Path) -> Iterator[Shown]:
    """What the tests of a file show."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    yield shown(mark, f"{path.relative_to(TESTS.parent)}::{node.name}")


def shown(mark: ast.Call, test: str) -> Shown:
    """A mark, with every text that it must have and no other."""
    texts: dict[str, Any] = {str(word.arg): ast.literal_eval(word.value) for word in mark.keywords}
    found = Shown(*map(ast.literal_eval, mark.args), **texts, test=test)
    if found.fault not in FAULTS or found.on not in BACKENDS:
        raise SystemExit(f"{test}: expected a fault of {FAULTS} on one of {BACKENDS}; got {found.fault!r} on {found.on!r}.")
    return found


def everything() -> list[Shown]:
    """What all tests show, in the order of `FAULTS`."""
    found = [each for path in sorted(TESTS.rglob("test_*.py")) for each in marks(path)]
    return sorted(found, key=lambda each: (FAULTS.index(each.fault), BACKENDS.index(each.on)))


def table(rows: Sequence[Shown]) -> Iterator[str]:
    """The lines of the table, a fault named once, and those of the list of tests that its numbers point to."""
    yield "| | fault | on | what happens | what is kept |"
    yield "| --- | --- | --- | --- | --- |"
    for number, row in enumerate(rows):
        again = number > 0 and rows[number - 1].fault == row.fault
        yield f"| {number + 1} | {'' if again else row.fault} | {row.on} | {row.happens} | {row.kept} |"
    yield "\nShown by:\n"
    yield from (f"{number}. `{row.test}`" for number, row in enumerate(rows, 1))


def page(text: str, rows: Sequence[Shown]) -> str:
    """The page with table and list made anew."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return "\n".join([head + BEGIN, *table(rows), END + tail])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write it into {PAGE.relative_to(TESTS.parent)}")
    made = page(PAGE.read_text(encoding="utf-8"), everything())
    if parser.parse_args().write:
        PAGE.write_text(made, encoding="utf-8")
    else:
        print(made)


if __name__ == "__main__":
    main()
