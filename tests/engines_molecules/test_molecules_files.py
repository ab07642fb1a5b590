"""Files: what is read is what was meant, what is written opens elsewhere, and what does not fit is refused."""

import shutil

import numpy as np
import pytest
from ase.io import read
from pydantic import ValidationError

from manybody.core.errors import InputError
from manybody.core.random import Key
from manybody.engines.molecules.amber import read_amber
from manybody.engines.molecules.engine import MoleculeEngine
from manybody.engines.molecules.spec import FILES, KELVIN, Molecule, WaterBox
from manybody.engines.molecules.trajectory import trajectory

PRMTOP, INPCRD = FILES / "alanine-dipeptide.prmtop", FILES / "alanine-dipeptide.inpcrd"
SMALL = WaterBox(temperature=300 * KELVIN, molecules=64, cutoff=0.6, switch=0.5, electrostatics="reaction-field")


def test_an_amber_file_gives_the_molecule_it_describes():
    topology, positions, box = read_amber(PRMTOP, INPCRD)
    assert box is None
    assert "".join("HCNO"[[1, 6, 7, 8].index(number)] for number in topology.numbers[:8]) == "CHHHCONH"
    assert topology.molecules == 1
    assert topology.charges.sum() == pytest.approx(0, abs=1e-6)
    assert topology.masses.sum() == pytest.approx(144.17, abs=0.01)  # C6 H12 N2 O2
    assert {name: sum(len(part.atoms) for part in parts) for name, parts in topology.bonded.items()} == {
        "bond": 21,
        "angle": 36,
        "torsion": 54,
        "improper": 4,
    }
    lengths = np.linalg.norm(positions[topology.bonds[:, 0]] - positions[topology.bonds[:, 1]], axis=1)
    assert lengths == pytest.approx(topology.bonded["bond"][0].parameters[np.argsort(_order(topology))][:, 1], abs=0.005)


def _order(topology):
    """Where each bond of the topology stands among the terms."""
    rows = [tuple(sorted(pair)) for pair in topology.bonded["bond"][0].atoms]
    return [rows.index(tuple(sorted(pair))) for pair in topology.bonds]


@pytest.mark.parametrize("kind", ["dcd", "xtc", "pdb", "gro"])
def test_frames_of_water_open_elsewhere(tmp_path, kind):
    import mdtraj

    engine = MoleculeEngine(SMALL)
    frames = np.stack([engine.init(Key.from_seed(seed)).positions.numpy() for seed in range(3)])
    ours = trajectory(engine.topology, frames, [0.0, 0.5, 1.0], engine.field.box)
    ours.save(str(tmp_path / f"water.{kind}"))
    theirs = mdtraj.load(str(tmp_path / f"water.{kind}"), top=ours.topology)
    assert theirs.n_frames == 3
    assert np.abs(theirs.xyz - frames).max() < 1.1e-3  # GRO and XTC keep picometres
    assert theirs.unitcell_lengths == pytest.approx(np.full((3, 3), SMALL.box), abs=1e-4)
    assert [bond[0].name for bond in theirs.topology.bonds] == ["O"] * 128


def test_a_pdb_file_gives_the_coordinates_of_a_molecule(tmp_path):
    topology, positions, _ = read_amber(PRMTOP, INPCRD)
    place = tmp_path / "alanine.pdb"
    trajectory(topology, positions[None]).save_pdb(str(place))
    _, again, box = read_amber(PRMTOP, place)
    assert box is None
    assert np.abs(again - positions).max() < 1e-4
    atoms = read(place)
    assert atoms.get_chemical_formula() == "C6H12N2O2"
    assert set(atoms.arrays["residuenames"]) >= {"ACE", "ALA", "NME"} or len(atoms) == 22


def test_frames_of_another_system_are_refused():
    engine = MoleculeEngine(SMALL)
    with pytest.raises(InputError, match=r"frames of shape \[frames, 192, 3\]"):
        trajectory(engine.topology, np.zeros((2, 22, 3)))


def test_missing_and_broken_files_are_refused_when_the_study_is_read(tmp_path):
    with pytest.raises(ValidationError, match=r"alanine-dipeptide\.prmtop"):
        Molecule(temperature=1, topology="nowhere.prmtop")
    broken = tmp_path / "broken.prmtop"
    broken.write_text(PRMTOP.read_text()[:3000])
    with pytest.raises(InputError, match="Write both again"):
        read_amber(broken, INPCRD)
    with pytest.raises(InputError, match=r"coordinates of 22 atoms|Write both again"):
        read_amber(PRMTOP, _shortened(tmp_path))


def _shortened(tmp_path):
    lines = INPCRD.read_text().splitlines()
    place = tmp_path / "short.inpcrd"
    place.write_text("\n".join([lines[0], "    2", lines[2]]) + "\n")
    return place


def test_a_node_with_other_files_refuses_the_task(tmp_path):
    for path in (PRMTOP, INPCRD):
        shutil.copy(path, tmp_path)
    topology = tmp_path / PRMTOP.name
    asked = Molecule(temperature=300 * KELVIN, topology=str(topology), coordinates=str(tmp_path / INPCRD.name))
    assert asked.content == Molecule(temperature=1).content
    topology.write_text(PRMTOP.read_text().replace("1.20107800E+01", "1.30107800E+01", 1))
    with pytest.raises(InputError, match="files of content"):
        MoleculeEngine(Molecule.model_validate(asked.document()))
    topology.unlink()
    with pytest.raises(InputError, match="missing"):
        MoleculeEngine(Molecule.model_validate(asked.document()))
