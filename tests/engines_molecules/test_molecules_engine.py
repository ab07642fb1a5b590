"""Engines of molecules: the shipped contract, and what rigid bodies must do."""

from dataclasses import replace

import pytest
import torch

from manybody.core.random import Key
from manybody.engines.molecules.barostat import Barostat
from manybody.engines.molecules.engine import MoleculeEngine
from manybody.engines.molecules.spec import KELVIN, Molecule, WaterBox
from manybody.testing.engine import check_engine

CUT = WaterBox(temperature=300 * KELVIN, molecules=64, cutoff=0.6, switch=0.5, electrostatics="reaction-field")


def reversed_motion(state):
    return replace(state, velocities=-state.velocities)


def test_water_keeps_the_contract_of_an_engine():
    check_engine(MoleculeEngine(CUT, 0.0005), conserved=3e-3, reverse=reversed_motion, steps=20)


@pytest.mark.parametrize("tunes", [False, True])
def test_water_at_constant_pressure_keeps_the_contract_of_an_engine(tunes):
    """Energy less heat, and less what moves of the volume brought: some of them are accepted in these steps."""
    engine = MoleculeEngine(CUT, 0.0005, "bussi", 0.1, barostat=Barostat(0.06, 300 * KELVIN, 2, tunes))
    check_engine(engine, conserved=3e-3, steps=20)
    before = engine.init(Key.from_seed(20))
    assert not torch.equal(engine.step(before, 20).box, before.box)


@pytest.mark.parametrize("rigid", ["none", "h-bonds"])
def test_a_molecule_keeps_the_contract_of_an_engine(rigid):
    system = Molecule(temperature=300 * KELVIN, rigid=rigid)
    check_engine(MoleculeEngine(system, 0.0005), conserved=3e-2, reverse=reversed_motion, steps=20)
