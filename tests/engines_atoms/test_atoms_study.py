"""The studies of the gallery, small: their certificates hold, and fail where something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest

from manybody.core.certificate import Certificate, Verdict
from manybody.core.errors import InputError, TaskError
from manybody.core.protocols import Context
from manybody.core.study import Study
from manybody.core.task import Output
from manybody.engines.atoms import stages, statics
from manybody.engines.atoms.closed_forms import closed_form
from manybody.engines.atoms.energies.eam import EmbeddedAtomProvider
from manybody.engines.atoms.energies.spec import CalculatorModel, SumModel
from manybody.engines.atoms.known_answers import lattice_sum, sutton_chen_crystal
from manybody.engines.atoms.spec import ATOMIC_UNITS, FEMTOSECOND, KELVIN, Crystal
from manybody.study.certify import findings
from manybody.study.dump import dump_study
from manybody.study.expand import expand
from manybody.study.export import last_configurations
from manybody.study.file import load_study
from manybody.study.measure import Measured

GALLERY = Path(__file__).parents[2] / "studies"
REST = ["system.repeat=[1, 1, 1]"]
HEAT = [
    "system.repeat=[2, 2, 2]", "sweep=[{system.temperature: 100 K}]", "method.equilibration=200 fs",
    "method.duration=800 fs", "method.segment=400 fs", "method.frame_every=100 fs",
    "measures=[potential-share, thermal-expansion, atoms-energy, atoms-distribution, atoms-displacement]",
    "checks=[conservation, exact, convergence, replication]",
]  # fmt: skip


@pytest.fixture
def gallery(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tables of published values are named from the root of the checkout."""
    monkeypatch.chdir(GALLERY.parent)
    return GALLERY


def certified(measured: Measured) -> Certificate:
    return findings(measured.plan, measured)


def wrong(certificate: Certificate) -> set[str]:
    return {finding.name.split(" at ")[0] for finding in certificate.checks if finding.verdict is not Verdict.HOLDS}


def document(name: str, change: Callable[[float], float]) -> Callable[[Output], Output]:
    """What spoils a number of the outputs that have it."""

    def spoil(out: Output) -> Output:
        return replace(out, document=dict(out.document) | {name: change(out.document[name])}) if name in out.document else out

    return spoil


def array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Output], Output]:
    """What spoils an array of the outputs that have it."""

    def spoil(out: Output) -> Output:
        return replace(out, arrays=dict(out.arrays) | {name: change(out.arrays[name])}) if name in out.arrays else out

    return spoil


def test_copper_at_rest_has_the_constants_of_its_lattice_sums(gallery: Path, evidence: Callable[..., Measured]) -> None:
    measured = evidence(load_study(gallery / "copper-crystal", REST))
    certificate = certified(measured)
    assert certificate.verdict is Verdict.HOLDS, wrong(certificate)
    assert len(certificate.checks) == 11
    last = measured.output(measured.plan.realisations[0].measured[-1]).arrays["stiffness"]
    assert last == pytest.approx(last.T, abs=1e-5)  # as a second derivative is
    assert np.abs(last[:3, 3:]).max() < 1e-6


@pytest.mark.parametrize(
    ("spoil", "caught"),
    [
        (document("volume", lambda value: 1.0003 * value), {"lattice-constant"}),
        (document("energy", lambda value: 1.03 * value), {"cohesive-energy"}),
        (document("bulk_modulus", lambda value: 1.003 * value), {"bulk-modulus"}),
        (array("stiffness", lambda values: 1.001 * values), {"elastic-c11", "elastic-c12", "elastic-c44"}),
        (document("elastic_difference", lambda value: 1e-4), {"order in strain"}),
    ],
)
def test_every_check_of_the_crystal_can_fail(
    spoil: Callable[[Output], Output], caught: set[str], gallery: Path, evidence: Callable[..., Measured]
) -> None:
    few = [*REST, "repeats=1"]
    spoiled = evidence(load_study(gallery / "copper-crystal", few), spoil)
    assert caught <= wrong(certified(spoiled))


