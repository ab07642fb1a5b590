"""Boxes that are not rectangular: one lattice in other vectors, OpenMM's octahedron, files, dynamics, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ase.io
import h5py
import mdtraj
import numpy as np
import parmed
import pytest
import torch
from pydantic import ValidationError

from manybody.core.errors import InputError
from manybody.core.study import Study
from manybody.engines.molecules.barostat import in_box
from manybody.engines.molecules.boxes import MolecularBox
from manybody.engines.molecules.cells import angles_of, directions, heights, lengths, reduced
from manybody.engines.molecules.engine import MoleculeEngine
from manybody.engines.molecules.forces import Evaluation, ForceField
from manybody.engines.molecules.formats import read_box, read_molecule
from manybody.engines.molecules.observables import GRAMS
from manybody.engines.molecules.spec import FILES, KELVIN, MOLECULAR_UNITS
from manybody.engines.molecules.topology import made_whole
from manybody.engines.molecules.trajectory import trajectory
from manybody.numerics.ewald import cell_heights
from manybody.numerics.nonbonded import COULOMB, CutPairs
from manybody.numerics.pme import Exclusions, PMEParameters, PMEPlan
from manybody.study.export import write_results
from manybody.study.file import load_study
from manybody.study.measure import Measured
from manybody.study.trajectories import frames_of, write_trajectory
from manybody.testing.engine import check_engine

HERE = Path(__file__).parent
GALLERY = HERE.parents[1] / "studies"
PRMTOP, INPCRD = FILES / "alanine-dipeptide-tip3p.prmtop", FILES / "alanine-dipeptide-tip3p.inpcrd"
DATA = HERE / "all-terms.data"
OPENMM = json.loads((HERE / "openmm-octahedron-8.6.1.json").read_text())
EDGE, ANGLE = OPENMM["box"][0], OPENMM["box"][3]
KT = 300 * KELVIN
CUTOFF, SWITCH, PERMITTIVITY = 0.8, 0.7, 78.3  # as in openmm_solvated.py
CUT = {"temperature": KT, "cutoff": CUTOFF, "switch": SWITCH, "electrostatics": "reaction-field", "permittivity": 1e6}


def written(place: Path, positions: np.ndarray, box: list[float]) -> Path:
    """Coordinates in nm of the shipped solution as an Amber file in a box of edges in nm and angles in degrees."""
    structure = parmed.amber.AmberParm(str(PRMTOP), xyz=str(INPCRD))
    structure.coordinates, structure.box = 10 * positions, [10 * edge for edge in box[:3]] + box[3:]
    structure.save(str(place), format="rst7", overwrite=True)
    return place


@pytest.fixture(scope="module")
def coordinates(tmp_path_factory):
    """The shipped solution in a truncated octahedron, in a file of Amber's."""
    positions = np.array(OPENMM["positions"]).reshape(-1, 3) / 1e4
    return written(tmp_path_factory.mktemp("octahedron") / "octahedron.rst7", positions, OPENMM["box"])


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    """The shipped solution as a topology of GROMACS's."""
    place = tmp_path_factory.mktemp("gromacs") / "solution.top"
    parmed.load_file(str(PRMTOP), str(INPCRD)).save(str(place))
    return place


@pytest.fixture(scope="module")
def octahedron(coordinates):
    return read_box(PRMTOP, coordinates)


def field_of(topology, cell, ewald=True, permittivity=PERMITTIVITY):
    charges, plan, edges = topology.charges, None, lengths(cell)
    if ewald:  # with errors of 1e-8
        excluded = Exclusions(topology.excluded, np.zeros(len(topology.excluded)))
        tight = PMEParameters(alpha=6.0, cutoff=CUTOFF, order=8, mesh=(96, 96, 96))
        charges, plan = np.zeros(topology.atoms), PMEPlan(topology.charges, cell, tight, COULOMB, excluded)
    cut = CutPairs(topology.species, charges, topology.c12, topology.c6, SWITCH, CUTOFF, permittivity)
    return ForceField(topology, edges, cut, plan, tail=False, shape=cell / edges[:, None])


def same(found, expected, tolerance):
    """Energies term by term, forces and virial agree to `tolerance` of the largest.

    Not to all digits: a bonded pair is among those within the cutoff, where it counts for millions, and taken off again.
    """
    scale = max(abs(energy) for energy in expected.energies.values())
    assert found.energies == pytest.approx(expected.energies, abs=tolerance * scale)
    assert found.virial == pytest.approx(expected.virial, abs=tolerance * max(scale, abs(expected.virial)))
    assert np.abs(found.forces - expected.forces).max() < tolerance * np.abs(expected.forces).max()


