"""What the two models of a pair potential share as learners: data, the split into training and validation, what is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from manybody.core.errors import TaskError
from manybody.core.learning import Learner, Tensors, Trained, Training
from manybody.core.random import Key
from manybody.core.spec import Spec
from manybody.core.task import Output
from manybody.learn.potentials.configurations import Configurations, labelled, pair_potential, pairs_within, read
from manybody.learn.potentials.spec import Model, RadialBasis

VALIDATION = 4  # one configuration in so many is not trained on
BINS = 120  # of distances, from the shortest to the cutoff


class Learned(Spec):
    """What is learned: the document that `FederatedLiquid.learned` writes."""

    cutoff: float = Field(gt=0)
    force_weight: float = Field(ge=0)
    model: Model


def learner(document: Mapping[str, Any], device: str) -> Learner:
    """The learner of a model; torch is loaded for a network only."""
    learned = Learned.model_validate(dict(document))
    if isinstance(learned.model, RadialBasis):
        from manybody.learn.potentials.radial import RadialLearner

        return RadialLearner(learned, learned.model)
    from manybody.learn.potentials.network import NetworkLearner

    return NetworkLearner(learned, learned.model, device)


class PotentialLearner(ABC):
    """Learns u(r) from energies and forces (`core.learning.Learner`). Its loss is a mean over configurations of

    L = 1/2 ((U - U_data) / N)^2 + w/2 |F - F_data|^2 / (3 N),   w the force weight.
    """

    def __init__(self, learned: Learned) -> None:
        self.learned = learned
        self.edges = np.linspace(learned.model.shortest, learned.cutoff, BINS + 1)

    def read(self, path: Path) -> Output:
        """Configurations that a node holds; the document has the digest of the file."""
        found, digest = read(path)
        return Output(found.output().arrays, {"digest": digest})

    def prepare(self, raw: Output) -> Output:
        """Configurations with labels, the distances of each, and what the model adds.

        `raw` are `frames` and `box` of a run of molecular dynamics, which are labelled here, or held configurations.
        """
        if "frames" in raw.arrays:
            found = labelled(raw.arrays["frames"], raw.arrays["box"], self.learned.cutoff)
        else:
            found = Configurations.of(raw, "data")
        if found.frames < VALIDATION:
            raise TaskError(f"data: expected at least {VALIDATION} configurations; got {found.frames}. Hold more of them.")
        if self.learned.cutoff > 0.5 * found.box.min():
            raise TaskError(
                f"data: expected a box of at least {2 * self.learned.cutoff:g}, twice the cutoff; got {found.box.min():g}. "
                "Lower the cutoff, or hold larger configurations."
            )
        arrays = dict(found.output().arrays) | {"distances": self._distances(found)} | self.features(found)
        return Output(arrays, {"atoms": found.atoms} | dict(raw.document if "digest" in raw.document else {}))

    def examine(self, rounds: Sequence[Tensors], agreed: Tensors, public: Output) -> Output:
        """Over the rounds: the learned u(r), the loss and the error of u on each public configuration.

        Arrays: r [bins], exact [bins], potential [rounds, bins], loss and error [rounds, configurations]. The error is
        the root mean square of u - exact over the pairs of a configuration.
        """
        r = 0.5 * (self.edges[1:] + self.edges[:-1])
        exact = pair_potential(r, self.learned.cutoff)
        potential = np.stack([self.potential(parameters, agreed, r) for parameters in rounds])
        unseen = ~training_frames(public)
        counts = public.arrays["distances"][unseen]
        squares = (potential - exact) ** 2
        error = np.sqrt(squares @ counts.T / counts.sum(axis=1))
        loss = np.stack([self.losses(parameters, agreed, public)[unseen] for parameters in rounds])
        arrays = {"r": r, "exact": exact, "potential": potential, "loss": loss, "error": error}
        return Output(arrays, {"loss": float(loss[-1].mean()), "error": float(error[-1].mean())})

    def pooled(self, start: Tensors, agreed: Tensors, data: Mapping[str, Output]) -> Output | None:
        """None: there is no closed form."""
        return None

    @abstractmethod
    def start(self, public: Output, key: Key) -> tuple[Tensors, Tensors]:
        """The parameters that all start with, and what else all agree on, from public data."""

    @abstractmethod
    def train(self, parameters: Tensors, agreed: Tensors, data: Output, training: Training) -> Trained:
        """A round of training on a party's prepared data."""

    @abstractmethod
    def potential(self, parameters: Tensors, agreed: Tensors, r: np.ndarray) -> np.ndarray:
        """u at distances `r` [bins]; [bins]."""

    @abstractmethod
    def losses(self, parameters: Tensors, agreed: Tensors, data: Output) -> np.ndarray:
        """The loss of each configuration of prepared data, [frames]."""

    def features(self, found: Configurations) -> dict[str, np.ndarray]:
        """What the model keeps of configurations so that it need not be computed every round; nothing by default."""
        return {}

    def _distances(self, found: Configurations) -> np.ndarray:
        """How many pairs of each configuration lie in each bin, [frames, bins]."""
        cutoff = self.learned.cutoff
        each = (pairs_within(positions, found.box, cutoff).distance for positions in found.positions)
        return np.stack([np.histogram(distance, self.edges)[0] for distance in each]).astype(np.float64)


def training_frames(data: Output) -> np.ndarray:
    """Which configurations are trained on, [frames]: all but every fourth, which validate."""
    return np.asarray(np.arange(len(data.arrays["energy"])) % VALIDATION != VALIDATION - 1)
