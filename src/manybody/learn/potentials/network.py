"""A pair potential as a small neural network: trained by steps of Adam on energies and forces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from manybody.core.learning import Tensors, Trained, Training
from manybody.core.random import Key
from manybody.core.task import Output
from manybody.learn.potentials.configurations import Configurations, pairs_within
from manybody.learn.potentials.learner import Learned, PotentialLearner, training_frames
from manybody.learn.potentials.spec import PairNetwork

DECAYS = (0.9, 0.999)  # of Adam's moments, as its authors have them (arXiv:1412.6980)
SMALL = 1e-8


def network(parameters: dict[str, Tensor], r: Tensor, shortest: float, cutoff: float) -> Tensor:
    """u(r) = (1 - r / r_c)^2 (scale . h2), h2 = tanh(W2 h1 + b2), h1 = tanh(w1 x + b1).  r: [pairs]; [pairs].

    x = (1/r - 1/r_c) / (1/r_0 - 1/r_c) is 0 at the cutoff and 1 at the shortest distance r_0.
    """
    x = (1 / r - 1 / cutoff) / (1 / shortest - 1 / cutoff)
    first = torch.tanh(x[:, None] * parameters["w1"] + parameters["b1"])
    second = torch.tanh(first @ parameters["w2"] + parameters["b2"])
    return (1 - r / cutoff) ** 2 * (second @ parameters["w3"])


@dataclass(frozen=True)
class Batch:
    """All pairs of some configurations of `atoms` each: which one, which two atoms (counted through), distance, direction."""

    atoms: int
    frame: Tensor
    first: Tensor
    second: Tensor
    distance: Tensor
    direction: Tensor
    energy: Tensor
    forces: Tensor

    @classmethod
    def of(cls, found: Configurations, chosen: np.ndarray, cutoff: float, device: str) -> Batch:
        """The pairs of the configurations in `chosen` [frames]."""
        numbers = np.flatnonzero(chosen)
        pairs = [pairs_within(found.positions[number], found.box, cutoff) for number in numbers]
        offset = found.atoms * np.repeat(np.arange(len(pairs)), [len(each.distance) for each in pairs])

        def joined(name: str) -> np.ndarray:
            return np.concatenate([getattr(each, name) for each in pairs])

        arrays = [
            offset // found.atoms, joined("first") + offset, joined("second") + offset, joined("distance"),
            joined("direction"), found.energy[numbers], found.forces[numbers].reshape(-1, 3),
        ]  # fmt: skip
        return cls(found.atoms, *(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays))


@contextmanager
def deterministic(device: str) -> Iterator[None]:
    """Sums in one order on an accelerator, too: torch adds up by the order of arrival there unless told otherwise."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(before or device != "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


