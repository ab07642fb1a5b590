"""Files of GROMACS and LAMMPS: the same molecule has the same energy in each, and what other engines make of it."""

import json
from pathlib import Path

import numpy as np
import pytest

from manybody.core.errors import InputError
from manybody.engines.molecules.forces import ForceField
from manybody.engines.molecules.formats import read_molecule
from manybody.engines.molecules.spec import FILES
from manybody.numerics.bonded import BondedTerms
from manybody.numerics.nonbonded import COULOMB

HERE = Path(__file__).parent
PRMTOP, INPCRD = FILES / "alanine-dipeptide.prmtop", FILES / "alanine-dipeptide.inpcrd"
TOP, GRO, DATA = HERE / "all-terms.top", HERE / "all-terms.gro", HERE / "all-terms.data"
OPENMM, LAMMPS = (json.loads((HERE / name).read_text()) for name in ("openmm-terms-8.6.1.json", "lammps-terms.json"))


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Alanine dipeptide as a GROMACS topology made by ParmEd, and that again as a prmtop with all its digits."""
    import parmed
    from parmed.amber.amberformat import FortranFormat

    place = tmp_path_factory.mktemp("converted")
    amber = parmed.amber.AmberParm(str(PRMTOP), xyz=str(INPCRD))
    parmed.gromacs.GromacsTopologyFile.from_structure(amber).save(str(place / "alanine.top"))
    gromacs = parmed.gromacs.GromacsTopologyFile(str(place / "alanine.top"), xyz=amber.coordinates)
    gromacs.save(str(place / "alanine.pdb"))
    gromacs.save(str(place / "boxed.gro"), precision=8)
    (place / "alanine.gro").write_text("\n".join([*(place / "boxed.gro").read_text().splitlines()[:-1], "0 0 0", ""]))
    again = parmed.amber.AmberParm.from_structure(gromacs)
    for flag, form in again.formats.items():
        if "E" in str(form):
            again.formats[flag] = FortranFormat("3E24.16")
    again.save(str(place / "whole.prmtop"))
    return place


def test_gromacs_and_amber_give_one_molecule_the_same_energy(converted):
    gromacs, positions, box = read_molecule(converted / "alanine.top", converted / "alanine.gro")
    amber, start, _ = read_molecule(converted / "whole.prmtop", INPCRD)
    assert box is None
    assert np.abs(positions - start).max() < 1e-8
    ours, theirs = (ForceField(topology).evaluate(start) for topology in (gromacs, amber))
    assert ours.energies == pytest.approx(theirs.energies, rel=1e-9)
    assert ours.energy == pytest.approx(theirs.energy, rel=1e-9)
    assert np.abs(ours.forces - theirs.forces).max() < 1e-9 * np.abs(theirs.forces).max()
    assert (gromacs.names, gromacs.residues, gromacs.molecules) == (amber.names, amber.residues, 1)
    # The shipped prmtop and what ParmEd made of it differ by its rounding to 8 digits: of sigma, to the twelfth power.
    shipped = ForceField(read_molecule(PRMTOP, INPCRD)[0]).evaluate(start)
    assert ours.energies == pytest.approx(shipped.energies, rel=12 * 5e-8)


def test_coordinates_come_from_a_pdb_or_with_a_box(converted):
    _, from_pdb, none = read_molecule(converted / "alanine.top", converted / "alanine.pdb")
    _, from_gro, box = read_molecule(converted / "alanine.top", converted / "boxed.gro")
    assert none is None
    assert np.abs(from_pdb - from_gro).max() < 1e-4
    assert box == pytest.approx(np.diag(np.ptp(from_gro, axis=0) + 0.5), abs=1e-4)  # what ParmEd takes for a box


def test_every_kind_of_gromacs_term_has_openmm_s_energy_and_forces():
    topology, _, box = read_molecule(TOP, GRO)
    assert box is None
    found = ForceField(topology).evaluate(np.array(OPENMM["positions"]))
    theirs = OPENMM["terms"]
    assert found.energies["bond"] + found.energies["urey_bradley"] == pytest.approx(theirs["HarmonicBondForce2"], rel=1e-12)
    assert found.energies["ryckaert_bellemans"] == pytest.approx(theirs["RBTorsionForce5"], rel=1e-12)
    assert found.energies["torsion"] + found.energies["improper"] == pytest.approx(theirs["PeriodicTorsionForce6"], rel=1e-12)
    assert found.energies["harmonic_improper"] == pytest.approx(theirs["CustomTorsionForce7"], rel=1e-12)
    assert found.energy == pytest.approx(OPENMM["all"]["energy"], rel=1e-12)
    assert np.abs(found.forces - OPENMM["all"]["forces"]).max() < 1e-12 * np.abs(found.forces).max()


@pytest.mark.parametrize(("form", "values"), [("morse-bond", [350.0, 18.0, 0.14]), ("fene-bond", [30.0, 0.3])])
def test_bonds_that_break_have_openmm_s_energy_and_forces(form, values):
    positions = np.array(OPENMM["positions"])
    atoms = np.array([[atom, atom + 1] for atom in range(len(positions) - 1)])
    forces = np.zeros_like(positions)
    energy = BondedTerms(form, atoms, np.tile(values, (len(atoms), 1))).add_forces(positions, forces)
    assert energy == pytest.approx(OPENMM[form]["energy"], rel=1e-12)
    assert np.abs(forces - OPENMM[form]["forces"]).max() < 1e-12 * np.abs(forces).max()


def test_a_lammps_file_has_lammps_s_energy_and_forces():
    topology, positions, box = read_molecule(DATA, DATA)
    assert box is None
    found = ForceField(topology).evaluate(positions)
    energies = {name: value / 4.184 for name, value in found.energies.items()}
    constant = COULOMB * 10 / 4.184 / LAMMPS["coulomb_constant"]  # LAMMPS has one of 8 digits
    assert {
        "bond": energies["bond"],
        "angle": energies["angle"] + energies["urey_bradley"],
        "torsion": energies["torsion"],
        "improper": energies["improper"],
        "lennard_jones": energies["lennard_jones"] + energies["lennard_jones_14"],
        "coulomb": (energies["coulomb"] + energies["coulomb_14"]) / constant,
    } == pytest.approx(LAMMPS["terms"], rel=1e-12)
    assert np.abs(found.forces / 41.84 - LAMMPS["forces"]).max() < 2 * abs(constant - 1) * np.abs(LAMMPS["forces"]).max()
    assert "".join(topology.names) == "CCOCCO"


def test_lammps_and_gromacs_give_one_molecule_the_same_energy(tmp_path):
    """The terms that both have, written with all their digits."""
    ours = ForceField(read_molecule(*_chain(tmp_path))[0])
    place = tmp_path / "chain.data"
    place.write_text(_as_lammps(ours.topology))
    theirs, positions, _ = read_molecule(place, place)
    start = read_molecule(TOP, GRO)[1]
    assert np.abs(positions - start).max() < 1e-15
    found, expected = ForceField(theirs).evaluate(start), ours.evaluate(start)
    assert found.energy == pytest.approx(expected.energy, rel=1e-9)
    assert found.energies == pytest.approx(expected.energies, rel=1e-9, abs=1e-12)
    assert np.abs(found.forces - expected.forces).max() < 1e-9 * np.abs(expected.forces).max()


def _chain(tmp_path):
    """`all-terms.top` with what a LAMMPS file of one style a section can have: mixed pairs, plain angles and torsions."""
    text = TOP.read_text().replace("1 3 no 0.5 0.8", "1 2 yes 0.5 0.8").replace("2 6 1 0.29 0.19", "2 6 1")
    dropped = (
        "2 3 4 5 5 ",
        "3 4 5 5 ",
        "1 2 3 4 3 ",
        "2 3 4 6 1 ",
        "4 3 5 6 2 ",
        "3 5 4 6 4 ",
        "CA CA 1",
        "CA OA 1",
        "[ pairtypes ]",
    )
    kept = [line for line in text.splitlines() if not line.startswith(dropped)]
    place = tmp_path / "chain.top"
    place.write_text("\n".join(kept).replace("2 3 4 5 112.0 502.08 0.24 9205.0", "2 3 4 1 112.0 502.08") + "\n")
    return place, GRO


def _as_lammps(topology):
    """A LAMMPS data file of a chain, every term with a type of its own."""
    sections = {"Masses": [f"{atom + 1} {mass!r}" for atom, mass in enumerate(topology.masses.tolist())]}
    own = np.arange(topology.atoms), topology.species
    sixth = topology.c12[own[1], own[1]] / topology.c6[own[1], own[1]]
    depth = topology.c6[own[1], own[1]] / (4 * sixth) / 4.184
    sigma = 10 * sixth ** (1 / 6)
    pairs = zip(depth.tolist(), sigma.tolist(), strict=True)
    sections["Pair Coeffs # lj/cut"] = [f"{atom + 1} {e!r} {s!r}" for atom, (e, s) in enumerate(pairs)]
    rows = zip(topology.charges.tolist(), (10 * read_molecule(TOP, GRO)[1]).tolist(), strict=True)
    sections["Atoms # full"] = [f"{a + 1} 1 {a + 1} {q!r} {x!r} {y!r} {z!r}" for a, (q, (x, y, z)) in enumerate(rows)]
    kinds = {"bond": ("Bond", "harmonic"), "angle": ("Angle", "harmonic"), "torsion": ("Dihedral", "charmm")}
    scale = {"bond": (1 / 836.8, 10.0), "angle": (1 / 8.368, 180 / np.pi), "torsion": (1 / 4.184, 1.0, 180 / np.pi)}
    for name, (word, style) in kinds.items():
        (terms,) = topology.bonded[name]
        values = (terms.parameters * scale[name]).tolist()
        shown = [
            [repr(v) for v in row] if name != "torsion" else [repr(row[0]), f"{row[1]:.0f}", repr(row[2]), "0"] for row in values
        ]
        sections[f"{word} Coeffs # {style}"] = [f"{n + 1} {' '.join(row)}" for n, row in enumerate(shown)]
        sections[f"{word}s"] = [f"{n + 1} {n + 1} {' '.join(str(a + 1) for a in row)}" for n, row in enumerate(terms.atoms)]
    title = "chain, units = real, special_bonds = lj 0 0 0.5 coul 0 0 0.8, mix = arithmetic, boundary = f f f"
    bounds = "\n".join(f"-50 50 {axis}lo {axis}hi" for axis in "xyz")
    return "\n\n".join([title, bounds, *(f"{name}\n\n" + "\n".join(rows) for name, rows in sections.items())]) + "\n"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("1 2 1 0.153 224262.4", "1 2 3 0.153 400.0 18.0", "bond funct != 1"),
        ("2 3 4 6 1 30.0 4.6 1", "2 3 4 6 5 1 2 3 4", "torsions funct"),
        ("chain 3", "chain 2", "nrexcl 2"),
        ("1 3 no", "1 1 no", "combination rule 1"),
        ("[ system ]", '#include "water.itp"\n[ system ]', "grompp .* -pp"),
        ("1 4 1\n", "1 4\n", "an error"),
    ],
)
def test_gromacs_terms_that_are_not_computed_are_refused_by_name(tmp_path, old, new, said):
    place = tmp_path / "wrong.top"
    assert old in TOP.read_text()
    place.write_text(TOP.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=said):
        read_molecule(place, GRO)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("units = real", "units = metal", "units = real"),
        ("mix = arithmetic", "no rule", "mix = arithmetic"),
        ("lj 0 0 0.5", "lj 0 1 0.5", "special_bonds = lj 0 0 A"),
        ("# morse", "# quartic", "styles harmonic, morse; got `quartic`"),
        ("# cvff", "# umbrella", "styles cvff"),
        ("# opls", "", "got `none`"),
        ("Pair Coeffs # lj/cut/coul/cut", "Pair Coeffs # buck", "lj/cut"),
        ("Atoms # full", "Atoms # charge", "Atoms of style full"),
        ("5 1 4 6", "5 1 4 9", "an error"),
        ("-20.0 20.0 zlo zhi", "-20.0 20.0 zlo zhi\n1.0 0.0 0.0 xy xz yz", "boundary = p p p` of a tilted box"),
        ("-20.0 20.0 zlo zhi", "-20.0 20.0 zlo zhi\n40.0 0.0 0.0 avec", "bounds and tilts"),
    ],
)
def test_lammps_files_that_leave_something_to_guess_are_refused(tmp_path, old, new, said):
    place = tmp_path / "wrong.data"
    assert old in DATA.read_text()
    place.write_text(DATA.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=said):
        read_molecule(place, place)


def test_a_force_field_of_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"ending in \.prmtop"):
        read_molecule(GRO, GRO)
    with pytest.raises(InputError, match="which is not there"):
        read_molecule(TOP, tmp_path / "nothing.gro")
    with pytest.raises(InputError, match="coordinates of 6 atoms; got 22"):
        read_molecule(TOP, INPCRD)
    with pytest.raises(InputError, match="Name the data file twice"):
        read_molecule(DATA, GRO)
