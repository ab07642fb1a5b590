"""CHGNet, a learned potential whose weights come with its package, drives a real crystal: rock salt."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("chgnet", reason="the extra manybody[chgnet] is not installed")

from manybody.core.random import Key
from manybody.engines.atoms.energies.spec import CalculatorModel
from manybody.engines.atoms.engine import AtomsEngine
from manybody.engines.atoms.spec import FEMTOSECOND, GIGAPASCAL, KELVIN, Crystal
from manybody.engines.atoms.statics import birch_murnaghan

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
MODEL = CalculatorModel(path="chgnet.model.dynamics.CHGNetCalculator", arguments={"use_device": "cpu"})


def salt(edge: float) -> Crystal:
    return Crystal(material="NaCl", lattice="rocksalt", lattice_constant=edge, repeat=(1, 1, 1), energy=MODEL)


def test_rock_salt_keeps_its_energy_and_momentum() -> None:
    engine = AtomsEngine(salt(5.69), 2 * FEMTOSECOND, temperature=300 * KELVIN)
    _, trace = engine.record(engine.init(Key.from_seed(1)), 1, 40)
    total = trace.potential_energy + trace.kinetic_energy
    assert np.ptp(total) < 0.01 * trace.kinetic_energy.mean()
    assert np.abs(trace.momentum).max() < 1e-4 * np.sqrt(engine.bath.kT)  # of forces in single precision
    assert trace.potential_energy.min() / 8 == pytest.approx(-3.66, abs=0.03)


def test_rock_salt_has_the_lattice_constant_and_stiffness_of_what_it_learned_from() -> None:
    provider, volumes, energies = MODEL.load(), [], []
    for edge in np.linspace(5.5, 5.9, 9):
        atoms = salt(float(edge)).atoms()
        found = provider(atoms.positions, atoms.numbers, np.array(atoms.cell), np.array(atoms.pbc))
        volumes.append(atoms.get_volume())
        energies.append(found.energy)
    state = birch_murnaghan(np.array(volumes), np.array(energies))
    # It learned from calculations with the PBE functional; experiment: 5.64 angstroms and about 25 GPa.
    assert state.volume ** (1 / 3) == pytest.approx(5.69, abs=0.03)
    assert state.bulk_modulus / GIGAPASCAL == pytest.approx(25, abs=5)
