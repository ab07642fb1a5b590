"""Terms of one's own in a study: what they add, what they hold, and what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest

from manybody.core.errors import InputError
from manybody.core.random import Key
from manybody.engines.molecules.boxes import MolecularBox
from manybody.engines.molecules.engine import MoleculeEngine
from manybody.engines.molecules.force_fields import force_field_of
from manybody.engines.molecules.forces import ForceField
from manybody.engines.molecules.spec import KELVIN, Molecule
from manybody.numerics.bonded import BondedTerms
from manybody.numerics.statistics import block_error
from manybody.study.file import dump_study, parse_study
from manybody.testing.engine import check_engine

KT = 300 * KELVIN
PHI = [4, 6, 8, 14]
HELD = {"atoms": PHI, "expression": "k/2*wrapped(phi - phi0)**2", "parameters": {"k": "2000 kJ/mol", "phi0": "-80 degree"}}
SPRINGS = {
    "atoms": [[0, 21], [1, 20]],
    "expression": "k/2*(r - r0)**2",
    "parameters": {"k": ["1 kJ/mol/angstrom^2", "7 kJ/mol/nm^2"], "r0": "0.5 nm"},
}
STUDY = """
name: held
units: {length: 1 nm, energy: 1 kJ/mol, mass: 1 u}
system:
  name: molecule
  temperature: 300 K
  terms:
    - atoms: [4, 6, 8, 14]
      expression: k/2*wrapped(phi - phi0)**2
      parameters: {k: 2000 kJ/mol, phi0: -80 degree}