# --- cells -------------------------------------------------------------------------------------------------------


def test_a_cell_has_the_lengths_angles_heights_and_volume_of_its_box():
    edges, angles = (2.0, 3.0, 2.5), (75.0, 100.0, 65.0)
    cell = np.array(edges)[:, None] * directions(angles)
    assert lengths(cell) == pytest.approx(edges, rel=1e-14)
    assert angles_of(cell) == pytest.approx(angles, rel=1e-13)
    assert heights(edges, angles) == pytest.approx(cell_heights(cell), rel=1e-13)
    assert heights((1.1, 1.7, 0.9), (90.0, 90.0, 90.0)) == (1.1, 1.7, 0.9)  # to the last bit
    assert (directions((90.0, 90.00005, 90.0)) == np.eye(3)).all()


def test_a_reduced_cell_spans_the_same_lattice():
    rng = np.random.default_rng(7)
    for _ in range(50):
        cell = np.tril(rng.uniform(-9, 9, (3, 3)), -1) + np.diag(rng.uniform(1, 2, 3))
        found = reduced(cell)
        hops = found @ np.linalg.inv(cell)
        assert np.abs(hops - np.rint(hops)).max() < 1e-12
        assert (found.diagonal() == cell.diagonal()).all()
        assert (np.abs(found[[1, 2, 2], [0, 0, 1]]) <= 0.5005 * cell.diagonal()[[0, 0, 1]]).all()


@pytest.mark.parametrize("angle", [109.4712190, 109.47122063449, 109.4712206])
def test_how_many_digits_an_octahedron_has_does_not_decide_how_it_is_told(angle):
    """Its c reaches over half of b, to the last digit that is written."""
    cell = directions([angle] * 3)
    assert abs(abs(cell[2, 1] / cell[1, 1]) - 0.5) < 1e-7
    assert (reduced(cell) == cell).all()


# --- forces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PME", "CutoffPeriodic"])
def test_a_solution_in_an_octahedron_has_openmm_s_energy_and_forces(octahedron, method):
    """Of its CPU platform, in single precision: see openmm_octahedron.py."""
    topology, positions, cell = octahedron
    found = field_of(topology, cell, method == "PME").evaluate(positions)
    theirs = np.array(OPENMM[method]["forces"]).reshape(-1, 3)
    assert np.sqrt(((found.forces - theirs) ** 2).sum() / (theirs**2).sum()) < 1e-6
    scale = sum(abs(energy) for energy in found.energies.values())
    assert found.energy == pytest.approx(OPENMM[method]["energy"], abs=1e-6 * scale)


@pytest.mark.parametrize(("ewald", "tolerance"), [(False, 1e-9), (True, 1e-7)])
def test_one_lattice_has_the_same_forces_in_whatever_vectors(octahedron, ewald, tolerance):
    """A rectangular box told by c + a - b, the octahedron by b + a and c + b."""
    rectangular = read_box(PRMTOP, INPCRD)
    for (topology, positions, cell), hops in ((rectangular, [[0, 0], [1, -1]]), (octahedron, [[1, 0], [0, 1]])):
        other = cell.copy()
        other[2] += np.array(hops[1]) @ cell[:2]
        other[1] += hops[0][0] * cell[0]
        same(field_of(topology, other, ewald).evaluate(positions), field_of(topology, cell, ewald).evaluate(positions), tolerance)


@pytest.mark.parametrize(("ewald", "tolerance"), [(False, 1e-9), (True, 1e-7)])
def test_two_octahedra_are_a_cube(tmp_path, octahedron, ewald, tolerance):
    """Their lattice is body-centred cubic: the sums of two vectors are the edges of a cube that holds two of them."""
    topology, positions, _ = octahedron
    (parmed.load_file(str(PRMTOP), str(INPCRD)) * 2).save(str(tmp_path / "two.prmtop"))
    (parmed.load_file(str(PRMTOP), str(INPCRD)) * 2).save(str(tmp_path / "two.rst7"), format="rst7")
    two, _, _ = read_molecule(tmp_path / "two.prmtop", tmp_path / "two.rst7")
    a, b, c = cell = EDGE * directions([np.degrees(np.arccos(-1 / 3))] * 3)
    cube = np.array([b + c, a + c, a + b])
    turn = cube / lengths(cube)[:, None]
    assert turn @ turn.T == pytest.approx(np.eye(3), abs=1e-14)
    one = field_of(topology, cell, ewald).evaluate(positions)
    found = field_of(two, np.diag(lengths(cube)), ewald).evaluate(np.concatenate([positions, positions + a]) @ turn.T)
    halves = {name: energy / 2 for name, energy in found.energies.items()}
    for forces in np.split(found.forces @ turn, 2):
        same(Evaluation(halves, forces, found.virial / 2), one, tolerance)


