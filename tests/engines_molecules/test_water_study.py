"""The study of the gallery, small: its certificate, its exports, and what is refused when it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from manybody.core.certificate import Verdict
from manybody.core.errors import InputError, TaskError
from manybody.core.study import Study
from manybody.engines.molecules import stages
from manybody.engines.molecules.observables import BAR, first_maximum
from manybody.engines.molecules.spec import KELVIN, MOLECULAR_UNITS, ForceFieldDynamics, Molecule
from manybody.study.certify import findings
from manybody.study.expand import expand
from manybody.study.export import last_configurations, results_dataset
from manybody.study.file import load_study
from manybody.study.measure import Measured

GALLERY = Path(__file__).parents[2] / "studies"
SMALL = [
    "system.molecules=64", "system.cutoff=0.6 nm", "system.switch=0.5 nm",
    "system.electrostatics=reaction-field", "system.permittivity=1000000",
    "method.time_step=1 fs", "method.equilibration=1 ps", "method.duration=0.8 ps",
    "method.segment=0.4 ps", "method.frame_every=0.1 ps", "repeats=2",
    "measures=[molecular-energy, molecular-pressure, centre-temperature, coordination-number]",
    "checks=[conservation, convergence, replication]",
]  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Study:
    """Two short runs of 64 molecules."""
    monkeypatch.chdir(GALLERY.parent)  # the table of published values is named from there
    return load_study(GALLERY / "water", SMALL)


def test_a_small_box_of_water_keeps_what_it_should(small: Study, evidence: Callable[[Study], Measured]) -> None:
    measured = evidence(small)
    certificate = findings(measured.plan, measured)
    assert {finding.name: finding.verdict for finding in certificate.checks} == {
        "conservation of effective energy": Verdict.HOLDS,
        "conservation of momentum": Verdict.HOLDS,
        "order in time step": Verdict.HOLDS,
        "replication on another worker": Verdict.HOLDS,
    }
    point = measured.plan.points[0]
    energy = measured.estimate(point, "molecular-energy").value
    assert -50 < energy < -30  # a liquid on its way to equilibrium
    assert abs(measured.estimate(point, "molecular-pressure").value) < 5000 * BAR
    assert 3 < measured.estimate(point, "coordination-number").value < 7
    dataset = results_dataset(measured.plan, measured)  # two kinds of series, of unlike length
    assert np.isfinite(dataset.molecular_energy_samples).sum("sample").values.tolist() == [[40, 40]]
    assert np.isfinite(dataset.coordination_number_samples).sum("sample").values.tolist() == [[8, 8]]
    atoms = last_configurations(measured.plan, measured)[0]
    assert atoms.get_chemical_formula() == "H128O64"
    assert atoms.get_distance(0, 1) == pytest.approx(1.0, abs=1e-6)  # angstrom
    last = measured.output(measured.plan.realisations[0].measured[-1])
    per_molecule = last.arrays["kinetic_energy"][-1] / 96.4853321  # kJ/mol in an electronvolt
    assert atoms.get_kinetic_energy() == pytest.approx(per_molecule, rel=1e-3)  # hydrogen weighs 1.008 there as here


@pytest.mark.parametrize("pressure", [[], ["method.pressure=1 bar", "method.volume_every=10 fs"]], ids=["volume", "pressure"])
def test_an_interrupted_task_ends_with_the_same_bits(
    pressure: list[str], monkeypatch: pytest.MonkeyPatch, make_node: Callable[..., stages.Context]
) -> None:
    monkeypatch.chdir(GALLERY.parent)
    task = expand(load_study(GALLERY / "water", SMALL + pressure)).realisations[0].tasks[0]
    whole = stages.equilibrate(task, {}, make_node())
    cut = make_node(patience=2)
    with pytest.raises(InterruptedError):
        stages.equilibrate(task, {}, cut)
    again = stages.equilibrate(task, {}, make_node(cut.kept[-1]))
    assert whole.document == again.document
    assert {name: array.tobytes() for name, array in whole.arrays.items()} == {
        name: array.tobytes() for name, array in again.arrays.items()
    }


def test_settings_that_are_not_made_use_of_are_no_part_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a task keeps its digest, and its result is found, when settings are added that it does not use."""
    monkeypatch.chdir(GALLERY.parent)
    study = load_study(GALLERY / "water", [])
    unused = {"pressure", "volume_every", "slow_every"}
    assert not unused & set(study.method.document())
    assert not any(unused & set(task.parameters) for task in expand(study).tasks)


