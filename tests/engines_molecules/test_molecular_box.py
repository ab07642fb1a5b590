"""Molecules in periodic boxes, from files: forces, wholeness, rigid water, the virial, a small study, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import parmed
import pytest
from pydantic import ValidationError

from manybody.core.certificate import Verdict
from manybody.core.errors import InputError
from manybody.core.study import Study
from manybody.engines.molecules.barostat import in_box
from manybody.engines.molecules.boxes import MolecularBox
from manybody.engines.molecules.engine import MoleculeEngine
from manybody.engines.molecules.forces import ForceField
from manybody.engines.molecules.formats import read_box, read_molecule
from manybody.engines.molecules.observables import GRAMS
from manybody.engines.molecules.spec import FILES, KELVIN, ForceFieldDynamics, Molecule
from manybody.engines.molecules.topology import made_whole, with_rigid_water
from manybody.numerics.nonbonded import COULOMB, CutPairs
from manybody.numerics.pme import Exclusions, PMEParameters, PMEPlan
from manybody.study.certify import findings
from manybody.study.file import load_study
from manybody.study.measure import Measured
from manybody.testing.engine import check_engine

HERE = Path(__file__).parent
GALLERY = HERE.parents[1] / "studies"
PRMTOP, INPCRD = FILES / "alanine-dipeptide-tip3p.prmtop", FILES / "alanine-dipeptide-tip3p.inpcrd"
DATA, TOP, GRO = HERE / "all-terms.data", HERE / "all-terms.top", HERE / "all-terms.gro"
OPENMM = json.loads((HERE / "openmm-solvated-8.6.1.json").read_text())
KT = 300 * KELVIN
CUTOFF, SWITCH, PERMITTIVITY = 0.8, 0.7, 78.3  # as in openmm_solvated.py
BOX = MolecularBox(temperature=KT, cutoff=CUTOFF, switch=SWITCH)
CUT = BOX.model_copy(update={"electrostatics": "reaction-field", "permittivity": 1e6})


@pytest.fixture(scope="module")
def solvated():
    topology, positions, cell = read_box(PRMTOP, INPCRD)
    assert (cell == np.diag(cell.diagonal())).all()
    return topology, positions, cell.diagonal()


def field_of(topology, box, ewald=True, permittivity=PERMITTIVITY):
    charges, plan = topology.charges, None
    if ewald:  # with errors of 1e-10
        excluded = Exclusions(topology.excluded, np.zeros(len(topology.excluded)))
        tight = PMEParameters(alpha=6.0, cutoff=CUTOFF, order=8, mesh=(72, 72, 72))
        charges, plan = np.zeros(topology.atoms), PMEPlan(topology.charges, np.diag(box), tight, COULOMB, excluded)
    cut = CutPairs(topology.species, charges, topology.c12, topology.c6, SWITCH, CUTOFF, permittivity)
    return ForceField(topology, box, cut, plan, tail=False)


# --- forces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["Ewald", "CutoffPeriodic"])
def test_a_dipeptide_in_water_has_openmm_s_energy_and_forces(solvated, method):
    topology, _, box = solvated
    assert box == pytest.approx(OPENMM["box"], rel=1e-12)
    assert len(set(box)) == 3  # no cube
    positions = np.array(OPENMM["positions"]).reshape(-1, 3) / 1e4
    found = field_of(topology, box, method == "Ewald").evaluate(positions)
    theirs = np.array(OPENMM[method]["forces"]).reshape(-1, 3)
    assert np.sqrt(((found.forces - theirs) ** 2).sum() / (theirs**2).sum()) < 1e-6
    scale = sum(abs(energy) for energy in found.energies.values())
    assert found.energy == pytest.approx(OPENMM[method]["energy"], abs=1e-6 * scale)


def test_atoms_that_were_wrapped_into_the_box_are_brought_together(solvated):
    """A chain across faces and corners; forces are what they were, and each molecule is where its first atom is."""
    topology, positions, box = solvated
    wrapped = (positions + 0.6 * box) % box
    assert np.abs(wrapped[topology.bonds[:, 0]] - wrapped[topology.bonds[:, 1]]).max() > 0.5 * box.min()
    whole = made_whole(wrapped, topology.bonds, np.diag(box))
    firsts = np.unique(topology.molecule, return_index=True)[1]
    assert (whole[firsts] == wrapped[firsts]).all()
    field = field_of(topology, box, ewald=False)
    before, after = field.evaluate(positions), field.evaluate(whole)
    assert after.energy == pytest.approx(before.energy, rel=1e-10)
    assert np.abs(after.forces - before.forces).max() < 1e-8 * np.abs(before.forces).max()


def test_water_of_a_file_is_rigid_and_the_rest_is_not(solvated):
    topology, positions, _ = solvated
    rigid = with_rigid_water(topology)
    assert len(rigid.constraints.waters) == 197
    assert rigid.constraints.legs == pytest.approx(np.full(197, 0.09572), rel=1e-6)
    assert rigid.constraints.bases == pytest.approx(np.full(197, 0.15139), rel=1e-5)  # TIP3P, Jorgensen 1983
    assert rigid.constraints.violation(positions) < 1e-4  # the file has angstrom to seven digits
    assert {name: sum(len(part.atoms) for part in parts) for name, parts in rigid.bonded.items()} == {
        "bond": 21, "angle": 36, "torsion": 54, "improper": 4,
    }  # fmt: skip
    assert MoleculeEngine(CUT).freedom == 3 * 613 - 3 * 197 - 12 - 3


@pytest.mark.parametrize("ewald", [False, True])
def test_the_molecular_virial_is_the_slope_of_the_energy_with_the_volume(solvated, ewald):
    """-3 V dU/dV at fixed shapes, by a central difference in ln V of 2e-4, whose own error is of relative order 1e-7."""
    topology, x, box = solvated
    field = replace(field_of(topology, box, ewald, permittivity=np.inf), tail=True)  # of a force that ends at the cutoff
    found = field.evaluate(x)

    def resized(scale):
        moved = x + (scale - 1) * field.centres(x)[field.topology.molecule]
        return in_box(field, field.box * scale).evaluate(moved).energy

    scale = np.exp(1e-4 / 3)
    slope = (resized(scale) - resized(1 / scale)) / 2e-4
    terms = sum(abs(energy) for energy in found.energies.values())
    assert field.molecular_virial(x, found) == pytest.approx(-3 * slope, abs=1e-6 * terms)


# --- dynamics ----------------------------------------------------------------------------------------------------


def test_a_solution_keeps_the_contract_of_an_engine():
    def reversed_motion(state):
        return replace(state, velocities=-state.velocities)

    check_engine(MoleculeEngine(CUT, 0.0005), conserved=3e-3, reverse=reversed_motion, steps=10)


SMALL = [
    "system.electrostatics=reaction-field", "system.permittivity=1000000", "method.pressure=1000 bar",
    "method.time_step=1 fs", "method.equilibration=0.2 ps", "method.duration=0.2 ps", "method.segment=0.1 ps",
    "method.volume_every=20 fs", "method.frame_every=20 fs", "repeats=1",
    "measures=[molecular-energy, molecular-pressure, mass-density, centre-temperature]",
    "checks=[conservation, convergence]",
]  # fmt: skip


def test_a_small_solution_keeps_what_it_should(monkeypatch: pytest.MonkeyPatch, evidence: Callable[[Study], Measured]) -> None:
    monkeypatch.chdir(GALLERY.parent)  # the table of the study is named from there
    study = load_study(GALLERY / "solvated-dipeptide", SMALL)
    measured = evidence(study)
    certificate = findings(measured.plan, measured)
    assert {finding.name: finding.verdict for finding in certificate.checks} == {
        "conservation of effective energy": Verdict.HOLDS,
        "order in time step": Verdict.HOLDS,
    }
    (point,) = measured.plan.points
    system = point.system
    assert isinstance(system, MolecularBox)
    density = measured.estimate(point, "mass-density").value
    assert density != GRAMS * system.contents.mass / system.contents.volume  # the volume moves
    assert density == pytest.approx(1.01, abs=0.05)
    assert measured.estimate(point, "centre-temperature").value == pytest.approx(1, abs=0.5)
    assert -50 < measured.estimate(point, "molecular-energy").value < -30  # a molecule, kJ/mol


# --- files -------------------------------------------------------------------------------------------------------


def test_a_study_knows_what_its_files_hold_and_a_node_needs_no_second_look():
    assert (BOX.atoms, BOX.molecules) == (613, 198)
    assert BOX.mass == pytest.approx(144.17 + 197 * 18.015, abs=0.1)
    assert BOX.edges == pytest.approx((1.7483, 1.8243, 1.9004), abs=1e-4)
    assert MolecularBox.model_validate(BOX.document()) == BOX


@pytest.mark.parametrize("water", ["flexible", "settled"])
def test_gromacs_files_give_the_same_solution(tmp_path, solvated, water):
    """Written by ParmEd from the prmtop, its water with bonds and an angle, or with a section [ settles ]."""
    structure = parmed.load_file(str(PRMTOP), str(INPCRD))
    place = tmp_path / "solution.top"
    structure.save(str(place))
    structure.save(str(tmp_path / "solution.gro"), precision=7)
    if water == "settled":
        place.write_text(re.sub("#ifdef FLEXIBLE.*#else|#endif", "", place.read_text(), flags=re.DOTALL))
    topology, positions, cell = read_box(place, tmp_path / "solution.gro")
    assert cell == pytest.approx(np.diag(solvated[2]), abs=1e-5)
    assert len(topology.constraints.waters) == (197 if water == "settled" else 0)
    topology = with_rigid_water(topology)
    assert topology.constraints.bases == pytest.approx(np.full(197, 0.15139), rel=1e-5)
    expected = field_of(with_rigid_water(solvated[0]), solvated[2], ewald=False).evaluate(positions)
    found = field_of(topology, solvated[2], ewald=False).evaluate(positions)
    assert found.energy == pytest.approx(expected.energy, rel=1e-5)  # a top has charges to eight digits, angles to six
    assert np.abs(found.forces - expected.forces).max() < 1e-4 * np.abs(expected.forces).max()


def test_a_lammps_file_gives_its_box_and_whole_molecules(tmp_path):
    """The same chain in vacuum and across the faces of a box so large that no image is within the cutoff."""
    place = tmp_path / "boxed.data"
    place.write_text(DATA.read_text().replace("boundary = f f f", "boundary = p p p"))
    topology, positions, cell = read_box(place, place)
    edges = cell.diagonal()
    assert cell == pytest.approx(4 * np.eye(3))
    again = made_whole((positions + 2.0) % edges, topology.bonds, cell)
    field = replace(field_of(topology, edges, ewald=False), cut=replace(_cut(topology), begin=1.9, cutoff=1.9))
    found, alone = field.evaluate(again), ForceField(read_molecule(DATA, DATA)[0]).evaluate(positions)
    for name in set(found.energies) - {"coulomb"}:
        assert found.energies[name] == pytest.approx(alone.energies[name], rel=1e-10, abs=1e-10)


def _cut(topology):
    return CutPairs(topology.species, np.zeros(topology.atoms), topology.c12, topology.c6, SWITCH, CUTOFF)


def copies(folder):
    return [Path(shutil.copy(path, folder)) for path in (PRMTOP, INPCRD)]


def asked(topology, coordinates, **changes):
    return MolecularBox(temperature=KT, topology=str(topology), coordinates=str(coordinates), **changes)


def test_files_without_a_box_are_refused_when_the_study_is_read():
    with pytest.raises(ValidationError, match=r"a periodic box; got .*: none\. Solvate the molecule"):
        asked("alanine-dipeptide.prmtop", "alanine-dipeptide.inpcrd")


def test_a_chain_without_ends_is_refused():
    ring = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    bonds = np.array([[0, 1], [1, 2], [2, 0]])
    assert (made_whole(ring, bonds, 9 * np.eye(3)) == ring).all()
    with pytest.raises(ValueError, match="its own image"):
        made_whole(ring, bonds, np.diag([3.0, 9.0, 9.0]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cutoff": 0.9, "switch": 0.8}, r"at most half the box, 0\.8742 nm; got 0\.9 nm\. Lower the cutoff, or solvate"),
        ({"cutoff": 0.7, "switch": 0.8}, "at most the cutoff"),
    ],
)
def test_a_cutoff_that_does_not_fit_is_refused(changes, said):
    with pytest.raises(ValidationError, match=said):
        MolecularBox(**({"temperature": KT} | changes))


def test_a_force_field_without_all_parameters_is_refused_when_the_study_is_read(tmp_path):
    topology, coordinates = tmp_path / "missing.top", tmp_path / "boxed.gro"
    text = TOP.read_text()
    assert "1 2 1 0.153 224262.4" in text
    topology.write_text(text.replace("1 2 1 0.153 224262.4", "1 2 1", 1))
    coordinates.write_text(GRO.read_text().rstrip("\n").rsplit("\n", 1)[0] + "\n   3.0   3.0   3.0\n")
    with pytest.raises(ValidationError, match="an error"):
        asked(topology, coordinates)


def test_steps_that_flexible_hydrogens_do_not_bear_are_refused():
    with pytest.raises(Exception, match=r"at most 1\.25 fs"):
        ForceFieldDynamics(time_step=0.002).suits(BOX.model_copy(update={"rigid": "water"}))
    ForceFieldDynamics(time_step=0.001, pressure=0.06).suits(BOX.model_copy(update={"rigid": "water"}))


def test_a_node_with_other_files_refuses_the_task(tmp_path):
    paths = copies(tmp_path)
    system = asked(*paths, cutoff=CUTOFF, switch=SWITCH)
    paths[1].write_text(paths[1].read_text() + "\n")
    with pytest.raises(InputError, match="files of content"):
        MoleculeEngine(system)
    with pytest.raises(InputError, match=r"a molecule in vacuum; got a periodic box\. Take the system `molecular-box`"):
        MoleculeEngine(Molecule(temperature=KT, topology=str(paths[0]), coordinates=str(paths[1])))