def test_cut_forces_in_an_octahedron_are_the_derivatives_of_the_formula(octahedron):
    topology, positions, cell = octahedron
    field = replace(field_of(topology, cell, ewald=False), topology=replace(topology, bonded={}, pairs_14=_nothing(topology)))
    found, x = field.evaluate(positions), torch.tensor(positions, requires_grad=True)
    lennard_jones, coulomb = field.cut.energy(x, torch.tensor(cell), topology.listed(topology.excluded))
    (gradient,) = torch.autograd.grad(lennard_jones + coulomb, x)
    expected = {"lennard_jones": lennard_jones.item(), "coulomb": coulomb.item()}
    assert {name: found.energies[name] for name in expected} == pytest.approx(expected, rel=1e-10)
    assert np.abs(found.forces + gradient.numpy()).max() < 1e-9 * np.abs(found.forces).max()


def _nothing(topology):
    return replace(topology.pairs_14, atoms=np.empty((0, 2), np.int64), products=np.empty(0), c12=np.empty(0), c6=np.empty(0))


@pytest.mark.parametrize("ewald", [False, True])
def test_the_virial_in_an_octahedron_is_the_slope_of_the_energy_with_the_volume(octahedron, ewald):
    """-3 V dU/dV at fixed shapes, by a central difference in ln V of 2e-4, whose own error is of relative order 1e-7."""
    topology, x, cell = octahedron
    field = replace(field_of(topology, cell, ewald, permittivity=np.inf), tail=True)  # of a force that ends at the cutoff
    assert field.volume == pytest.approx(abs(np.linalg.det(cell)), rel=1e-14)
    found = field.evaluate(x)

    def resized(scale):
        moved = x + (scale - 1) * field.centres(x)[field.topology.molecule]
        return in_box(field, field.box * scale).evaluate(moved).energy

    scale = np.exp(1e-4 / 3)
    slope = (resized(scale) - resized(1 / scale)) / 2e-4
    terms = sum(abs(energy) for energy in found.energies.values())
    assert field.molecular_virial(x, found) == pytest.approx(-3 * slope, abs=1e-6 * terms)


def test_atoms_that_were_wrapped_into_an_octahedron_are_brought_together(octahedron):
    topology, positions, cell = octahedron
    sites = positions @ np.linalg.inv(cell) + 0.3
    wrapped = (sites % 1) @ cell
    assert np.abs(wrapped[topology.bonds[:, 0]] - wrapped[topology.bonds[:, 1]]).max() > 0.5 * EDGE
    whole = made_whole(wrapped, topology.bonds, cell)
    field = field_of(topology, cell, ewald=False)
    before, after = field.evaluate(positions), field.evaluate(whole)
    assert after.energies == pytest.approx(before.energies, rel=1e-9)
    assert np.abs(after.forces - before.forces).max() < 1e-8 * np.abs(before.forces).max()


# --- files -------------------------------------------------------------------------------------------------------


def test_a_study_knows_the_octahedron_of_its_files_and_a_rectangular_box_is_told_as_before(coordinates):
    system = MolecularBox(topology=str(PRMTOP), coordinates=str(coordinates), **CUT)
    assert system.edges == pytest.approx([EDGE] * 3, rel=1e-14)
    assert system.angles == pytest.approx([ANGLE] * 3, rel=1e-12)
    assert system.contents.volume == pytest.approx(4 / 9 * np.sqrt(3) * EDGE**3, rel=1e-7)
    assert system.contents.width == pytest.approx(np.sqrt(2 / 3) * EDGE, rel=1e-7)
    assert MolecularBox.model_validate(system.document()) == system
    assert system.document()["angles"] == list(system.angles)
    assert "angles" not in MolecularBox(**CUT).document()