def test_hot_copper_shares_its_energy_and_expands(gallery: Path, evidence: Callable[..., Measured]) -> None:
    measured = evidence(load_study(gallery / "copper-heat", HEAT))
    certificate = certified(measured)
    assert certificate.verdict is Verdict.HOLDS, wrong(certificate)
    point = measured.plan.points[0]
    crystal = closed_form(point.system)
    assert crystal is not None
    g = measured.estimate(point, "atoms-distribution")
    assert g.axis is not None
    first = g.axis[np.argmax(g.value)]
    assert first == pytest.approx(point.system.lattice_constant / np.sqrt(2), abs=0.12)  # within two bins
    shell = (g.axis > 2.1) & (g.axis < 3.0)
    per_volume = (point.system.count - 1) / point.system.count / crystal.volume
    neighbours = (g.value * 4 * np.pi * g.axis**2)[shell].sum() * (g.axis[1] - g.axis[0]) * per_volume
    assert neighbours == pytest.approx(12, rel=0.01)  # whose bins are 0.06 angstroms wide
    # A harmonic atom's positions at two times far apart differ by twice their variance: some 0.02 angstrom^2 at 100 K.
    assert 0.003 < measured.estimate(point, "atoms-displacement").value < 0.03
    atoms = last_configurations(measured.plan, measured)[0]
    assert atoms.get_chemical_formula() == "Cu32"
    assert atoms.pbc.all()
    assert atoms.cell.lengths() == pytest.approx(2 * 3.60981)


@pytest.mark.parametrize(
    ("spoil", "caught"),
    [
        (array("virial", lambda values: values + 10), {"thermal-expansion"}),
        (document("static_energy", lambda value: value - 1), {"potential-share"}),
        (array("momentum", lambda values: values + 1e-9 * np.arange(len(values))), {"conservation of momentum"}),
        (array("effective_energy", lambda values: 1e-2 * np.arange(len(values))), {"conservation of effective energy"}),
        (document("energy_fluctuation", lambda value: 1e-6), {"order in time step"}),
    ],
)
def test_every_check_of_the_heat_can_fail(
    spoil: Callable[[Output], Output], caught: set[str], gallery: Path, evidence: Callable[..., Measured]
) -> None:
    few = [*HEAT, "repeats=1"]
    spoiled = evidence(load_study(gallery / "copper-heat", few), spoil)
    assert caught <= wrong(certified(spoiled))


def test_an_interrupted_task_ends_with_the_same_bits(gallery: Path, make_node: Callable[..., Context]) -> None:
    task = expand(load_study(gallery / "copper-heat", HEAT)).realisations[0].tasks[0]
    whole, cut = stages.equilibrate(task, {}, make_node()), make_node(patience=2)
    with pytest.raises(InterruptedError):
        stages.equilibrate(task, {}, cut)
    again = stages.equilibrate(task, {}, make_node(cut.kept[-1]))
    assert whole.document == again.document
    assert {name: array.tobytes() for name, array in whole.arrays.items()} == {
        name: array.tobytes() for name, array in again.arrays.items()
    }


def test_a_stopped_task_leaves_its_last_sound_sample(gallery: Path, make_node: Callable[..., Context]) -> None:
    study = load_study(gallery / "copper-heat", [*HEAT, "method.time_step=20 fs", "sweep=[{system.temperature: 3000 K}]"])
    task, node = expand(study).realisations[0].tasks[0], make_node()
    with pytest.raises(TaskError, match=r"Step \d+: atom \d+ \(Cu\).*Lower `time_step` \(now 20 fs\)"):
        stages.equilibrate(task, {}, node)
    assert np.isfinite(node.kept[-1].arrays["positions"]).all()
    with pytest.raises(TaskError, match="expected an input `state`"):
        stages.produce(expand(study).realisations[0].tasks[1], {}, make_node())
    with pytest.raises(TaskError, match="expected an input `state`"):
        statics.strain(expand(load_study(gallery / "copper-crystal", REST)).realisations[0].tasks[1], {}, make_node())


def test_closed_forms_are_those_of_the_paper() -> None:
    # Sutton and Chen print c = 39.432: it follows from n, m and the lattice, and so does the cohesive energy of copper, 3.50 eV.
    nine, six = lattice_sum("fcc", 9), lattice_sum("fcc", 6)
    assert 9 * nine / (6 * np.sqrt(six)) == pytest.approx(39.432, abs=1e-3)
    assert sutton_chen_crystal(1.2382e-2, 3.61, 9, 6)[0] == pytest.approx(3.50, abs=5e-4)
    assert six / 8 == pytest.approx(14.453921, abs=1e-5)  # J. E. Lennard-Jones and A. E. Ingham (1925)


def test_lattice_dynamics_is_consistent_with_elasticity() -> None:
    crystal = closed_form(Crystal())
    assert crystal is not None
    relaxed = crystal.relaxed()
    c11, c12, c44 = relaxed.elastic()
    assert (c11 + 2 * c12) / 3 == pytest.approx(relaxed.bulk_modulus, rel=1e-4)
    assert crystal.waves((2, 2, 2)).shape == (31, 3)
    q = 1e-3
    squares = np.linalg.eigvalsh(relaxed.dynamical(np.array([[q, 0, 0]]))[0]) / relaxed.volume / q**2
    assert squares == pytest.approx([c44, c44, c11], rel=1e-5)  # sound along the axis
    assert closed_form(Crystal(energy=CalculatorModel())) is None


