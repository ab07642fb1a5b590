"""Embedded atoms: energies, forces and stresses against ASE and against derivatives; files in every format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.eam import EAM

from manybody.core.energies import EnergyError
from manybody.core.errors import InputError
from manybody.engines.atoms.eam_file import CHARGE_ENERGY, EamFile, elements_of, read_eam, write_setfl
from manybody.engines.atoms.energies.eam import EmbeddedAtomProvider
from manybody.engines.atoms.energies.spec import COPPER, FILES
from manybody.engines.atoms.sutton_chen import COPPER as METAL
from manybody.engines.atoms.sutton_chen import SuttonChen, main, tabulated
from manybody.numerics import many_body

SILVER = SuttonChen("Ag", 107.8682, 2.5415e-3, 4.09, 144.41, 12, 6, switch=5.0, cutoff=7.5)
CLOSE = 1e-10  # eV and eV/angstrom: two codes that add up some hundred terms of order 1 in another order


def rattled(pbc: bool | tuple[bool, ...] = True, cells: int = 2, symbols: str = "Cu") -> ase.Atoms:
    """A strained crystal with atoms off their sites, every other one of the second element if there are two."""
    generator = np.random.default_rng(5)
    atoms = bulk("Cu", cubic=True).repeat(cells)
    atoms.symbols[1::2] = symbols[2:] or "Cu"
    atoms.positions += generator.normal(scale=0.1, size=atoms.positions.shape)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + generator.normal(scale=0.02, size=(3, 3))), scale_atoms=True)
    atoms.pbc = pbc
    return atoms


def arrays(atoms: ase.Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    return atoms.positions, atoms.numbers, np.array(atoms.cell), np.array(atoms.pbc)


@pytest.fixture(scope="module")
def alloy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copper and silver, with the geometric mean of their pair energies between them."""
    one, two = (tabulated(metal) for metal in (METAL, SILVER))
    density = np.stack([np.stack([each.density[0, 0]] * 2) for each in (one, two)])
    cross = np.sqrt(np.maximum(one.pair[0, 0] * two.pair[0, 0], 0))
    pair = np.stack([np.stack([one.pair[0, 0], cross]), np.stack([cross, two.pair[0, 0]])])
    embedding = np.concatenate([one.embedding, two.embedding])
    path = tmp_path_factory.mktemp("potentials") / "CuAg.eam.alloy"
    file = EamFile(
        ("Cu", "Ag"), (METAL.mass, SILVER.mass), (3.61, 4.09), embedding, density, pair, one.step, one.spacing, one.cutoff
    )
    write_setfl(file, path, ("one", "two", "three"))
    return path


@pytest.mark.parametrize("pbc", [True, (True, True, False), False])
def test_energies_and_forces_are_those_of_ase(alloy: Path, pbc: bool | tuple[bool, ...]) -> None:
    atoms = rattled(pbc, symbols="CuAg")
    found = EmbeddedAtomProvider(read_eam(alloy))(*arrays(atoms))
    atoms.calc = EAM(potential=str(alloy))
    assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=CLOSE)
    assert np.abs(found.forces - atoms.get_forces()).max() < CLOSE
    if pbc is True:
        assert found.stress is not None
        assert np.abs(found.stress - atoms.get_stress(voigt=False)).max() < CLOSE
    else:
        assert found.stress is None


def test_forces_and_stress_are_derivatives_of_the_formula(alloy: Path) -> None:
    atoms, provider = rattled(symbols="CuAg"), EmbeddedAtomProvider(read_eam(alloy))
    found = provider(*arrays(atoms))
    pairs, shifts = many_body.rows_within(atoms.positions, np.array(atoms.cell), np.array(atoms.pbc), 7.5).pairs()
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    x = torch.tensor(atoms.positions, requires_grad=True)
    turn, species = torch.eye(3) + strain, torch.tensor([["Cu", "Ag"].index(symbol) for symbol in atoms.symbols])
    energy = many_body.energy(provider.tables, x @ turn, species, torch.from_numpy(pairs), torch.from_numpy(shifts) @ turn)
    slope, strained = torch.autograd.grad(energy, (x, strain))
    assert found.energy == pytest.approx(energy.item(), abs=CLOSE)
    assert np.abs(found.forces + slope.numpy()).max() < CLOSE
    assert found.stress is not None
    assert np.abs(found.stress - strained.numpy() / atoms.get_volume()).max() < CLOSE


def test_one_atom_sees_its_own_images() -> None:
    provider = EmbeddedAtomProvider(read_eam(FILES / COPPER))
    single, many = bulk("Cu", a=3.61), bulk("Cu", a=3.61, cubic=True).repeat(3)
    alone, together = provider(*arrays(single)), provider(*arrays(many))
    assert alone.energy == pytest.approx(together.energy / len(many), abs=CLOSE)
    assert alone.stress == pytest.approx(together.stress, abs=CLOSE)


