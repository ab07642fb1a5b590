"""Settings: ``path=value`` texts that reach every field of a study, put into its tree before it is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from manybody.core.catalog import suggest
from manybody.core.errors import InputError, Problem
from manybody.study import located
from manybody.study.located import Located, Mapping, Place, Scalar, parse_yaml

LISTS = ("measures", "checks")


@dataclass(frozen=True)
class Setting:
    """One ``path=value``: where it was given, the path's words, and the value, read as YAML."""

    place: Place
    path: tuple[str, ...]
    value: Located

    @classmethod
    def parse(cls, text: str) -> Setting:
        """Raises `InputError` where the text is no ``path=value`` with YAML after the sign."""
        path, sign, value = text.partition("=")
        words = tuple(path.strip().split("."))
        source = f"--set {text}"
        if not sign or not all(words):
            remedy = "Write for example `--set system.temperature=0.9`."
            raise InputError(Problem(source, "`path=value`", f"`{text}`", remedy))
        tree, problems = parse_yaml(value, source, in_file=False)
        if problems:
            raise InputError(*problems)
        return cls(
            Place(source, f"`{value}`", in_file=False), words, replace(tree, place=Place(source, f"`{value}`", in_file=False))
        )


def parse_settings(texts: Iterable[str]) -> tuple[list[Setting], list[Problem]]:
    """All settings that can be read, and what is wrong with the others."""
    settings: list[Setting] = []
    problems: list[Problem] = []
    for text in texts:
        try:
            settings.append(Setting.parse(text))
        except InputError as error:
            problems.extend(error.problems)
    return settings, problems


def apply(study: Mapping, settings: Sequence[Setting]) -> tuple[Mapping, list[Problem]]:
    """The tree of a study with settings in place, later ones over earlier ones, and those that found no place."""
    problems: list[Problem] = []
    for setting in settings:
        try:
            changed = _put(study, setting, 0)
            assert isinstance(changed, Mapping)
            study = changed
        except InputError as error:
            problems.extend(error.problems)
    return study, problems


def _put(tree: Located, setting: Setting, depth: int) -> Located:
    """The tree with the value put at the rest of the path; missing mappings on the way are made."""
    if depth == len(setting.path):
        return setting.value
    word = setting.path[depth]
    if depth == 1 and setting.path[0] == "sweep":
        remedy = "Set the whole sweep, for example `--set 'sweep={system.density: [0.7, 0.8]}'`."
        raise InputError(Problem(setting.place.source, "the path `sweep`", f"`{'.'.join(setting.path)}`", remedy))
    if depth == 1 and setting.path[0] in LISTS:
        return _put_in_list(tree, setting)
    if isinstance(tree, Scalar) and setting.path[0] in ("system", "method") and isinstance(tree.value, str):
        tree = Mapping(tree.place, {"name": tree})
    if isinstance(tree, Scalar) and tree.value is None:
        tree = Mapping(setting.place, {})
    if not isinstance(tree, Mapping):
        whole = ".".join(setting.path[:depth])
        problem = Problem(
            setting.place.source, "a path to a field", f"`{word}` of `{whole}`, which has no fields", f"Set `{whole}`."
        )
        raise InputError(problem)
    child = tree.entries.get(word, Scalar(setting.place, None))
    return Mapping(tree.place, tree.entries | {word: _put(child, setting, depth + 1)})


def _put_in_list(tree: Located, setting: Setting) -> Located:
    """A list of measures or checks with a field of one of them changed."""
    group, word = setting.path[:2]
    items = list(tree.items) if isinstance(tree, located.Sequence) else []
    names = [_name(item) for item in items]
    if word not in names:
        remedy = suggest(word, [name for name in names if name])
        raise InputError(Problem(setting.place.source, f"one of the study's {group}", f"`{word}`", remedy))
    index = names.index(word)
    item = items[index]
    body = item.entries[word] if isinstance(item, Mapping) else Mapping(item.place, {})
    items[index] = Mapping(item.place, {word: _put(body, setting, 2)})
    return located.Sequence(tree.place, tuple(items))


def _name(item: Located) -> str:
    """The name of an item of a list of measures or checks."""
    if isinstance(item, Mapping) and len(item.entries) == 1:
        return next(iter(item.entries))
    return item.value if isinstance(item, Scalar) and isinstance(item.value, str) else ""
