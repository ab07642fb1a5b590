"""YAML text as a tree in which every key and value knows where it stands, so that a complaint can name its line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

from manybody.core.errors import InputError, Problem

LARGEST_FILE = 1_000_000  # bytes; the longest study anyone writes by hand is a hundredth of that
DEEPEST = 30  # levels of nesting; the schema itself needs six
MOST_NODES = 100_000  # values after aliases are followed, so that a small file cannot unfold into a huge one


@dataclass(frozen=True)
class Place:
    """Where a value stands (``study.yaml:12`` or the text of a setting) and how it was written."""

    source: str
    text: str
    in_file: bool = True

    def where(self, label: str) -> str:
        """The place with the name of the field that stands there."""
        return f"{self.source} ({label})" if label and self.in_file else self.source


@dataclass(frozen=True)
class Scalar:
    """A number, text, boolean or null."""

    place: Place
    value: Any


@dataclass(frozen=True)
class Mapping:
    """Keys and values, in the order of the file."""

    place: Place
    entries: dict[str, Located]


@dataclass(frozen=True)
class Sequence:
    """A list."""

    place: Place
    items: tuple[Located, ...]


Located = Scalar | Mapping | Sequence


class _Loader(yaml.SafeLoader):
    """Plain data with the scalars of YAML 1.2: ``1e-3`` is a number, ``yes`` and ``12:30`` are text."""

    depth = 0
    nodes = 0
    yaml_implicit_resolvers: dict[str, Any] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose one node; nesting and number are bounded here, before recursion can hurt."""
        self.depth += 1
        self.nodes += 1
        mark = parent.start_mark if parent is not None else None
        if self.depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"nesting deeper than {DEEPEST} levels", problem_mark=mark)
        if self.nodes > MOST_NODES:
            raise yaml.MarkedYAMLError(problem=f"more than {MOST_NODES} values", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _resolve(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


_resolve("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolve("int", r"^[-+]?[0-9]+$", "-+0123456789")
_resolve(
    "float",
    r"^[-+]?(?:(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
    "-+.0123456789",
)
_resolve("null", r"^(?:~|null|Null|NULL|)$", "~nN\0")
_Loader.yaml_implicit_resolvers.setdefault("", []).extend(_Loader.yaml_implicit_resolvers.pop("\0"))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))  # 010 is ten, not eight


_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class _Builder:
    """Turns YAML nodes into located values, gathering duplicate keys and strange scalars as problems."""

    def __init__(self, loader: _Loader, source: str, in_file: bool) -> None:
        self.loader, self.source, self.in_file = loader, source, in_file
        self.problems: list[Problem] = []
        self.left = MOST_NODES

    def place(self, node: yaml.Node, text: str) -> Place:
        source = f"{self.source}:{node.start_mark.line + 1}" if self.in_file else self.source
        return Place(source, text if len(text) <= 60 else text[:57] + "...", self.in_file)

    def build(self, node: yaml.Node, key: yaml.Node | None = None, depth: int = 0) -> Located:
        """A node as a located value; it stands where its key does."""
        self.left -= 1
        if self.left < 0 or depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem="aliases that unfold without end", problem_mark=node.start_mark)
        at = node if key is None else key
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS:
            self.refuse_tag(self.place(at, f"the tag `{node.tag}`"))
        if isinstance(node, yaml.MappingNode):
            return Mapping(self.place(at, "a mapping" if node.value else "an empty mapping"), self.entries(node, depth))
        if isinstance(node, yaml.SequenceNode):
            items = tuple(self.build(item, None, depth + 1) for item in node.value)
            return Sequence(self.place(at, "a list" if items else "an empty list"), items)
        return self.scalar(node, self.place(at, f"`{node.value}`" if node.value else "nothing"))

    def entries(self, node: yaml.MappingNode, depth: int) -> dict[str, Located]:
        found: dict[str, Located] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            place = self.place(key, f"`{name}`" if name else "a key that is no text")
            if not name:
                self.problems.append(Problem(place.where(""), "a field name", place.text, "Write `field: value`."))
            elif name in found:
                came = f"`{name}` twice, first on line {lines[name]}"
                self.problems.append(Problem(place.where(name), "each field once", came, "Remove one of them."))
            else:
                found[name] = self.build(value, key, depth + 1)
                lines[name] = key.start_mark.line + 1
        return found

    def scalar(self, node: yaml.Node, place: Place) -> Scalar:
        try:
            return Scalar(place, self.loader.construct_object(node))
        except ValueError:  # an integer beyond Python's limit on digits
            self.problems.append(Problem(place.where(""), "a number of ordinary size", place.text, "Write it in fewer digits."))
        except yaml.constructor.ConstructorError:
            self.refuse_tag(self.place(node, f"the tag `{node.tag}`"))
        return Scalar(place, None)

    def refuse_tag(self, place: Place) -> None:
        self.problems.append(
            Problem(place.where(""), "a plain value", place.text, "Remove the tag: a study holds plain values only.")
        )


def parse_yaml(text: str, source: str, in_file: bool = True) -> tuple[Located, list[Problem]]:
    """YAML text as a located tree, and what is wrong with it that leaves the rest readable, such as a duplicate key.

    `source` names the file, to which line numbers are added, or is a setting's text where `in_file` is false.
    Raises `InputError` where the text is no YAML.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return Scalar(Place(f"{source}:1" if in_file else source, "nothing", in_file), None), []
        builder = _Builder(loader, source, in_file)
        tree = builder.build(node)
    except yaml.YAMLError as error:
        raise InputError(_syntax_problem(error, text, source, in_file)) from error
    return tree, builder.problems


def _syntax_problem(error: yaml.YAMLError, text: str, source: str, in_file: bool) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = " ".join(str(part) for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part)
    line = mark.line if mark is not None else 0
    where = f"{source}:{line + 1}" if in_file else source
    written = text.splitlines()[line : line + 1] or [""]
    remedy = "Check the indentation, colons and brackets here and on the line above."
    if "\t" in written[0]:
        remedy = "Replace the tab by spaces: YAML indents with spaces only."
    if isinstance(error, yaml.reader.ReaderError):
        return Problem(where, "text", f"the character code {error.character:#x}", "A study is a plain text file in UTF-8.")
    return Problem(where, "YAML", f"`{written[0].strip()[:60]}` ({said or error})", remedy)


def plain(tree: Located) -> Any:
    """A tree as plain dictionaries, lists and scalars."""
    if isinstance(tree, Mapping):
        return {name: plain(value) for name, value in tree.entries.items()}
    if isinstance(tree, Sequence):
        return [plain(item) for item in tree.items]
    return tree.value