def test_lists_are_kept_while_they_hold_and_forgotten_on_demand() -> None:
    atoms, kept = rattled(), EmbeddedAtomProvider(read_eam(FILES / COPPER))
    kept(*arrays(atoms))
    for _ in range(4):
        atoms.positions += 0.12  # twice within half of the skin, then beyond it
        fresh = EmbeddedAtomProvider(read_eam(FILES / COPPER))(*arrays(atoms))
        assert kept(*arrays(atoms)).energy == pytest.approx(fresh.energy, abs=CLOSE)
    kept.forget()
    assert kept(*arrays(atoms)).forces.tobytes() == fresh.forces.tobytes()


def test_the_shipped_file_is_what_the_command_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["sutton_chen", str(tmp_path / "written")])
    assert main() == 0
    assert (tmp_path / "written").read_bytes() == (FILES / COPPER).read_bytes()
    file, r = read_eam(FILES / COPPER), np.linspace(2.2, 7.4, 333)
    tables = EmbeddedAtomProvider(file).tables
    # A cubic spline is off by at most 5/384 h^4 times the fourth derivative, 9 10 11 12 eps a^9 / r^13 where r is smallest.
    steepest = 11880 * METAL.epsilon * METAL.a**9 / 2.2**13
    exact, place = METAL.pair(r), (r / file.spacing).astype(int)
    t = r - place * file.spacing
    ours = sum(tables.pair[0, 0, place, power] * t**power for power in range(4))
    assert np.abs(ours - exact).max() < 5 / 384 * file.spacing**4 * steepest + 1e-14


def test_formats_say_the_same(alloy: Path, tmp_path: Path) -> None:
    atoms, file = rattled(), read_eam(FILES / COPPER)
    expected = EmbeddedAtomProvider(file)(*arrays(atoms))
    charge = np.sqrt(file.pair[0, 0] / CHARGE_ENERGY)
    grid = f"{file.embedding.shape[1]} {file.step:.17g} {len(charge)} {file.spacing:.17g} {file.cutoff:.17g}"
    rows = [" ".join(f"{value:.17g}" for value in values) for values in (file.embedding[0], charge, file.density[0, 0])]
    path = tmp_path / "copper.eam"
    path.write_text("\n".join(["copper", "29 63.546 3.61 fcc", grid, *rows]) + "\n")
    found = EmbeddedAtomProvider(read_eam(path))(*arrays(atoms))
    assert elements_of(path) == ("Cu",)
    # the charge at r = 0 is a square root: nothing but round-off is lost
    assert found.energy == pytest.approx(expected.energy, abs=1e-9)
    both = read_eam(alloy)
    lines = alloy.read_text().splitlines()
    columns = []
    for index, (number, mass) in enumerate(((29, METAL.mass), (47, SILVER.mass))):
        columns += [f"{number} {mass} 4 fcc", *map(" ".join, [map(repr, both.embedding[index].tolist())])]
        columns += [" ".join(map(repr, both.density[index, other].tolist())) for other in range(2)]
    columns += [" ".join(map(repr, both.pair[i, j].tolist())) for i, j in ((0, 0), (1, 0), (1, 1))]
    (tmp_path / "CuAg.eam.fs").write_text("\n".join([*lines[:5], *columns]) + "\n")
    fs, mixed = read_eam(tmp_path / "CuAg.eam.fs"), rattled(symbols="CuAg")
    assert EmbeddedAtomProvider(fs)(*arrays(mixed)).energy == EmbeddedAtomProvider(both)(*arrays(mixed)).energy


def test_what_is_no_potential_is_refused(tmp_path: Path) -> None:
    whole = (FILES / COPPER).read_text()
    for name, text, told in (
        ("short.eam.alloy", whole[:5000], "embedded-atom potential"),
        ("words.eam.alloy", whole.replace("1 Cu", "two Cu"), "embedded-atom potential"),
        ("name.txt", whole, r"ends in \.alloy"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=told):
            read_eam(tmp_path / name)


def test_other_elements_and_overlapping_atoms_are_named() -> None:
    atoms, provider = rattled(), EmbeddedAtomProvider(read_eam(FILES / COPPER))
    atoms.symbols[3] = "Au"
    with pytest.raises(EnergyError, match="does not have its element") as caught:
        provider(*arrays(atoms))
    assert caught.value.atom == 3
    atoms = rattled()
    atoms.positions[7] = atoms.positions[4] + 0.3
    with pytest.raises(EnergyError, match="atoms overlap") as caught:
        provider(*arrays(atoms))
    assert caught.value.atom in (4, 7)


def test_cutoffs_of_the_closed_form_meet_smoothly() -> None:
    metal = replace(METAL, switch=4.0, cutoff=5.0)
    r = np.array([3.999999, 4.000001, 4.999999, 5.000001])
    assert np.allclose(metal.smooth(r), [1, 1, 0, 0], atol=1e-12)
