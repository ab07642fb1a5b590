"""A potential that is linear in its coefficients: splines of the distance, least squares, gradient steps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.interpolate import BSpline

from manybody.core.learning import Tensors, Trained, Training
from manybody.core.random import Key
from manybody.core.task import Output
from manybody.learn.potentials.configurations import Configurations, pairs_within
from manybody.learn.potentials.learner import Learned, PotentialLearner, training_frames
from manybody.learn.potentials.spec import RadialBasis

DEGREE = 3


def splines(functions: int, shortest: float, cutoff: float) -> BSpline:
    """The basis as one spline with values [functions]: cubic, knots even in 1/r, the last one, not 0 at the cutoff, left out."""
    inner = 1 / np.linspace(1 / shortest, 1 / cutoff, functions - DEGREE + 2)[1:-1]
    knots = np.concatenate([[shortest] * (DEGREE + 1), inner, [cutoff] * (DEGREE + 1)])
    return BSpline(knots, np.eye(functions + 1)[:, :functions], DEGREE)


def basis(spline: BSpline, r: np.ndarray, shortest: float) -> tuple[np.ndarray, np.ndarray]:
    """phi_k(r) and phi_k'(r), each [pairs, functions]; below `shortest` straight lines."""
    inside = np.maximum(r, shortest)
    slopes = spline.derivative()(inside)
    return spline(inside) + (r - inside)[:, None] * slopes, slopes


def loss(theta: np.ndarray, hessian: np.ndarray, linear: np.ndarray, square: float) -> float:
    """L = 1/2 theta H theta - b theta + s/2, least squares in its normal form."""
    return float(0.5 * theta @ hessian @ theta - linear @ theta + 0.5 * square)


def descended(theta: np.ndarray, hessian: np.ndarray, linear: np.ndarray, training: Training) -> np.ndarray:
    """theta after gradient steps theta <- theta - eta (H theta - b + pull (theta - theta_0))."""
    start = theta
    for _ in range(training.steps):
        theta = theta - training.learning_rate * (hessian @ theta - linear + training.pull * (theta - start))
    return theta


def clipped_mean(gradients: np.ndarray, clip: float) -> np.ndarray:
    """(1/n) sum_i g_i min(1, clip / |g_i|).  gradients: [samples, values]; returns [values]."""
    norms = np.linalg.norm(gradients, axis=1)
    factors = np.where(norms > clip, clip / np.where(norms > 0, norms, 1.0), 1.0)
    return np.asarray((factors[:, None] * gradients).mean(axis=0))


