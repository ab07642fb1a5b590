"""Named tensors: what nodes send to be aggregated, checked once at the edge.

A tensor is a numpy array of ``float16``, ``float32`` or ``float64``; anything that numpy can read without copying
semantics of its own (a torch tensor on any device, a list) is turned into one. After `Round.of` nothing can be of the
wrong name, shape or type, and nothing is NaN or infinite, so the rules hold formulas only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from manybody.core.errors import InputError, Problem

Tensor: TypeAlias = np.ndarray[Any, np.dtype[Any]]
NamedTensors: TypeAlias = Mapping[str, Tensor]

FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True)
class Contribution:
    """What one node gives to a round: its tensors, and the facts that a weighting may use.

    `samples` counts what it trained on; `capacity` is its measured rate (tasks or samples a second); `variance` is the
    variance of its error on a common validation set. A fact that was not measured is None.
    """

    node: str
    tensors: NamedTensors
    samples: int | None = None
    capacity: float | None = None
    variance: float | None = None

    @classmethod
    def of(cls, node: str, tensors: Mapping[str, Any], **facts: Any) -> Contribution:
        """A contribution from tensors of any kind; raises `InputError` naming the node and every tensor that is wrong."""
        parsed, problems = _parse(node, tensors)
        if problems:
            raise InputError(*problems)
        return cls(node, MappingProxyType(parsed), **facts)


def as_array(tensor: Any) -> Tensor:
    """A tensor as a numpy array. Torch tensors are recognised by their methods, so torch is never imported here."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu()
        if str(tensor.dtype) == "torch.bfloat16":  # numpy has no such type; float32 holds every value of it
            tensor = tensor.float()
    return np.asarray(tensor)


def named(tensors: Mapping[str, Any], owner: str = "parameters") -> NamedTensors:
    """Tensors of any kind as checked, read-only named tensors; `owner` is whom an error names."""
    return Contribution.of(owner, tensors).tensors


def _parse(node: str, tensors: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[Problem]]:
    parsed: dict[str, Tensor] = {}
    problems: list[Problem] = []
    if not tensors:
        problems.append(Problem(f"node {node}", "at least one tensor", "none", "Send every tensor of the model."))
    for name in sorted(tensors):
        array = as_array(tensors[name])
        problem = _unusable(f"node {node}, tensor {name}", array)
        if problem is None:
            view = array.view()
            view.flags.writeable = False
            parsed[name] = view
        else:
            problems.append(problem)
    return parsed, problems


def _unusable(where: str, array: Tensor) -> Problem | None:
    if array.dtype.name not in FLOATS:
        remedy = "Convert it, or leave counters out; send real and imaginary parts as tensors of their own."
        return Problem(where, f"one of {', '.join(FLOATS)}", f"{array.dtype}", remedy)
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        return Problem(where, "finite numbers", f"{bad} of {array.size} NaN or infinite", "Leave this node out of the round.")
    return None


def _differences(contribution: Contribution, template: NamedTensors) -> list[Problem]:
    """How a contribution differs from the names, shapes and types of `template`."""
    where = f"node {contribution.node}"
    problems = []
    for name in sorted(template.keys() | contribution.tensors.keys()):
        spot = f"{where}, tensor {name}"
        if name not in contribution.tensors:
            problems.append(Problem(spot, f"a {_kind(template[name])}", "nothing", "Send every tensor of the model."))
        elif name not in template:
            problems.append(Problem(spot, "no such tensor", _kind(contribution.tensors[name]), "Send only the model's tensors."))
        elif _kind(template[name]) != _kind(contribution.tensors[name]):
            remedy = "All nodes must train the same model at the same precision."
            problems.append(Problem(spot, _kind(template[name]), _kind(contribution.tensors[name]), remedy))
    return problems


def _kind(array: Tensor) -> str:
    return f"{array.dtype.name}{list(array.shape)}"


@dataclass(frozen=True)
class Round:
    """The contributions of one round, checked, and in the order of their nodes' names.

    That order is what makes every rule's answer the same bits whatever order the contributions arrived in.
    """

    contributions: tuple[Contribution, ...]
    refused: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, contributions: Iterable[Contribution], template: NamedTensors | None = None) -> Round:
        """A round in which every contribution must fit; `InputError` names each node and tensor that does not.

        `template` (such as the global parameters) says what the tensors must be; without it what most
        nodes sent does.
        """
        round_ = cls.sift(contributions, template)
        if round_.refused:
            raise InputError(*(problem for problems in round_.refused.values() for problem in problems))
        return round_

    @classmethod
    def sift(cls, contributions: Iterable[Contribution], template: NamedTensors | None = None) -> Round:
        """A round of those contributions that fit; the others are in `refused`, by node, with what is wrong.

        Raises `InputError` when none is left, and for two contributions of one node, which nothing can decide between.
        """
        ordered = sorted(contributions, key=lambda contribution: contribution.node)
        _refuse_twins(ordered)
        template = template if template is not None else _most_common(ordered)
        refused: dict[str, tuple[Problem, ...]] = {}
        kept = []
        for contribution in ordered:
            parsed, problems = _parse(contribution.node, contribution.tensors)
            problems = problems or _differences(contribution, template)
            if problems:
                refused[contribution.node] = tuple(problems)
            else:
                kept.append(Contribution(contribution.node, MappingProxyType(parsed), *_facts(contribution)))
        if not kept:
            problem = Problem("round", "at least one contribution that fits", f"{len(ordered)}, none of them", "See the others.")
            raise InputError(problem, *(p for problems in refused.values() for p in problems))
        return cls(tuple(kept), MappingProxyType(refused))

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes' names, sorted."""
        return tuple(contribution.node for contribution in self.contributions)

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names, sorted."""
        return tuple(sorted(self.contributions[0].tensors))

    def stacked(self, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The tensor `name` of every node, [nodes, ...], float64."""
        return np.stack([np.asarray(c.tensors[name], dtype=np.float64) for c in self.contributions])

    def cast(self, name: str, values: Tensor) -> Tensor:
        """`values` in the type that the nodes sent `name` in."""
        return values.astype(self.contributions[0].tensors[name].dtype)


def _facts(contribution: Contribution) -> tuple[int | None, float | None, float | None]:
    return contribution.samples, contribution.capacity, contribution.variance


def _most_common(ordered: Sequence[Contribution]) -> NamedTensors:
    """The tensors of a node whose names, shapes and types most nodes share, so that one odd node cannot refuse the rest."""
    kinds = [tuple((name, _kind(as_array(c.tensors[name]))) for name in sorted(c.tensors)) for c in ordered]
    return max(zip(ordered, kinds, strict=True), key=lambda pair: kinds.count(pair[1]))[0].tensors if ordered else {}


def _refuse_twins(ordered: Sequence[Contribution]) -> None:
    twins = {a.node for a, b in pairwise(ordered) if a.node == b.node}
    if twins:
        remedy = "Keep the one whose attempt holds the lease."
        raise InputError(
            *(Problem(f"node {node}", "one contribution a round", "more than one", remedy) for node in sorted(twins))
        )