def test_a_box_in_vectors_that_are_not_reduced_is_reduced(tmp_path):
    _, positions, cell = read_box(PRMTOP, INPCRD)
    oblique = cell + np.array([0 * cell[0], cell[0], cell[0] - 2 * cell[1]])
    told = written(tmp_path / "oblique.rst7", positions, [*lengths(oblique).tolist(), *angles_of(oblique)])
    _, again, found = read_box(PRMTOP, told)
    assert found == pytest.approx(cell, abs=2e-8)  # a file has seven digits
    assert (found == np.diag(found.diagonal())).all()
    assert again == pytest.approx(positions, abs=1e-7)


@pytest.mark.parametrize("angles", [[109.4712190] * 3, [60.0, 60.0, 90.0], [70.5287794, 109.4712206, 70.5287794]])
def test_gromacs_files_have_the_same_box(tmp_path, octahedron, top, angles):
    """A truncated octahedron, a rhombic dodecahedron and GROMACS's own octahedron, in a line of nine numbers."""
    structure, gro = parmed.load_file(str(PRMTOP), str(INPCRD)), tmp_path / "solution.gro"
    structure.coordinates, structure.box = 10 * octahedron[1], [10 * EDGE] * 3 + angles
    structure.save(str(gro), precision=7)
    lines = gro.read_text().splitlines()
    words = lines[-1].split()
    assert len(words) == 9
    _, positions, cell = read_box(top, gro)
    expected = EDGE * directions(angles)
    hops = cell @ np.linalg.inv(expected)
    assert np.abs(hops - np.rint(hops)).max() < 1e-5  # five digits
    assert abs(np.linalg.det(np.rint(hops))) == pytest.approx(1)
    assert positions == pytest.approx(octahedron[1], abs=1e-6)
    gro.write_text("\n".join([*lines[:-1], " ".join([*words[:3], "0.1", *words[4:]]), ""]))
    with pytest.raises(InputError, match=r"v1\(y\) = v1\(z\) = v2\(z\) = 0; got"):
        read_molecule(top, gro)


def test_a_lammps_file_gives_its_tilted_box_and_whole_molecules(tmp_path):
    """The same chain in vacuum and across the faces of a box so large that no image is within the cutoff."""
    place, old = tmp_path / "tilted.data", "-20.0 20.0 zlo zhi"
    text = DATA.read_text().replace("boundary = f f f", "boundary = p p p")
    assert old in text
    place.write_text(text.replace(old, f"{old}\n12.0 -50.0 33.0 xy xz yz"))
    topology, positions, cell = read_box(place, place)
    expected = np.array([[4.0, 0.0, 0.0], [1.2, 4.0, 0.0], [1.8, -0.7, 4.0]])  # c - b + 2 a
    assert cell == pytest.approx(expected, abs=1e-12)
    wrapped = ((positions + 2.0) @ np.linalg.inv(cell) % 1) @ cell
    field = field_of(topology, cell, ewald=False)
    field = replace(field, cut=replace(field.cut, charges=np.zeros(topology.atoms), begin=1.9, cutoff=1.9))
    found = field.evaluate(made_whole(wrapped, topology.bonds, cell))
    alone = ForceField(read_molecule(DATA, DATA)[0]).evaluate(positions)
    for name in set(found.energies) - {"coulomb"}:
        assert found.energies[name] == pytest.approx(alone.energies[name], rel=1e-10, abs=1e-10)


def test_boxes_without_a_volume_and_cutoffs_beyond_half_the_height_are_refused(tmp_path, octahedron, coordinates):
    paths = {"topology": str(PRMTOP), "coordinates": str(coordinates)}
    with pytest.raises(
        ValidationError, match=r"at most half the distance between opposite faces of the box, 0\.8328 nm; got 0\.84"
    ):
        MolecularBox(**CUT | paths | {"cutoff": 0.84})
    assert MolecularBox(**CUT | paths | {"cutoff": 0.832}).cutoff == 0.832
    for angles in ([150.0] * 3, [90.0, 90.0, 0.0], [120.0, 120.0, 120.0]):
        flat = written(tmp_path / "flat.rst7", octahedron[1], [EDGE] * 3 + angles)
        with pytest.raises(ValidationError, match=r"a periodic box; got .* Solvate the molecule again"):
            MolecularBox(**CUT | paths | {"coordinates": str(flat)})
    for diagonal in ([1.0, -1.0, 1.0], [1.0, 0.0, 1.0], [1.0, np.nan, 1.0], [1.0, 1.0, 1e-4]):
        with pytest.raises(ValueError, match="span a volume"):
            reduced(np.diag(diagonal) + np.tril(np.full((3, 3), 0.3), -1))