class RadialLearner(PotentialLearner):
    """Least squares in whitened coordinates, theta = W^-1 c; a configuration enters by its normal equations alone."""

    def __init__(self, learned: Learned, model: RadialBasis) -> None:
        super().__init__(learned)
        self.model = model
        self.spline = splines(model.functions, model.shortest, learned.cutoff)

    def features(self, found: Configurations) -> dict[str, np.ndarray]:
        """Normal equations of each configuration: hessian [frames, K, K], linear [frames, K], square [frames]."""
        rows = [self._normal(found, frame) for frame in range(found.frames)]
        return {name: np.stack([row[name] for row in rows]) for name in ("hessian", "linear", "square")}

    def _normal(self, found: Configurations, frame: int) -> dict[str, np.ndarray]:
        energies, forces = self._design(found.positions[frame], found.box)
        weight = self.learned.force_weight / (3 * found.atoms)
        target, pulls = found.energy[frame] / found.atoms, found.forces[frame].reshape(-1)
        return {
            "hessian": np.outer(energies, energies) + weight * forces.T @ forces,
            "linear": energies * target + weight * forces.T @ pulls,
            "square": np.asarray(target**2 + weight * pulls @ pulls),
        }

    def _design(self, positions: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energy an atom [K] and forces [3 atoms, K] of each basis function alone."""
        pairs, atoms = pairs_within(positions, box, self.learned.cutoff), len(positions)
        values, slopes = basis(self.spline, pairs.distance, self.model.shortest)
        forces = np.zeros((atoms, 3, self.model.functions))
        for axis in range(3):
            pull = -slopes * pairs.direction[:, axis, None]
            np.add.at(forces[:, axis], pairs.first, pull)
            np.subtract.at(forces[:, axis], pairs.second, pull)
        return values.sum(axis=0) / atoms, forces.reshape(3 * atoms, -1)

    def start(self, public: Output, key: Key) -> tuple[Tensors, Tensors]:
        """Zero, and W = (H + damping tr H / K)^-1/2 of the public configurations."""
        hessian = public.arrays["hessian"][training_frames(public)].mean(axis=0)
        size = len(hessian)
        values, vectors = np.linalg.eigh(hessian + self.model.damping * np.trace(hessian) / size * np.eye(size))
        return {"coefficients": np.zeros(size)}, {"whitening": (vectors / np.sqrt(values)) @ vectors.T}

    def train(self, parameters: Tensors, agreed: Tensors, data: Output, training: Training) -> Trained:
        """Full-batch gradient steps on the configurations trained on."""
        seen = training_frames(data)
        hessian, linear, square = whitened(data, agreed, seen)
        theta = np.asarray(parameters["coefficients"], dtype=np.float64)
        if training.clip is None:
            theta = descended(theta, hessian, linear, training)
        else:
            theta = self._descended_clipped(theta, agreed["whitening"], data, training, training.clip)
        after = {"coefficients": theta}
        variance = 2 * float(self.losses(after, agreed, data)[~seen].mean())
        return Trained(after, int(seen.sum()), loss(theta, hessian, linear, square), variance)

    def _descended_clipped(self, theta: np.ndarray, w: np.ndarray, data: Output, training: Training, clip: float) -> np.ndarray:
        """theta after steps along the mean of the configurations' gradients, each clipped."""
        seen, start = training_frames(data), theta
        for _ in range(training.steps):
            gradients = (data.arrays["hessian"][seen] @ (w @ theta) - data.arrays["linear"][seen]) @ w
            theta = theta - training.learning_rate * (clipped_mean(gradients, clip) + training.pull * (theta - start))
        return theta

    def potential(self, parameters: Tensors, agreed: Tensors, r: np.ndarray) -> np.ndarray:
        """sum_k c_k phi_k(r)."""
        found: np.ndarray = basis(self.spline, r, self.model.shortest)[0] @ (agreed["whitening"] @ parameters["coefficients"])
        return found

    def losses(self, parameters: Tensors, agreed: Tensors, data: Output) -> np.ndarray:
        """1/2 c H c - b c + s/2 of each configuration."""
        c = agreed["whitening"] @ parameters["coefficients"]
        arrays = data.arrays
        found: np.ndarray = 0.5 * (arrays["hessian"] @ c) @ c - arrays["linear"] @ c + 0.5 * arrays["square"]
        return found

    def pooled(self, start: Tensors, agreed: Tensors, data: Mapping[str, Output]) -> Output | None:
        """Each party's loss in theta; least squares is exact, so all else follows from them."""
        arrays: dict[str, np.ndarray] = {}
        for name, prepared in data.items():
            hessian, linear, square = whitened(prepared, agreed, training_frames(prepared))
            arrays |= {f"hessian/{name}": hessian, f"linear/{name}": linear, f"square/{name}": np.asarray(square)}
        return Output(arrays, {"samples": {name: int(training_frames(prepared).sum()) for name, prepared in data.items()}})


def whitened(data: Output, agreed: Tensors, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """H [K, K], b [K] and s of the mean loss over the configurations in `seen` [frames], in theta."""
    w, arrays = agreed["whitening"], data.arrays
    hessian = w.T @ arrays["hessian"][seen].mean(axis=0) @ w
    return 0.5 * (hessian + hessian.T), w.T @ arrays["linear"][seen].mean(axis=0), float(arrays["square"][seen].mean())