@pytest.mark.parametrize("scale", [0.97, 1.05])
def test_an_equation_of_state_finds_the_minimum_or_says_that_there_is_none(scale: float) -> None:
    volumes = np.linspace(0.94, 1.06, 13) * 11.76
    x = volumes ** (-2 / 3)
    x0, b, derivative = 11.5 ** (-2 / 3), 0.9, 5.2
    second = 9 / 4 * b * 11.5 / x0**2
    third = 1.5 * (derivative - 4) * second / x0
    found = statics.birch_murnaghan(volumes, -3.5 + second / 2 * (x - x0) ** 2 + third / 6 * (x - x0) ** 3)
    assert (found.volume, found.bulk_modulus, found.derivative) == pytest.approx((11.5, b, derivative), rel=1e-8)
    with pytest.raises(TaskError, match="no minimum between volumes"):
        statics.birch_murnaghan(volumes, scale * volumes)


def test_a_calculator_has_its_arguments_from_the_study_file(gallery: Path, tmp_path: Path) -> None:
    given = "{name: calculator, path: ase.calculators.emt.EMT, arguments: {asap_cutoff: true}}"
    study = load_study(gallery / "copper-heat", [f"system.energy={{name: sum, base: eam, correction: {given}}}"])
    assert isinstance(study.system, Crystal)
    assert isinstance(study.system.energy, SumModel)
    assert study.system.energy.correction == CalculatorModel(arguments={"asap_cutoff": True})
    (tmp_path / "study.yaml").write_text(dump_study(study, "as it was run"))
    assert load_study(tmp_path).digest == study.digest


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("system.energy={name: calculator, arguments: [1]}", "arguments"),
        ("units=reduced", "in reduced units"),
        ("system.energy=quantum", "one of calculator, eam, exported, many-body, stillinger-weber, sum"),
        ("system.energy={name: sum, base: eam, correction: {name: exported}}", "a file"),
        ("system.material=Au", "a model that knows Au"),
        ("method.time_step=0.1 ps", "0.1"),
    ],
)
def test_what_cannot_be_is_refused(setting: str, told: str, gallery: Path) -> None:
    with pytest.raises(InputError, match=told):
        load_study(gallery / "copper-heat", [setting])


def test_a_structure_from_a_file_runs_as_a_study(tmp_path: Path, evidence: Callable[..., Measured]) -> None:
    ase.io.write(tmp_path / "POSCAR", Crystal(repeat=(1, 1, 2)).atoms(), format="vasp")
    study = Study.model_validate(
        {
            "name": "copper-cell",
            "units": ATOMIC_UNITS,
            "system": {"name": "structure", "file": str(tmp_path / "POSCAR"), "temperature": 300 * KELVIN},
            "method": {
                "name": "atoms-dynamics", "thermostat": "none", "time_step": 2 * FEMTOSECOND, "equilibration": 40 * FEMTOSECOND,
                "segment": 200 * FEMTOSECOND, "duration": 200 * FEMTOSECOND,
            },
            "measures": ["atoms-energy", "atoms-pressure"],
            "checks": ["conservation", "convergence"],
        }
    )  # fmt: skip
    measured = evidence(study)
    assert certified(measured).verdict is Verdict.HOLDS, wrong(certified(measured))
    assert -3.45 < measured.estimate(measured.plan.points[0], "atoms-energy").value < -3.35


def test_a_model_without_stress_has_no_pressure(gallery: Path, evidence: Callable[..., Measured]) -> None:
    few = [*HEAT, "repeats=1", "measures=[atoms-pressure]", "checks=[conservation]"]
    drop = {"static_pressure", "static_bulk_modulus"}
    measured = evidence(
        load_study(gallery / "copper-heat", few),
        lambda out: replace(out, document={name: value for name, value in out.document.items() if name not in drop}),
    )
    with pytest.raises(InputError, match="expected a model with a stress"):
        measured.estimate(measured.plan.points[0], "atoms-pressure")


def test_a_model_without_stress_has_no_statics(
    make_node: Callable[..., Context], gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = EmbeddedAtomProvider.__call__
    monkeypatch.setattr(EmbeddedAtomProvider, "__call__", lambda *given: replace(whole(*given), stress=None))
    task = expand(load_study(gallery / "copper-crystal", REST)).realisations[0].tasks[0]
    with pytest.raises(TaskError, match="expected a model with a stress"):
        statics.relax(task, {}, make_node())


def test_a_relaxation_that_cannot_end_says_so(make_node: Callable[..., Context], gallery: Path) -> None:
    study = load_study(gallery / "copper-crystal", [*REST, "method.steps=1"])
    with pytest.raises(TaskError, match=r"after 1 steps the largest force is .* Raise `steps`"):
        statics.relax(expand(study).realisations[0].tasks[0], {}, make_node())