class NetworkLearner(PotentialLearner):
    """Full-batch steps of Adam from fresh moments every round; double precision, deterministic on one kind of machine."""

    def __init__(self, learned: Learned, model: PairNetwork, device: str) -> None:
        super().__init__(learned)
        self.model = model
        self.device = device

    def start(self, public: Output, key: Key) -> tuple[Tensors, Tensors]:
        """Normal weights over the square root of the inputs of a unit; nothing else is agreed."""
        generator, hidden = key.derive("weights").generator(), self.model.hidden
        weights = {
            "w1": 2 * generator.standard_normal(hidden),
            "b1": generator.standard_normal(hidden),
            "w2": generator.standard_normal((hidden, hidden)) / np.sqrt(hidden),
            "b2": np.zeros(hidden),
            "w3": generator.standard_normal(hidden) / np.sqrt(hidden),
        }
        return weights, {}

    def train(self, parameters: Tensors, agreed: Tensors, data: Output, training: Training) -> Trained:
        """Steps of Adam on the configurations trained on; `pull` enters the gradient."""
        seen = training_frames(data)
        with deterministic(self.device):
            theta = self._descended(self._tensors(parameters), self._batch(data, seen), training)
        after = {name: tensor.detach().cpu().numpy() for name, tensor in theta.items()}
        losses = self.losses(after, agreed, data)
        return Trained(after, int(seen.sum()), float(losses[seen].mean()), 2 * float(losses[~seen].mean()))

    def potential(self, parameters: Tensors, agreed: Tensors, r: np.ndarray) -> np.ndarray:
        """The network at distances `r`."""
        with torch.no_grad():
            found = network(
                self._tensors(parameters), torch.from_numpy(r).to(self.device), self.model.shortest, self.learned.cutoff
            )
        return np.asarray(found.cpu().numpy())

    def losses(self, parameters: Tensors, agreed: Tensors, data: Output) -> np.ndarray:
        """The loss of each configuration, [frames]."""
        batch = self._batch(data, np.ones(len(data.arrays["energy"]), dtype=bool))
        with deterministic(self.device):
            return np.asarray(self._losses(self._tensors(parameters), batch).detach().cpu().numpy())

    def _descended(self, start: dict[str, Tensor], batch: Batch, training: Training) -> dict[str, Tensor]:
        """The tensors after all steps of a round."""
        theta = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
        moments = {name: (torch.zeros_like(tensor), torch.zeros_like(tensor)) for name, tensor in start.items()}
        for step in range(1, training.steps + 1):
            gradients = self._gradients(theta, batch, training.clip)
            with torch.no_grad():
                for (name, tensor), gradient in zip(theta.items(), gradients, strict=True):
                    pulled = gradient + training.pull * (tensor - start[name])
                    tensor -= training.learning_rate * (_adam(moments[name], pulled, step) if training.clip is None else pulled)
        return theta

    def _gradients(self, theta: dict[str, Tensor], batch: Batch, clip: float | None) -> Sequence[Tensor]:
        """The gradient of the mean loss by each tensor; with `clip`, of each configuration's loss clipped."""
        losses, tensors = self._losses(theta, batch), list(theta.values())
        if clip is None:
            return list(torch.autograd.grad(losses.mean(), tensors))
        total = [torch.zeros_like(tensor) for tensor in tensors]
        for loss in losses:
            own = torch.autograd.grad(loss, tensors, retain_graph=True)
            norm = torch.sqrt(torch.stack([(each**2).sum() for each in own]).sum())
            factor = torch.clamp(clip / norm, max=1.0) / len(losses)
            total = [summed + factor * each for summed, each in zip(total, own, strict=True)]
        return total

    def _losses(self, theta: dict[str, Tensor], batch: Batch) -> Tensor:
        """1/2 ((U - U_data) / N)^2 + w/2 |F - F_data|^2 / (3 N) of each configuration, [frames]."""
        r = batch.distance.clone().requires_grad_()
        u = network(theta, r, self.model.shortest, self.learned.cutoff)
        (slope,) = torch.autograd.grad(u.sum(), r, create_graph=True)
        pull = -slope[:, None] * batch.direction
        forces = torch.zeros_like(batch.forces).index_add(0, batch.first, pull).index_add(0, batch.second, -pull)
        energy = torch.zeros_like(batch.energy).index_add(0, batch.frame, u)
        wrong = ((forces - batch.forces) ** 2).reshape(len(energy), -1).sum(dim=1) / (3 * batch.atoms)
        return 0.5 * ((energy - batch.energy) / batch.atoms) ** 2 + 0.5 * self.learned.force_weight * wrong

    def _batch(self, data: Output, chosen: np.ndarray) -> Batch:
        return Batch.of(Configurations.of(data, "data"), chosen, self.learned.cutoff, self.device)

    def _tensors(self, parameters: Tensors) -> dict[str, Tensor]:
        return {
            name: torch.from_numpy(np.array(tensor, dtype=np.float64)).to(self.device)
            for name, tensor in sorted(parameters.items())
        }


def _adam(moments: tuple[Tensor, Tensor], gradient: Tensor, step: int) -> Tensor:
    """The direction of Adam's step, with its bias correction; `moments` are brought forward in place."""
    for moment, decay, value in zip(moments, DECAYS, (gradient, gradient**2), strict=True):
        moment.mul_(decay).add_(value, alpha=1 - decay)
    first, second = (moment / (1 - decay**step) for moment, decay in zip(moments, DECAYS, strict=True))
    return first / (second.sqrt() + SMALL)
