"""The engine of atoms: the shipped contract with every kind of model, and how bad input stops a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.build import molecule

from manybody.core.energies import EnergyModel, Evaluated
from manybody.core.errors import InputError, TaskError
from manybody.core.random import Key
from manybody.engines.atoms.energies.spec import CalculatorModel, EmbeddedAtomModel, SumModel
from manybody.engines.atoms.engine import AtomsEngine, StoppedRun
from manybody.engines.atoms.spec import FEMTOSECOND, KELVIN, Crystal, Structure
from manybody.engines.atoms.state import AtomsState
from manybody.testing.engine import check_engine

COPPER = Crystal(repeat=(2, 2, 2))
MORSE = CalculatorModel(
    path="ase.calculators.morse.MorsePotential",
    arguments={"epsilon": 0.34, "r0": 2.55, "rho0": 4.0, "rcut1": 1.5, "rcut2": 1.7},
)


def reversed_motion(state: AtomsState) -> AtomsState:
    return replace(state, velocities=-state.velocities)


@pytest.fixture
def water(tmp_path: Path) -> Path:
    """Two molecules in vacuum, as extended XYZ."""
    pair = molecule("H2O") + molecule("H2O")
    pair.positions[3:] += [0, 0, 3.0]
    ase.io.write(tmp_path / "water.xyz", pair, format="extxyz")
    return tmp_path / "water.xyz"


@pytest.mark.parametrize(
    ("energy", "cells"), [(EmbeddedAtomModel(), 2), (SumModel(base=EmbeddedAtomModel(), correction=MORSE), 1)], ids=["eam", "sum"]
)
def test_a_crystal_keeps_the_contract_of_an_engine(energy: EnergyModel, cells: int) -> None:
    engine = AtomsEngine(Crystal(repeat=(cells, cells, cells), energy=energy), FEMTOSECOND)
    check_engine(engine, conserved=3e-3, reverse=reversed_motion, steps=5 * cells)


def test_a_molecule_keeps_the_contract_of_an_engine(water: Path) -> None:
    system = Structure(file=str(water), energy=CalculatorModel(), temperature=300 * KELVIN)
    assert system.elements == ("O", "H", "H") * 2
    engine = AtomsEngine(system, 0.2 * FEMTOSECOND)
    assert engine.freedom == 12
    check_engine(engine, conserved=3e-2, reverse=reversed_motion, steps=5)


@pytest.mark.parametrize("thermostat", ["bussi", "langevin"])
def test_a_thermostat_brings_the_temperature_and_accounts_for_the_heat(thermostat: str) -> None:
    engine = AtomsEngine(COPPER, 4 * FEMTOSECOND, thermostat, 20 * FEMTOSECOND)  # type: ignore[arg-type]
    state, _ = engine.record(engine.init(Key.from_seed(3)), 1, 100)
    before = engine.conserved(state)["effective_energy"]
    state, trace = engine.record(state, 4, 150)
    temperature = 2 * trace.kinetic_energy.mean() / engine.freedom / COPPER.temperature
    # 600 steps of 4 fs redraw the kinetic energy about 60 times: 5 standard errors.
    assert temperature == pytest.approx(1, abs=5 * np.sqrt(2 / engine.freedom / 60))
    assert engine.conserved(state)["effective_energy"] == pytest.approx(before, abs=3e-3)


class Faulty:
    """A model that gives something bad from its `good`-th call on."""

    def __init__(self, fault: str, good: int = 40) -> None:
        self.fault, self.left = fault, good

    def __call__(self, positions: np.ndarray, numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> Evaluated:
        self.left -= 1
        forces = np.zeros_like(positions)
        if self.left < 0 and self.fault != "energy":
            forces[5, 1] = {"nan": np.nan, "huge": 1e6}[self.fault]
        return Evaluated(np.nan if self.left < 0 and self.fault == "energy" else 0.0, forces)

    def forget(self) -> None:
        """Nothing is kept."""


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("nan", r"Step 40: atom 5 \(Cu\) has no finite force"),
        ("huge", r"Step 40: atom 5 \(Cu\) flies further than 0\.5"),
        ("energy", r"Step 40: the model gives an energy that is not finite"),
    ],
)
def test_a_run_stops_where_it_goes_wrong_and_keeps_its_state(fault: str, told: str) -> None:
    engine = AtomsEngine(COPPER, FEMTOSECOND, provider=Faulty(fault))
    with pytest.raises(StoppedRun, match=told) as caught:
        engine.record(engine.init(Key.from_seed(1)), 10, 10)
    assert "Lower `time_step` (now 1 fs)" in str(caught.value)
    assert caught.value.state.step in (39, 40)
    assert np.isfinite(caught.value.state.positions).all()


def test_atoms_that_meet_are_named(tmp_path: Path) -> None:
    atoms = COPPER.atoms()
    atoms.positions[9] = atoms.positions[4] + [0, 0, 0.4]
    ase.io.write(tmp_path / "overlap.cif", atoms)
    engine = AtomsEngine(Structure(file=str(tmp_path / "overlap.cif")))
    with pytest.raises(TaskError, match=r"atoms 4 \(Cu\) and 9 \(Cu\) are 0\.4 angstroms apart and overlap"):
        engine.init(Key.from_seed(1))
    sound = AtomsEngine(COPPER)
    state = sound.init(Key.from_seed(1))
    x = state.positions.copy()
    x[9] = x[4] + [0, 0, 0.4]
    with pytest.raises(StoppedRun, match=r"Step 0: atom \d+ \(Cu\): .* atoms overlap"):
        sound.step(replace(state, positions=x))
    with pytest.raises(StoppedRun, match=r"atom 4 \(Cu\) is at no finite position"):
        sound.step(replace(state, velocities=np.where(np.arange(32)[:, None] == 4, np.nan, state.velocities)))


def test_a_model_that_raises_is_quoted(tmp_path: Path) -> None:
    gold = Crystal(material="Fe", lattice="bcc", lattice_constant=2.87, repeat=(2, 2, 2), energy=CalculatorModel())
    engine = AtomsEngine(gold)
    with pytest.raises(StoppedRun, match=r"Step 0: ase\.calculators\.emt\.EMT raises NotImplementedError: No EMT-potential"):
        engine.step(engine.init(Key.from_seed(1)))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"material": "Au"}, "a model that knows Au; got one for Cu"),
        ({"material": "Xx"}, "what a fcc lattice can be made of"),
        ({"repeat": (0, 1, 1)}, "three whole numbers"),
        ({"energy": {"name": "eam", "file": "nowhere.eam.alloy"}}, "a file; got `nowhere.eam.alloy`"),
        ({"energy": {"name": "calculator", "path": "EMT"}}, "an import path"),
        ({"energy": {"name": "quantum"}}, "one of calculator, eam, exported, many-body, stillinger-weber, sum"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_read(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Crystal.model_validate(given)


@pytest.mark.parametrize(
    ("path", "arguments", "told"),
    [
        ("os.system", {}, "one that this machine runs"),
        ("mine.models.Model", {}, "MANYBODY_CALCULATORS=mine"),
        ("ase.calculators.espresso.Espresso", {}, "one that this machine runs"),
        ("ase.calculators.eam.EAM", {"potential": "nowhere.alloy"}, "arguments that it takes; got FileNotFoundError"),
    ],
)
def test_calculators_that_a_machine_does_not_run(path: str, arguments: dict[str, str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        CalculatorModel.model_validate({"path": path, "arguments": arguments}).load()


def test_an_owner_may_trust_more_but_no_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYBODY_CALCULATORS", "ase, nowhere")
    assert CalculatorModel(path="ase.calculators.harmonic.HarmonicCalculator").path
    for path, told in (
        ("ase.calculators.vasp.vasp2.Vasp2Base", "can be imported"),
        ("ase.calculators.demon.demon.Demon", "runs no other program"),
        ("ase.calculators.calculator.all_changes", "runs no other program"),
        ("nowhere.Model", "Install the package `nowhere`"),
    ):
        with pytest.raises(InputError, match=told):
            CalculatorModel(path=path).load()


def test_files_are_known_by_their_content(water: Path) -> None:
    system = Structure(file=str(water), energy=CalculatorModel())
    again = Structure.model_validate(system.document())
    assert again == system
    water.write_text(water.read_text().replace("0.1", "0.2", 1))
    with pytest.raises(InputError, match=f"a file of content {system.content[:12]}; got other content"):
        AtomsEngine(again)
    water.unlink()
    with pytest.raises(InputError, match="no such file"):
        AtomsEngine(again)
    for name in ("nothing.cif", "words.cif"):
        (water.parent / "words.cif").write_text("no crystal")
        with pytest.raises(ValueError, match="a file"):
            Structure.model_validate({"file": str(water.parent / name)})
