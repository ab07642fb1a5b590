"""Who collects: a round of secure aggregation over a backend, from a model to the weighted mean of what parties make of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from manybody.core.errors import ManybodyError, TaskError
from manybody.core.protocols import Backend, Event
from manybody.core.task import Output, Task
from manybody.federate.errands import Errands
from manybody.federate.secure import SecureAggregation
from manybody.federate.secure_stages import Arrays, Part, StageName, announced, announcement, read, written
from manybody.federate.secure_sum import Terms, Vector, numbers, unmasked
from manybody.federate.secure_training import Work
from manybody.federate.shamir import Share
from manybody.store.objects import ObjectStore

T = TypeVar("T")


@dataclass(frozen=True)
class Party:
    """Who trains: with which stage, on further inputs (result digests) or on what its `node` holds."""

    name: str
    work: Work
    inputs: Mapping[str, str] = field(default_factory=dict)
    node: str = ""


@dataclass(frozen=True)
class SecureMean:
    """The mean of the parties' tensors by weight, the sum of their weights, who is in it, and why others left.

    Who left at the very end (`reveal`) is in it all the same. `error` bounds how far any value is from the mean of the
    numbers before they were rounded to steps, beside the precision of the tensors' own type.
    """

    tensors: Mapping[str, np.ndarray]
    weight: float
    parties: tuple[str, ...]
    lost: Mapping[str, str]
    error: float


class Collector:
    """Leads parties through the four stages. One round is one session; who does not answer in time is left out of it."""

    def __init__(
        self, errands: Errands, objects: ObjectStore, parties: Sequence[Party], terms: Terms, timeout: float | None = None
    ) -> None:
        self._errands, self._objects, self._terms, self._timeout = errands, objects, terms, timeout
        self._parties = {party.name: party for party in parties}
        self._lost: dict[str, str] = {}

    def mean(self, model: Mapping[str, np.ndarray]) -> SecureMean:
        """The round. Raises `TaskError` where fewer parties than the threshold stayed to the end, saying why each left."""
        terms, length = self._terms, sum(array.size for array in model.values()) + 1
        known = self._ask("announce", {name: {} for name in self._parties}, lambda name, told: announced(told)[name])
        everyone = self._put(announcement(known))
        packets = self._ask("share", {name: {"announced": everyone} for name in known}, lambda _, told: _packets(told, known))
        given = {"model": self._put(model)}
        sent = {
            name: {**self._parties[name].inputs, **given, "packets": self._put(written("packet", _addressed(packets, name)))}
            for name in packets
        }
        vectors = self._ask("mask", sent, lambda _, told: _vector(told, length))
        shares = self._ask(
            "reveal", {name: {} for name in vectors}, lambda name, told: _shares(told, terms.point(name), packets),
            arrived=tuple(sorted(vectors)),
        )  # fmt: skip
        return self._opened(model, numbers(unmasked(terms, known, vectors, shares), terms), tuple(sorted(vectors)))

    def _put(self, arrays: Mapping[str, np.ndarray]) -> str:
        return self._objects.put(Output(arrays)).digest

    def _ask(
        self, stage: StageName, inputs: Mapping[str, Mapping[str, str]], parse: Callable[[str, Arrays], T], **further: Any
    ) -> dict[str, T]:
        """What each party answers in a stage; those that do not, or not what they should, are lost."""
        for name, given in inputs.items():
            party = self._parties[name]
            part = Part(terms=self._terms, party=name, work=party.work if stage == "mask" else None, **further)
            self._errands.give(f"{self._terms.session}-{stage}-{name}", _task(stage, part, given), party.node)
        events = self._errands.gather([f"{self._terms.session}-{stage}-{name}" for name in inputs], self._timeout)
        answers = {}
        for name, event in zip(inputs, events, strict=True):
            try:
                answers[name] = parse(name, self._result(event).arrays)
            except (ManybodyError, KeyError) as error:
                self._lost[name] = f"{stage}: {error}"
        if len(answers) < self._terms.threshold:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self._lost.items())
            raise TaskError(f"expected {self._terms.threshold} parties to stay; after `{stage}` {len(answers)} do. {reasons}")
        return answers

    def _result(self, event: Event | None) -> Output:
        if event is None:
            raise TaskError("no answer" if self._timeout is None else f"no answer within {self._timeout:g} s")
        if event.kind != "finished":
            raise TaskError(event.reason)
        return self._objects.get(event.result)

    def _opened(self, model: Mapping[str, np.ndarray], total: np.ndarray, parties: tuple[str, ...]) -> SecureMean:
        """The sum of weight times tensors, and of weights, as a mean."""
        weight, at, tensors = float(total[-1]), 0, {}
        for name in sorted(model):
            size = model[name].size
            tensors[name] = (total[at : at + size] / weight).reshape(model[name].shape).astype(model[name].dtype)
            at += size
        return SecureMean(tensors, weight, parties, dict(self._lost), self._terms.error(len(parties)) / weight)


def secure_mean(
    backend: Backend | Errands,
    objects: ObjectStore,
    parties: Sequence[Party],
    model: Mapping[str, np.ndarray],
    threshold: int,
    *,
    fraction_bits: int = 32,
    timeout: float | None = None,
) -> SecureMean:
    """One round: what `parties` make of `model`, as the mean by the samples of each, of which only the sum was seen.

    `threshold` parties, more than half, must stay to the end; `timeout` is that of each of the four stages, in seconds.
    """
    names = tuple(party.name for party in parties)
    terms = Terms(session=secrets.token_hex(16), parties=names, threshold=threshold, fraction_bits=fraction_bits)
    errands = backend if isinstance(backend, Errands) else Errands(backend)
    return Collector(errands, objects, parties, terms, timeout).mean(model)


def _addressed(packets: Mapping[str, Mapping[str, bytes]], party: str) -> dict[str, bytes]:
    """The packets for a party, by sender."""
    return {sender: each[party] for sender, each in packets.items()}


def _packets(told: Arrays, parties: Collection[str]) -> dict[str, bytes]:
    """A packet for each party that has announced itself."""
    packets = read("packet", told)
    return {party: packets[party] for party in parties}


def _vector(told: Arrays, length: int) -> Vector:
    vector = told["masked"]
    if vector.dtype != np.uint64 or vector.shape != (length,):
        raise TaskError(f"expected {length} masked integers; got {vector.dtype}{list(vector.shape)}")
    return vector


def _shares(told: Arrays, point: int, parties: Collection[str]) -> dict[str, Share]:
    """The shares that a party tells of all that have shared their secrets."""
    shares = {party: Share.read(point, data) for party, data in read("share", told).items()}
    return {party: shares[party] for party in parties}


def _task(stage: StageName, part: Part, inputs: Mapping[str, str]) -> Task:
    return Task(
        method=SecureAggregation.model_fields["name"].default, stage=stage, version=SecureAggregation.version, system={},
        parameters=part.document(), inputs=dict(inputs),
    )  # fmt: skip