method: {name: force-field-dynamics, duration: 2 ps, segment: 1 ps, frame_every: 0.1 ps}
measures: [molecular-energy]
checks: [conservation]
"""


@pytest.mark.parametrize("kind", [Molecule, MolecularBox], ids=lambda kind: kind.model_fields["name"].default)
def test_terms_are_added_to_those_of_the_force_field(kind):
    more = {} if kind is Molecule else {"electrostatics": "reaction-field"}
    (plain, x), (own, _) = (force_field_of(kind(temperature=KT, terms=terms, **more)) for terms in ((), (HELD, SPRINGS)))
    # without the box: terms know of none, and its kernels are tested elsewhere
    plain, own = ForceField(plain.topology), ForceField(own.topology)
    before, after, expected = plain.evaluate(x), own.evaluate(x), np.zeros_like(x)
    # What they are in nm and kJ/mol, by the built-in forms: 1 kJ/mol/angstrom^2 is 100 kJ/mol/nm^2.
    energy = BondedTerms("harmonic-improper", np.array([PHI]), np.array([[2000, np.radians(-80)]])).add_forces(x, expected)
    springs = np.array([[100.0, 0.5], [7.0, 0.5]])
    energy += BondedTerms("harmonic-bond", np.array([[0, 21], [1, 20]]), springs).add_forces(x, expected)
    assert set(after.energies) - set(before.energies) == {"terms"}
    assert after.energies["terms"] == pytest.approx(energy, rel=1e-12)
    assert np.abs(after.forces - before.forces - expected).max() < 1e-10 * np.abs(after.forces).max()
    assert after.virial - before.virial == pytest.approx((x * expected).sum(), abs=1e-10 * np.abs(x * after.forces).sum())
    # Forces inside molecules drop out of the virial of their centres of mass.
    assert own.molecular_virial(x, after) == pytest.approx(
        plain.molecular_virial(x, before), abs=1e-10 * np.abs(x * after.forces).sum()
    )


@pytest.mark.parametrize("angle", ["-80 degree", "80 degree"])
def test_a_molecule_with_terms_keeps_the_contract_of_an_engine(angle):
    """Rotations are no mirrors: a torsion that is held on one side has another energy on the other."""
    held = HELD | {"parameters": {"k": "100 kJ/mol", "phi0": angle}}
    engine = MoleculeEngine(Molecule(temperature=KT, terms=[held, SPRINGS]), 0.0005)
    check_engine(engine, conserved=3e-2, reverse=lambda state: replace(state, velocities=-state.velocities), steps=20)


def test_a_torsion_that_is_held_stiffly_has_half_of_kT():
    """<u> is kT/2 (1 - g''/k + g'^2/(k kT) + ..) for a free energy g(phi) of all else.

    In its basin near -80 degrees phi spreads over some 20 degrees when it is free, so g'' is about kT/0.35^2 = 20 kJ/mol and g',
    five degrees from the middle, 2 kJ/mol: half a percent of <u> at k = 4000 kJ/mol, where the run has an error of several.
    """
    stiff = HELD | {"parameters": {"k": "4000 kJ/mol", "phi0": "-80 degree"}}
    engine = MoleculeEngine(Molecule(temperature=KT, terms=[stiff]), 0.002, "langevin", 0.05)
    (held,) = engine.topology.bonded["terms"]
    state = engine.step(engine.init(Key.from_seed(5)), 1000)
    energies = []
    for _ in range(600):
        state = engine.step(state, 15)
        energies.append(held.add_forces(state.positions.numpy(), np.zeros((22, 3))) / (0.5 * KT))
    share = np.mean(energies)
    error = float(block_error([np.array(energies) - share]).error)
    assert error < 0.1
    assert abs(share - 1) < 4 * error
    # Forces are the slope of the energy that is counted: errors of the energy fall with the square of the time step.
    rest, fluctuations = engine.at_rest(replace(state, heat=0.0)), []
    for dt in (0.002, 0.001):
        trace = MoleculeEngine(engine.system, dt).record(rest, 1, round(0.4 / dt))[1]
        fluctuations.append(np.std(trace.potential_energy + trace.kinetic_energy - trace.heat))
    assert math.log2(fluctuations[0] / fluctuations[1]) == pytest.approx(2, abs=0.3)


def test_a_study_keeps_its_terms_and_is_what_it_was_without_any():
    study = parse_study(STUDY, "held.yaml")
    assert parse_study(dump_study(study), "again.yaml").digest == study.digest
    assert study.system.document()["terms"][0]["atoms"] == [PHI]
    assert "terms" not in Molecule(temperature=KT).document()
    assert "terms" not in MolecularBox(temperature=KT).document()
    assert "angles" not in MolecularBox(temperature=KT).document()


@pytest.mark.parametrize(
    ("written", "instead", "match"),
    [
        ("14]", "22]", r"held.yaml:7 \(system.terms\): expected atoms from 0 to 21 .* got 22. Count them from 0"),
        ("[4, 6, 8, 14]", "[4, 6, 8]", r"4 atoms a row for `phi`.* got \[4, 6, 8\]"),
        ("[4, 6, 8, 14]", "[4, 6, 8, 8]", r"4 different atoms, counted from 0.* got \[4, 6, 8, 8\]"),
        ("2000 kJ/mol", "2000", r"held.yaml:9 .*expected an energy .* got no dimension. Check the units: k = 2000"),
        ("2000 kJ/mol", "9**9**9 kJ/mol", "quantity such as"),
        ("2000 kJ/mol", "1 kJ/(0*mol)", "division by zero"),
        ("2000 kJ/mol", "1 (kJ", "Write a number, a space and a unit"),
        ("2000 kJ/mol", "1 kJ**99*kJ**99*m**99", "Give a finite number"),
        ("[4, 6, 8, 14]", "[4, 6, 8, 10000000000000000000000]", "less than"),
        ("2000 kJ/mol", "[1 kJ/mol, 2 kJ/mol]", "one value of `k`, or one for each of 1 rows"),
        ("- phi0)", "- psi)", r"column 19\); got psi. Name it among the parameters"),
        ("wrapped", "", r"the same energy at -pi and pi .* wrapped\(phi - phi0\) for a difference"),
        ("force-field-dynamics,", "biased-dynamics, torsions: [[4, 6, 8, 14]],", "got biased-dynamics. Leave out the `terms`"),
    ],
)
def test_what_is_no_energy_of_atoms_that_there_are_is_refused_when_the_study_is_read(written, instead, match):
    text = STUDY.replace(", frame_every: 0.1 ps", "") if "biased" in instead else STUDY
    with pytest.raises(InputError, match=match):
        parse_study(text.replace(written, instead), "held.yaml")


def test_terms_between_molecules_of_a_box_are_refused():
    spring = SPRINGS | {"atoms": [[0, 5], [0, 30]]}
    with pytest.raises(ValueError, match=r"atoms of one molecule in a periodic box .* got \[0, 30\], which are of several"):
        MolecularBox(temperature=KT, terms=[spring])