def test_water_at_constant_pressure_is_measured_in_the_box_of_the_time(
    evidence: Callable[[Study], Measured], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run from too low a density: it contracts, and density, pressure and g(r) follow the box."""
    monkeypatch.chdir(GALLERY.parent)
    told = (
        "[mass-density, molecular-pressure, oxygen-distribution, coordination-number, oxygen-peak-position, oxygen-peak-height, "
        "centre-peak-top, centre-peak-flank]"
    )
    at_pressure = ["method.pressure=2 kbar", "method.volume_every=10 fs", f"measures={told}", "system.density=0.96 g/cm^3"]
    kept = [setting for setting in SMALL if not setting.startswith("measures")]
    measured = evidence(load_study(GALLERY / "water", [*kept, *at_pressure, "repeats=1", "checks=[conservation]"]))
    assert findings(measured.plan, measured).verdict is Verdict.HOLDS
    point, run = measured.plan.points[0], measured.plan.realisations[0]
    last = measured.output(run.measured[-1]).arrays
    density = measured.samples(run, "mass-density").values
    assert density[-1] == pytest.approx(64 * 18.015 / last["volume"][-1] * 1.66053907e-3)
    assert last["volume"][-1] == pytest.approx(last["box"].prod())
    assert last["frame_edges"][-1] == pytest.approx(last["box"])
    assert len(np.unique(density)) > 10
    found = measured.estimate(point, "oxygen-distribution")
    assert found.axis[-1] < 0.9 * point.system.box / 2
    shell = 4 / 3 * np.pi * np.diff((np.append(0, found.axis + found.axis[0])) ** 3)
    inside = found.axis < 0.33
    per_volume = 63 / last["volume"].mean()
    assert (found.value * shell)[inside].sum() * per_volume == pytest.approx(
        measured.estimate(point, "coordination-number").value, rel=0.05
    )
    assert measured.estimate(point, "oxygen-peak-position").value == pytest.approx(0.275, abs=0.015)
    assert 2 < measured.estimate(point, "oxygen-peak-height").value < 4
    top, flank = (measured.estimate(point, f"centre-peak-{part}").value for part in ("top", "flank"))
    assert 1 < flank < top < 4
    assert measured.output(run.measured[0]).document["volume_width"] == last_width(measured)


def last_width(measured: Measured) -> float:
    """The width that equilibration came to."""
    return float(measured.output(measured.plan.realisations[0].tasks[0]).document["volume_width"])


@pytest.mark.parametrize(
    ("name", "tasks"), [("water-npt", 4 * 3), ("alanine-dipeptide-replicas", 2 * (1 + 60 + 4 + 4 * 60 + 59))]
)
def test_studies_of_the_gallery_are_read(name: str, tasks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GALLERY.parent)
    assert sum(len(run.tasks) for run in expand(load_study(GALLERY / name, [])).realisations) == tasks


def test_the_top_of_a_peak_is_found() -> None:
    r = np.arange(0.2, 0.4, 0.005) + 0.0025
    position, height = first_maximum(r, 1 + 2 * np.exp(-(((r - 0.2763) / 0.03) ** 2)))
    assert position == pytest.approx(0.2763, abs=2e-5)
    assert height == pytest.approx(3, abs=5e-3)


def test_a_task_without_its_state_is_refused(small: Study, make_node: Callable[..., stages.Context]) -> None:
    task = expand(small).realisations[0].tasks[1]
    with pytest.raises(TaskError, match="expected an input `state`"):
        stages.produce(task, {}, make_node())


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("units=reduced", r"in reduced units"),
        ("units={length: 1 nm, energy: 0.5 kJ/mol, mass: 1 u}", r"length: 10 angstrom, energy: 1 kJ/mol, mass: 1 u"),
        ("system={name: molecule, temperature: 300 K}", r"measures of molecule; got `molecular-pressure`"),
        ("system.cutoff=1.2 nm", r"at most half the box"),
        ("system.switch=0.95 nm", r"at most the cutoff"),
        ("system.density=0.997", r"mass density with a unit"),
        ("method.time_step=5 fs", r"5 fs"),
        ("method={name: force-field-dynamics, pressure: 1 bar, thermostat: none}", r"a thermostat at constant pressure"),
        ("method={name: force-field-dynamics, pressure: 1 bar, volume_every: 7 fs}", r"a whole multiple of slow_every"),
    ],
)
def test_what_cannot_be_is_refused(setting: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GALLERY.parent)
    with pytest.raises(InputError, match=told):
        load_study(GALLERY / "water", [setting])


def test_flexible_hydrogens_want_short_steps() -> None:
    method, flexible = ForceFieldDynamics(time_step=0.002), Molecule(temperature=300 * KELVIN, rigid="none")
    with pytest.raises(ValueError, match=r"at most 1\.25 fs"):
        method.suits(flexible)
    method.suits(flexible.model_copy(update={"rigid": "h-bonds"}))


def test_a_molecule_runs_as_a_study(evidence: Callable[[Study], Measured]) -> None:
    study = Study.model_validate(
        {
            "name": "alanine-dipeptide",
            "units": MOLECULAR_UNITS,
            "system": {"name": "molecule", "temperature": 300 * KELVIN},
            "method": {
                "name": "force-field-dynamics",
                "thermostat": "langevin",
                "thermostat_time": 0.1,
                "equilibration": 1.0,
                "duration": 4.0,
                "segment": 2.0,
            },
            "measures": ["molecular-energy"],
            "checks": ["conservation", "convergence"],
        }
    )
    measured = evidence(study)
    certificate = findings(measured.plan, measured)
    assert {finding.name: finding.verdict for finding in certificate.checks} == {
        "conservation of effective energy": Verdict.HOLDS,
        "order in time step": Verdict.HOLDS,
    }
    # Half of kT for each of the 48 inner motions that are free, about the minimum at -91 kJ/mol, if they were harmonic.
    mean = measured.estimate(measured.plan.points[0], "molecular-energy").value
    assert mean == pytest.approx(-91 + 0.5 * (3 * 22 - 12 - 6) * 300 * KELVIN, abs=15)
    atoms = last_configurations(measured.plan, measured)[0]
    assert atoms.get_chemical_formula() == "C6H12N2O2"
    assert not atoms.pbc.any()
