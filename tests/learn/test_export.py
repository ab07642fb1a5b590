"""A model in every form gives the same, also from its file in a fresh process."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from manybody.core.errors import InputError
from manybody.learn.export import export, load
from manybody.numerics.programs import capacity, compiled, padded_pairs, with_forces

ATOMS, EDGE, CUTOFF = 20, 4.0, 1.9
FRESH = """
import sys, torch
from pathlib import Path
from manybody.learn.export import load
energy, forces = load(Path(sys.argv[1]))(*torch.load(sys.argv[2]))
torch.save((energy, forces), sys.argv[3])
"""


class LennardJones(torch.nn.Module):
    """The energy of pairs, positions [atoms, 3], pairs [2, n], real [n]; epsilon is a parameter to be learned."""

    def __init__(self):
        super().__init__()
        self.epsilon = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, positions, pairs, real):
        apart = positions[pairs[0]] - positions[pairs[1]]
        apart = apart - EDGE * torch.round(apart / EDGE)
        r2 = (apart * apart).sum(-1)
        inside = real & (r2 < CUTOFF * CUTOFF)
        inverse = 1 / torch.where(inside, r2, 1.0) ** 3
        return torch.where(inside, 4 * self.epsilon * (inverse * inverse - inverse), 0.0).sum()


@pytest.fixture(scope="module")
def case():
    """A model with forces, and tensors that it takes: a jittered lattice."""
    site = torch.arange(3, dtype=torch.float64) * EDGE / 3
    lattice = torch.cartesian_prod(site, site, site)[:ATOMS]
    positions = lattice + 0.05 * torch.rand(ATOMS, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pairs = torch.combinations(torch.arange(ATOMS)).T.contiguous()
    example = (positions, *padded_pairs(pairs, capacity(pairs.shape[1])))
    model = LennardJones().requires_grad_(False)
    moving = positions.clone().requires_grad_()
    energy = model(moving, *example[1:])
    energy.backward()
    return with_forces(model, example), example, (energy.detach(), -moving.grad)


def close(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12 * float(expected[1].abs().max()))


@pytest.mark.parametrize("form", ["eager", "torchscript"])
def test_every_form_gives_energy_and_the_gradient_of_autograd(case, form):
    program, example, expected = case
    close(compiled(program, example, form)(*example), expected)


def test_padding_changes_nothing(case):
    _, (positions, pairs, real), expected = case
    model = LennardJones().requires_grad_(False)
    bare = (positions, pairs[:, real], real[real])
    assert model(*bare) == pytest.approx(float(expected[0]), rel=1e-14)
    assert capacity(190) == 256
    assert [capacity(n) for n in (257, 321, 322, 400)] == [321, 321, 402, 402]
    with pytest.raises(ValueError, match="at most 10 pairs; got 190"):
        padded_pairs(pairs[:, real], 10)


@pytest.mark.parametrize("form", ["torchscript", "export", "aotinductor"])
def test_a_package_gives_the_same_in_a_fresh_process(case, form, tmp_path: Path):
    if form == "aotinductor" and shutil.which("g++") is None:
        pytest.skip("AOTInductor needs a C++ compiler; install the package g++")
    program, example, expected = case
    path = tmp_path / ("model.pt" if form == "torchscript" else "model.pt2")
    package = export(program, example, path, form)
    torch.save(example, tmp_path / "example")
    subprocess.run([sys.executable, "-c", FRESH, path, tmp_path / "example", tmp_path / "out"], check=True, timeout=250)
    close(torch.load(tmp_path / "out"), expected)
    assert json.loads(path.with_suffix(".json").read_text())["sha256"] == package.sha256
    assert load(path).package == package
    with pytest.raises(InputError, match=r"float64 \[20, 3\].*float64 \[19, 3\]"):
        load(path)(example[0][1:], *example[1:])


def test_a_file_that_is_not_the_one_that_was_written_is_refused(case, tmp_path: Path):
    program, example, _ = case
    path = tmp_path / "model.pt2"
    export(program, example, path, "export")
    assert sorted(child.name for child in tmp_path.iterdir()) == ["model.json", "model.pt2"]
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="Export the model again"):
        load(path)
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(InputError, match="wrong fields"):
        load(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(InputError, match="keep both files together"):
        load(path)
    with pytest.raises(InputError, match=r"torchscript in a file \*\.pt"):
        export(program, example, path, "torchscript")


def test_machine_code_of_another_torch_is_refused_before_it_is_loaded(case, tmp_path: Path):
    program, example, _ = case
    path = tmp_path / "model.pt2"
    export(program, example, path, "export")
    told = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(told | {"format": "aotinductor", "torch": "1.0"}))
    with pytest.raises(InputError, match=r"torch 1\.0"):
        load(path)
