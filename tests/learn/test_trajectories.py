"""Gradients of trajectories: against closed forms and finite differences, in memory that grows as the square root."""

from __future__ import annotations

import math
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from manybody.learn.trajectories import trajectory

DOUBLE = torch.float64


def spring(x: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return 0.5 * k * (x**2).sum()


def chain(x: torch.Tensor, k: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
    """Neighbours on a line with springs that are not harmonic."""
    apart = (x[1:] - x[:-1] - 1).norm(dim=1)
    return 0.5 * k * (apart**2).sum() + soft * (apart**4).sum()


def test_a_spring_has_the_gradient_of_its_closed_form() -> None:
    # Velocity Verlet turns a harmonic oscillator exactly, by the angle cos(phi) = 1 - (w dt)^2 / 2 a step.
    k = torch.tensor(2.0, dtype=DOUBLE, requires_grad=True)
    x = torch.tensor([[0.7, -0.2, 0.1]], dtype=DOUBLE, requires_grad=True)
    v = torch.zeros(1, 3, dtype=DOUBLE, requires_grad=True)
    mass, dt, steps = 1.5, 0.05, 90
    end, _ = trajectory(spring, x, v, mass, dt, steps, (k,))
    slopes = torch.autograd.grad(end[0, 0], (x, v, k))
    w2 = 2.0 / mass
    phi = math.acos(1 - 0.5 * w2 * dt**2)
    assert end[0, 0].item() == pytest.approx(0.7 * math.cos(steps * phi), abs=1e-12)
    assert slopes[0][0, 0].item() == pytest.approx(math.cos(steps * phi), abs=1e-12)
    assert slopes[0][0, 1].item() == pytest.approx(0, abs=1e-12)
    # and moves it by dt sin(n phi) / sin(phi) for a unit of velocity at the start
    assert slopes[1][0, 0].item() == pytest.approx(math.sin(steps * phi) * dt / math.sin(phi), abs=1e-12)
    by_phi = -0.7 * steps * math.sin(steps * phi)
    assert slopes[2].item() == pytest.approx(by_phi * 0.5 * dt**2 / mass / math.sin(phi), rel=1e-10)


def test_gradients_are_finite_differences_whatever_is_kept() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.arange(3.0, dtype=DOUBLE)[:, None] * torch.ones(3) + 0.1 * torch.randn(3, 3, dtype=DOUBLE, generator=generator)
    v = 0.1 * torch.randn(3, 3, dtype=DOUBLE, generator=generator)
    masses = torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE)
    k, soft = torch.tensor(3.0, dtype=DOUBLE), torch.tensor(0.4, dtype=DOUBLE)

    def loss(stretch: int | None, x: torch.Tensor, v: torch.Tensor, m: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        ends = trajectory(chain, x, v, m, 0.05, 11, parameters, stretch)
        return (ends[0] ** 2).sum() + (ends[1] ** 3).sum()

    given = [each.requires_grad_() for each in (x, v, masses, k, soft)]
    assert torch.autograd.gradcheck(lambda *tensors: loss(None, *tensors), given, eps=1e-6, atol=1e-6)
    expected = torch.autograd.grad(loss(11, *given), given)
    for stretch in (1, 4, None):
        for ours, exact in zip(torch.autograd.grad(loss(stretch, *given), given), expected, strict=True):
            assert torch.allclose(ours, exact, rtol=1e-12, atol=1e-13)


class Living(TorchDispatchMode):
    """The most bytes of tensors alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak = 0, 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.drop, storage._cdata, storage.nbytes())
        return found

    def drop(self, name: int, size: int) -> None:
        self.known.discard(name)
        self.now -= size


def peak(steps: int, stretch: int | None) -> int:
    k = torch.tensor(2.0, dtype=DOUBLE, requires_grad=True)
    x, v = torch.ones(40, 3, dtype=DOUBLE), torch.zeros(40, 3, dtype=DOUBLE)
    with Living() as living:
        torch.autograd.grad(trajectory(spring, x, v, 1.0, 0.01, steps, (k,), stretch)[0].sum(), k)
    return living.peak


def test_memory_grows_with_the_square_root_of_the_steps() -> None:
    # Four times the steps: twice the memory with checkpoints, four times when everything is kept; what is there anyway is less.
    assert 1.5 < peak(144, None) / peak(36, None) < 2.2
    assert 3.5 < peak(144, 144) / peak(36, 36) < 4.1
    assert peak(144, None) < peak(144, 144) / 3


def test_impossible_horizons_are_refused() -> None:
    x = torch.zeros(1, 3, dtype=DOUBLE)
    with pytest.raises(ValueError, match="steps >= 0"):
        trajectory(spring, x, x, 1.0, 0.1, -1, (torch.tensor(1.0),))
    unmoved, _ = trajectory(spring, x, x, 1.0, 0.1, 0, (torch.tensor(1.0, dtype=DOUBLE),))
    assert torch.equal(unmoved, x)
