"""Engines of molecules: the shipped contract, and what rigid bodies must do."""

from dataclasses import replace

import pytest

from manybody.engines.molecules.engine import MoleculeEngine
from manybody.engines.molecules.spec import KELVIN, Molecule, WaterBox
from manybody.testing.engine import check_engine

CUT = WaterBox(temperature=300 * KELVIN, molecules=64, cutoff=0.6, switch=0.5, electrostatics="reaction-field")


def reversed_motion(state):
    return replace(state, velocities=-state.velocities)


def test_water_keeps_the_contract_of_an_engine():
    check_engine(MoleculeEngine(CUT, 0.0005), conserved=3e-3, reverse=reversed_motion, steps=20)


@pytest.mark.parametrize("rigid", ["none", "h-bonds"])
def test_a_molecule_keeps_the_contract_of_an_engine(rigid):
    system = Molecule(temperature=300 * KELVIN, rigid=rigid)
    check_engine(MoleculeEngine(system, 0.0005), conserved=3e-2, reverse=reversed_motion, steps=20)