# --- dynamics ----------------------------------------------------------------------------------------------------


def test_a_solution_in_an_octahedron_keeps_the_contract_of_an_engine(coordinates):
    def reversed_motion(state):
        return replace(state, velocities=-state.velocities)

    system = MolecularBox(topology=str(PRMTOP), coordinates=str(coordinates), **CUT)
    check_engine(MoleculeEngine(system, 0.0005), conserved=3e-3, reverse=reversed_motion, steps=10)


SMALL = [
    "method.pressure=1000 bar", "method.time_step=1 fs", "method.equilibration=0.1 ps", "method.duration=0.1 ps",
    "method.segment=0.05 ps", "method.volume_every=10 fs", "method.sample_every=10 fs", "method.frame_every=10 fs", "repeats=1",
    "measures=[molecular-energy, molecular-pressure, mass-density]", "checks=[conservation]",
]  # fmt: skip


@pytest.fixture
def run(coordinates, monkeypatch: pytest.MonkeyPatch, evidence: Callable[[Study], Measured]) -> Measured:
    """A study of the octahedron at constant pressure, with particle-mesh Ewald."""
    monkeypatch.chdir(GALLERY.parent)  # the table of the study is named from there
    return evidence(load_study(GALLERY / "solvated-dipeptide", [*SMALL, f"system.coordinates={coordinates}"]))


def test_a_study_in_an_octahedron_keeps_what_it_should_and_opens_elsewhere(run, tmp_path):
    (realisation,) = run.plan.realisations
    system, last = realisation.point.system, run.output(realisation.tasks[-1]).arrays
    assert isinstance(system, MolecularBox)
    for task in realisation.tasks:  # energy less heat, in kT a degree of freedom; 3e-4 in the rectangular box at this step
        assert np.ptp(run.output(task).arrays["effective_energy"]) < 1e-3
    cell = last["box"][:, None] * last["box_shape"]
    assert last["volume"][-1] == pytest.approx(np.linalg.det(cell), rel=1e-12)
    assert last["volume"].std() > 0
    assert angles_of(cell) == pytest.approx([ANGLE] * 3, rel=1e-12)
    volumes = np.concatenate([run.output(task).arrays["volume"] for task in realisation.measured])
    expected = GRAMS * system.mass * (1 / volumes).mean()
    assert run.estimate(realisation.point, "mass-density").value == pytest.approx(expected, rel=1e-12)

    write_results(tmp_path, run.plan, run)
    told = ase.io.read(tmp_path / "configurations.extxyz")
    assert told.cell.array == pytest.approx(10 * cell, abs=1e-6)
    frames = frames_of(realisation, run.output, MOLECULAR_UNITS)
    assert len(set(frames.boxes[:, 0])) > 1
    for kind in ("pdb", "xtc", "gro", "dcd"):
        write_trajectory(frames, tmp_path / f"solution.{kind}")
        top = None if kind in ("pdb", "gro") else str(tmp_path / "solution.pdb")
        found = mdtraj.load(str(tmp_path / f"solution.{kind}"), top=top)
        assert found.unitcell_angles == pytest.approx(np.full((10, 3), ANGLE), abs=0.01)
        rows = frames.boxes if kind != "pdb" else np.tile(frames.boxes[0], (10, 1))  # a pdb has one box
        assert found.unitcell_lengths == pytest.approx(rows, abs=1e-4)
    write_trajectory(frames, tmp_path / "solution.extxyz")
    assert ase.io.read(tmp_path / "solution.extxyz", index=-1).cell.array == pytest.approx(10 * cell, abs=1e-6)
    write_trajectory(frames, tmp_path / "solution.h5md")
    with h5py.File(tmp_path / "solution.h5md") as file:
        assert file["particles/all/box/edges/value"][-1] == pytest.approx(cell, rel=1e-12)


def test_a_program_saves_frames_with_their_cell(tmp_path, octahedron):
    topology, positions, cell = octahedron
    trajectory(topology, positions[None], box=cell).save(str(tmp_path / "solution.pdb"))
    _, again, found = read_molecule(PRMTOP, tmp_path / "solution.pdb")
    assert found == pytest.approx(cell, abs=1e-4)  # a pdb has two digits of an angle, and three of an edge
    assert again == pytest.approx(positions, abs=1e-4)
