"""Models that were exported drive atoms; a learned correction to a classical model brings it to another one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from manybody.core.energies import EnergyError
from manybody.core.errors import InputError
from manybody.core.random import Key
from manybody.engines.atoms.energies.spec import CalculatorModel, SumModel
from manybody.engines.atoms.engine import AtomsEngine, StoppedRun
from manybody.engines.atoms.spec import FEMTOSECOND, Crystal
from manybody.learn.export import export
from manybody.learn.exported import ExportedModel, drivable, example_of
from manybody.numerics.many_body import rows_within
from manybody.testing.engine import check_engine

CUTOFF = 4.3  # both calculators end there
LENNARD_JONES = CalculatorModel(
    path="ase.calculators.lj.LennardJones", arguments={"epsilon": 0.4, "sigma": 2.27, "rc": CUTOFF, "ro": 3.0, "smooth": True}
)
MORSE = CalculatorModel(
    path="ase.calculators.morse.MorsePotential",
    arguments={"epsilon": 0.34, "r0": 2.55, "rho0": 4.0, "rcut1": 3.0 / 2.55, "rcut2": CUTOFF / 2.55},
)
CRYSTAL = Crystal(repeat=(2, 2, 2), energy=LENNARD_JONES)


class PairSum(torch.nn.Module):
    """sum_pairs sum_k c_k phi_k(r): Gaussians of the distance, brought to zero at the cutoff."""

    def __init__(self, functions: int = 28) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(2.2, CUTOFF, functions, dtype=torch.float64))
        self.register_buffer("weights", torch.ones(functions, dtype=torch.float64))

    def basis(self, r: torch.Tensor) -> torch.Tensor:
        width = self.centres[1] - self.centres[0]
        inside = torch.clamp(1 - (r / CUTOFF) ** 2, min=0.0) ** 2
        return torch.exp(-(((r[:, None] - self.centres) / width) ** 2)) * inside[:, None]

    def forward(
        self, positions: torch.Tensor, cell: torch.Tensor, numbers: torch.Tensor, pairs: torch.Tensor, shifts: torch.Tensor
    ) -> torch.Tensor:
        r = torch.linalg.norm(positions[pairs[1]] + shifts - positions[pairs[0]], dim=1)
        return (self.basis(r) @ self.weights).sum()


def rattled(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    atoms = CRYSTAL.atoms()
    atoms.positions += np.random.default_rng(seed).normal(scale=0.06, size=atoms.positions.shape)
    return atoms.positions, atoms.numbers, np.array(atoms.cell), np.array(atoms.pbc)


@pytest.fixture(scope="module")
def learned() -> PairSum:
    """The difference of the two calculators, by least squares on the forces of six configurations."""
    model, rows, targets = PairSum(), [], []
    base, target = LENNARD_JONES.load(), MORSE.load()
    for seed in range(6):
        given = rattled(seed)
        x, _, cell, pbc = given
        pairs, shifts = rows_within(x, cell, pbc, CUTOFF).pairs()
        apart = torch.from_numpy(x[pairs[1]] + shifts - x[pairs[0]])
        r = torch.linalg.norm(apart, dim=1).requires_grad_()
        slopes = torch.stack([torch.autograd.grad(column.sum(), r, retain_graph=True)[0] for column in model.basis(r).T])
        pull = (slopes[:, :, None] * (apart / r.detach()[:, None])).detach()  # [functions, pairs, 3]
        forces = torch.zeros(len(slopes), len(x), 3, dtype=torch.float64)
        forces = forces.index_add(1, torch.from_numpy(pairs[0]), pull).index_add(1, torch.from_numpy(pairs[1]), -pull)
        rows.append(forces.reshape(len(slopes), -1).T.numpy())
        targets.append((target(*given).forces - base(*given).forces).ravel())
    model.weights = torch.from_numpy(np.linalg.lstsq(np.concatenate(rows), np.concatenate(targets), rcond=None)[0])
    return model


@pytest.fixture(scope="module")
def correction(learned: PairSum, tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    """The learned correction, as TorchScript."""
    path, example = tmp_path_factory.mktemp("learned") / "correction.pt", example_of(*rattled(50), cutoff=CUTOFF)
    export(drivable(learned, example), example, path, "torchscript")
    return ExportedModel(file=str(path), elements=("Cu",), cutoff=CUTOFF)


def test_a_learned_difference_turns_one_model_into_the_other(correction: ExportedModel) -> None:
    both, target, base = SumModel(base=LENNARD_JONES, correction=correction).load(), MORSE.load(), LENNARD_JONES.load()
    before, after = [], []
    for seed in range(60, 62):  # configurations that it has not seen
        given = rattled(seed)
        exact = target(*given)
        before.append(base(*given).forces - exact.forces)
        after.append(both(*given).forces - exact.forces)
    # 28 Gaussians leave less than a per cent of a smooth difference
    assert np.std(after) < 0.01 * np.std(before)
    stress = both(*rattled(70)).stress
    assert stress == pytest.approx(target(*rattled(70)).stress, abs=0.01 * np.abs(stress).max())


def test_a_learned_model_keeps_the_contract_of_an_engine(correction: ExportedModel) -> None:
    engine = AtomsEngine(CRYSTAL.model_copy(update={"energy": correction}), FEMTOSECOND)
    check_engine(engine, conserved=3e-3, steps=4)


def test_every_form_drives_with_the_same_forces(learned: PairSum, correction: ExportedModel, tmp_path: Path) -> None:
    example, given = example_of(*rattled(50), cutoff=CUTOFF), rattled(80)
    export(drivable(learned, example), example, tmp_path / "model.pt2", "export")
    other = ExportedModel(file=str(tmp_path / "model.pt2"), elements=("Cu",), cutoff=CUTOFF)
    first, second = correction.load()(*given), other.load()(*given)
    assert first.forces == pytest.approx(second.forces, abs=1e-12)
    x = torch.from_numpy(given[0]).requires_grad_()
    pairs = example_of(*given, cutoff=CUTOFF)
    (slope,) = torch.autograd.grad(learned(x, *pairs[1:]), x)
    assert first.forces == pytest.approx(-slope.numpy(), abs=1e-12)


def test_stress_is_the_derivative_by_strain(correction: ExportedModel) -> None:
    positions, numbers, cell, pbc = rattled(90)
    provider, size = correction.load(), 1e-5
    strain = size * np.array([[1.0, 0.3, 0], [0.3, -0.5, 0], [0, 0, 0.2]])
    ends = [provider(positions @ (np.eye(3) + s * strain), numbers, cell @ (np.eye(3) + s * strain), pbc).energy for s in (1, -1)]
    stress = provider(positions, numbers, cell, pbc).stress
    assert stress is not None
    assert (ends[0] - ends[1]) / 2 == pytest.approx(float((stress * strain).sum()) * np.linalg.det(cell), rel=1e-6)


def test_other_atoms_than_it_was_exported_for_are_refused(correction: ExportedModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a model that knows Ag; got one for Cu"):
        Crystal(material="Ag", lattice_constant=4.09, energy=correction)
    larger = AtomsEngine(Crystal(repeat=(2, 2, 3), energy=correction))
    with pytest.raises(StoppedRun, match=r"Step 0: .* pairs are within the cutoff; .*|Step 0: the exported model fails"):
        larger.step(larger.init(Key.from_seed(1)))
    positions, numbers, cell, pbc = rattled(1)
    with pytest.raises(EnergyError, match="exported for at most"):
        correction.load()(0.8 * positions, numbers, 0.8 * cell, pbc)
    with pytest.raises(InputError, match="a program of positions, cell, numbers; got 5 tensors"):
        ExportedModel.model_validate(correction.document() | {"cutoff": None}).load()
    copy = tmp_path / "copy.pt"
    copy.write_bytes(Path(correction.file).read_bytes() + b"0")
    with pytest.raises(InputError, match="other content"):
        ExportedModel.model_validate(correction.document() | {"file": str(copy)}).load()
