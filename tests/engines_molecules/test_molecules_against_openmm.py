"""Energies and forces against OpenMM's Reference platform: the recording, and OpenMM itself where it is there."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from manybody.engines.molecules.amber import read_amber
from manybody.engines.molecules.forces import ForceField
from manybody.engines.molecules.water import water_topology
from manybody.numerics.nonbonded import COULOMB, CutPairs
from manybody.numerics.pme import Exclusions, PMEParameters, PMEPlan

HERE = Path(__file__).parent
FILES = HERE.parents[1] / "src/manybody/engines/molecules/files"
CUTOFF, SWITCH, PERMITTIVITY, MOLECULE_BOX = 0.8, 0.7, 78.3, 2.0  # as in openmm_oracle.py


@pytest.fixture(scope="module")
def recording():
    peers = os.environ.get("MANYBODY_PEERS")
    python = Path(peers) / "bin/python" if peers else None
    if python is None or subprocess.run([python, "-c", "import openmm"], capture_output=True).returncode:
        return json.loads((HERE / "openmm-8.6.1.json").read_text())
    return json.loads(subprocess.run([python, HERE / "openmm_oracle.py"], capture_output=True, check=True).stdout)


def tight_ewald(topology, box):
    """Particle-mesh Ewald with errors of 1e-10."""
    tight = PMEParameters(alpha=6.0, cutoff=CUTOFF, order=8, mesh=(96, 96, 96))
    excluded = Exclusions(topology.excluded, np.zeros(len(topology.excluded)))
    return PMEPlan(topology.charges, np.diag(box), tight, COULOMB, excluded)


def relative(ours, theirs):
    """Root-mean-square difference of forces over the root-mean-square force."""
    return np.sqrt(((ours - theirs) ** 2).sum() / (theirs**2).sum())


def test_alanine_dipeptide_has_openmm_s_energies_term_by_term(recording):
    topology, start, box = read_amber(FILES / "alanine-dipeptide.prmtop", FILES / "alanine-dipeptide.inpcrd")
    assert box is None
    field = ForceField(topology)
    for configuration in recording["alanine dipeptide"]:
        positions = np.array(configuration["positions"])
        assert np.abs(positions - start).max() < 0.05
        found = field.evaluate(positions)
        assert found.energies == pytest.approx(configuration["terms"], rel=1e-6)
        assert found.energy == pytest.approx(configuration["energy"], rel=1e-6)
        assert relative(found.forces, np.array(configuration["forces"])) < 1e-6


def test_alanine_dipeptide_in_a_box_has_openmm_s_forces(recording):
    """Exclusions and scaled 1-4 pairs beside particle-mesh Ewald; the molecule reaches across the box's edge."""
    topology, _, _ = read_amber(FILES / "alanine-dipeptide.prmtop", FILES / "alanine-dipeptide.inpcrd")
    box = np.full(3, MOLECULE_BOX)
    cut = CutPairs(topology.species, np.zeros(topology.atoms), topology.c12, topology.c6, SWITCH, CUTOFF)
    field = ForceField(topology, box, cut, tight_ewald(topology, box), tail=False)
    for configuration in recording["alanine dipeptide"]:
        found = field.evaluate(np.array(configuration["positions"]))
        assert relative(found.forces, np.array(configuration["box"]["forces"])) < 1e-6
        assert found.energy == pytest.approx(configuration["box"]["energy"], rel=1e-6)


@pytest.mark.parametrize("model", ["spce", "tip3p"])
def test_water_with_particle_mesh_ewald_has_openmm_s_forces(recording, model):
    water, topology, positions, box = liquid(recording, model)
    plan = tight_ewald(topology, box)
    cut = CutPairs(topology.species, np.zeros(topology.atoms), topology.c12, topology.c6, SWITCH, CUTOFF)
    found = ForceField(topology, box, cut, plan, tail=False).evaluate(positions)
    expected = water[f"{model} Ewald"]
    assert relative(found.forces, np.array(expected["forces"]).reshape(-1, 3)) < 1e-6
    scale = sum(abs(energy) for energy in found.energies.values())  # the sum may be near zero
    assert found.energy == pytest.approx(expected["energy"], abs=1e-6 * scale)


def test_water_with_a_reaction_field_has_openmm_s_forces(recording):
    water, topology, positions, box = liquid(recording, "spce")
    cut = CutPairs(topology.species, topology.charges, topology.c12, topology.c6, SWITCH, CUTOFF, PERMITTIVITY)
    found = ForceField(topology, box, cut, tail=False).evaluate(positions)
    expected = water["spce CutoffPeriodic"]
    assert relative(found.forces, np.array(expected["forces"]).reshape(-1, 3)) < 1e-6
    assert found.energy == pytest.approx(expected["energy"], rel=1e-6)


def test_the_long_range_correction_is_openmm_s_but_for_pairs_of_an_atom_with_itself(recording):
    water, topology, _, box = liquid(recording, "spce")
    cut = CutPairs(topology.species, topology.charges, topology.c12, topology.c6, CUTOFF, CUTOFF, PERMITTIVITY)
    ours = ForceField(topology, box, cut).correction[0]
    n, oxygens = topology.atoms, topology.molecules
    # OpenMM averages over n (n + 1) / 2 pairs of all atoms, and oxygens (oxygens + 1) / 2 of them interact.
    assert ours * (n / (n + 1)) * ((oxygens + 1) / oxygens) == pytest.approx(water["correction"], rel=1e-6)


def liquid(recording, model):
    water = recording["water"]
    positions = np.array(water["positions"]).reshape(-1, 3) / 1e4
    return water, water_topology(model, len(positions) // 3), positions, np.full(3, water["edge"])
