"""Many-body formulas as energy models: the study of silicon, its closed forms, units, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk
from pydantic import ValidationError

from manybody.core.certificate import Verdict
from manybody.core.energies import EnergyError
from manybody.core.errors import InputError
from manybody.core.task import Output
from manybody.engines.atoms.closed_forms import at_rest, closed_form
from manybody.engines.atoms.diamond import diamond_crystal, pair_energy
from manybody.engines.atoms.energies.formulas import ManyBodyModel, StillingerWeberModel
from manybody.engines.atoms.energies.spec import EmbeddedAtomModel
from manybody.engines.atoms.engine import AtomsEngine
from manybody.engines.atoms.known_answers import BravaisCrystal
from manybody.engines.atoms.spec import FEMTOSECOND, Crystal
from manybody.numerics.many_body_formula import FINNIS_SINCLAIR, STILLINGER_WEBER, SUTTON_CHEN
from manybody.numerics.plain_many_body import derivatives
from manybody.study.certify import findings
from manybody.study.dump import dump_study
from manybody.study.file import load_study
from manybody.study.measure import Measured
from manybody.testing.engine import check_engine

GALLERY = Path(__file__).parents[2] / "studies"
REST = ["system.repeat=[1, 1, 1]"]
SILICON = StillingerWeberModel()
NUMBERS = {name: getattr(SILICON, name) for name in STILLINGER_WEBER.parameters}
BY_HAND = {
    "name": "many-body", "element": "Si", "pair": STILLINGER_WEBER.pair, "triple": STILLINGER_WEBER.triple,
    "parameters": NUMBERS | {"epsilon": "2.1683 eV", "sigma": "0.20951 nm"}, "cutoff": 3.77118,
}  # fmt: skip
COPPER = {
    "element": "Cu", "pair": SUTTON_CHEN.pair, "density": SUTTON_CHEN.density, "embedding": SUTTON_CHEN.embedding,
    "parameters": {"epsilon": 1.2382e-2, "a": 3.61, "weight": 39.432, "n": 9, "m": 6}, "cutoff": 7.5, "switch": 5.0,
}  # fmt: skip
TUNGSTEN = {
    "name": "many-body", "element": "W", "pair": FINNIS_SINCLAIR.pair, "density": FINNIS_SINCLAIR.density,
    "embedding": FINNIS_SINCLAIR.embedding, "cutoff": 3.25, "density_cutoff": 4.400224,
    "parameters": {"end": 3.25, "c0": 47.1346499, "c1": -33.7665655, "c2": 6.2541999, "reach": 4.400224, "A": 1.896373},
}  # fmt: skip


@pytest.fixture
def silicon(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tables of published values are named from the root of the checkout."""
    monkeypatch.chdir(GALLERY.parent)
    return GALLERY / "silicon-crystal"


def wrong(measured: Measured) -> set[str]:
    """The checks that do not hold, by what they check and whether it is the closed form or a published value."""
    bad = [finding for finding in findings(measured.plan, measured).checks if finding.verdict is not Verdict.HOLDS]
    return {f"{finding.name.split(' at ')[0]} {'published' if 'published' in finding.claim else ''}".strip() for finding in bad}


def test_silicon_at_rest_has_the_constants_of_its_closed_forms(silicon: Path, evidence: Callable[..., Measured]) -> None:
    measured = evidence(load_study(silicon, REST))
    assert not wrong(measured)
    assert len(findings(measured.plan, measured).checks) == 11
    found = {name: measured.estimate(measured.plan.points[0], name).value for name in ("lattice-constant", "cohesive-energy")}
    assert found["cohesive-energy"] == pytest.approx(2 * SILICON.epsilon, rel=1e-8)
    assert found["lattice-constant"] == pytest.approx(5.43095, abs=1e-5)
    last = measured.output(measured.plan.realisations[0].measured[-1]).arrays["stiffness"]
    assert last == pytest.approx(last.T, abs=1e-6)  # as a second derivative is


@pytest.mark.parametrize(
    ("name", "change", "caught"),
    [
        ("volume", lambda value: 1.0003 * value, {"lattice-constant"}),
        ("energy", lambda value: 1.001 * value, {"cohesive-energy"}),
        ("bulk_modulus", lambda value: 1.003 * value, {"bulk-modulus"}),
        (
            "stiffness",
            lambda value: 1.001 * value,
            {f"elastic-c{ij}{by}" for ij in (11, 12, 44) for by in ("", " published")} - {"elastic-c12 published"},
        ),
        ("elastic_difference", lambda value: 1e-4, {"order in strain"}),
    ],
)
def test_every_check_of_silicon_can_fail(
    name: str, change: Callable[[Any], Any], caught: set[str], silicon: Path, evidence: Callable[..., Measured]
) -> None:
    def spoil(out: Output) -> Output:
        if name in out.document:
            return replace(out, document=dict(out.document) | {name: change(out.document[name])})
        return replace(out, arrays=dict(out.arrays) | {name: change(out.arrays[name])}) if name in out.arrays else out

    assert caught <= wrong(evidence(load_study(silicon, [*REST, "repeats=1"]), spoil))


def test_another_strength_of_angles_is_not_that_of_silicon(silicon: Path, evidence: Callable[..., Measured]) -> None:
    weaker = evidence(load_study(silicon, [*REST, "repeats=1", "system.energy={name: stillinger-weber, strength: 20.5}"]))
    # the closed form follows, what was published does not: neither angles nor their strength change the bulk modulus
    assert wrong(weaker) == {f"elastic-c{ij} published" for ij in (11, 12, 44)}


def test_closed_forms_are_derivatives_of_the_potential() -> None:
    h = 1e-4
    for r in (2.1, 2.35, 3.0):
        around = [pair_energy(SILICON, r + step) for step in (-h, 0, h)]
        assert around[1][0] == pytest.approx(SILICON.bound().value("pair", r), rel=1e-12)
        for order in (1, 2):  # central differences: h^2/6 times a third derivative of some 1e3
            slope = (around[2][order - 1] - around[0][order - 1]) / (2 * h)
            assert around[1][order] == pytest.approx(slope, abs=1e-4)
    crystal = diamond_crystal(SILICON)
    assert crystal is not None
    assert crystal.bond == pytest.approx(2 ** (1 / 6) * SILICON.sigma, rel=1e-9)
    assert crystal.energy == pytest.approx(-2 * SILICON.epsilon, rel=1e-10)
    assert diamond_crystal(StillingerWeberModel(a=2.2)) is None  # second neighbours count
    assert at_rest(Crystal(material="Si", lattice="fcc", lattice_constant=4.0, energy=SILICON)) is None


def test_formulas_and_names_are_one_potential_in_any_units(silicon: Path, tmp_path: Path) -> None:
    model = ManyBodyModel.model_validate(BY_HAND)
    assert model.parameters == pytest.approx(NUMBERS, rel=1e-12)
    assert ManyBodyModel.model_validate(model.document()) == model  # a task's document has numbers alone
    atoms = bulk("Si", cubic=True)
    atoms.positions += np.random.default_rng(2).normal(scale=0.1, size=atoms.positions.shape)
    given = atoms.positions, atoms.numbers, np.array(atoms.cell), np.array(atoms.pbc)
    one, other = model.load()(*given), SILICON.load()(*given)
    assert one.energy == pytest.approx(other.energy, rel=1e-13)
    assert one.forces == pytest.approx(other.forces, abs=1e-12)
    assert one.stress == pytest.approx(other.stress, abs=1e-13)
    given_with_units = "{k: 1 eV/angstrom^3, end: 3 angstrom}"
    text = f"{{name: many-body, element: Si, pair: 'k*(end - r)**3', parameters: {given_with_units}, cutoff: 0.3 nm}}"
    study = load_study(silicon, [f"system.energy={text}"])
    assert study.system.document()["energy"]["parameters"] == pytest.approx({"k": 1.0, "end": 3.0})
    assert study.system.document()["energy"]["cutoff"] == pytest.approx(3.0)
    (tmp_path / "study.yaml").write_text(dump_study(study, "as it was run"))
    assert load_study(tmp_path).digest == study.digest


def test_copper_by_formula_is_that_of_its_tables() -> None:
    atoms, tables = bulk("Cu", cubic=True).repeat(2), EmbeddedAtomModel().load()
    atoms.positions += np.random.default_rng(5).normal(scale=0.1, size=atoms.positions.shape)
    sampled = tables(atoms.positions, atoms.numbers, np.array(atoms.cell), np.array(atoms.pbc))
    kernel = ManyBodyModel.model_validate(COPPER).bound()
    energy, forces, strained = derivatives(kernel, torch.tensor(atoms.positions), torch.tensor(np.array(atoms.cell)))
    # cubic splines 0.005 angstroms apart: 5/384 h^4 of a fourth derivative of some 50 eV/angstrom^4, and h^3/24 for forces
    assert sampled.energy / len(atoms) == pytest.approx(energy / len(atoms), abs=1e-8)
    assert sampled.forces == pytest.approx(forces.numpy(), abs=2e-6)
    assert sampled.stress == pytest.approx(strained.numpy() / atoms.get_volume(), abs=1e-8)


def test_lattice_sums_of_formulas_are_those_of_tables_and_of_the_paper() -> None:
    shipped, written = (
        closed_form(Crystal(energy=energy)) for energy in (EmbeddedAtomModel(), ManyBodyModel.model_validate(COPPER))
    )
    assert shipped is not None
    assert written is not None
    assert written.relaxed().edge == pytest.approx(shipped.relaxed().edge, rel=1e-8)
    assert written.relaxed().elastic() == pytest.approx(shipped.relaxed().elastic(), rel=1e-4)  # a table's second derivative
    tungsten = ManyBodyModel.model_validate(TUNGSTEN)
    crystal = at_rest(Crystal(material="W", lattice="bcc", lattice_constant=3.2, energy=tungsten))
    assert isinstance(crystal, BravaisCrystal)
    # Finnis and Sinclair made it for these two, of 1984.
    assert (crystal.edge, crystal.energy) == pytest.approx((3.1652, -8.90), abs=1e-5)
    alone = ManyBodyModel.model_validate(BY_HAND)
    assert at_rest(Crystal(material="Si", lattice="bcc", lattice_constant=3.2, energy=alone)) is None  # it has angles


def test_tungsten_by_formula_has_the_constants_of_its_lattice_sums(silicon: Path, evidence: Callable[..., Measured]) -> None:
    parts = ["material=W", "lattice=bcc", "lattice_constant=3.2 angstrom", "repeat=[2, 2, 2]"]
    energy = json.dumps(TUNGSTEN | {name: f"{TUNGSTEN[name]} angstrom" for name in ("cutoff", "density_cutoff")})
    study = load_study(silicon, [
        *(f"system.{part}" for part in parts), f"system.energy={energy}", "repeats=1", "checks=[exact, convergence]",
        "method={name: atoms-statics, range: 0.02, strain: 0.002}",  # its curvature jumps where a shell of neighbours enters
    ])  # fmt: skip
    measured = evidence(study)
    assert not wrong(measured)
    assert len(findings(measured.plan, measured).checks) == 7


def test_three_atoms_in_vacuum_have_two_bonds_and_an_angle() -> None:
    kernel, provider = SILICON.bound(), SILICON.load()
    for pbc, cell in ((False, np.zeros((3, 3))), (True, np.diag([0.0, 0.0, 30.0]))):
        x = np.array([[0.0, 0.0, 0.0], [2.4, 0.0, 0.0], [0.0, 2.5, 0.0]])  # the third side is at 3.47 angstroms
        found = provider(x, np.full(3, 14), cell, np.array([False, False, pbc]))
        sides = 2.4, 2.5, float(np.hypot(2.4, 2.5))
        angles = ((0, 1, 0.0), (0, 2, sides[0] / sides[2]), (1, 2, sides[1] / sides[2]))
        expected = sum(kernel.value("pair", side) for side in sides)
        expected += sum(kernel.value("triple", sides[i], sides[j], c) for i, j, c in angles)
        assert found.energy == pytest.approx(expected, rel=1e-13)
        assert found.stress is None
        assert np.abs(np.cross(x, found.forces).sum(axis=0)).max() < 1e-13


def test_what_has_no_energy_is_named() -> None:
    provider, atoms = SILICON.load(), bulk("Si", cubic=True)
    for change, told, atom in (("element", "another element", 3), ("place", "atoms overlap", None), ("nan", "not finite", 2)):
        spoiled = atoms.copy()
        if change == "element":
            spoiled.symbols[3] = "Ge"
        elif change == "place":
            spoiled.positions[5] = spoiled.positions[6]
        else:
            spoiled.positions[2, 1] = np.nan
        with pytest.raises(EnergyError, match=told) as caught:
            provider(spoiled.positions, spoiled.numbers, np.array(atoms.cell), np.array(atoms.pbc))
        assert caught.value.atom == atom or (atom is None and caught.value.atom in (5, 6))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"pair": "open('x')"}, r"one of the functions .* \(pair, column 1\)"),
        ({"triple": "c*epsilon*exp(-r/sigma)"}, r"\(triple\)"),  # ends nowhere
        ({"triple": "c*epsilon*exp(-r)"}, r"without a dimension in exp, .* \(triple\); got length"),
        ({"cutoff": 3.9}, "nothing left at the cutoff, 3.9"),
        ({"element": "Xx"}, "the symbol of an element"),
        ({"parameters": NUMBERS | {"epsilon": "2.1683 eV", "sigma": "2 u"}}, r"the power of what has a dimension \(pair\)"),
        ({"parameters": NUMBERS | {"epsilon": "2.1683 eV"}}, r"\(pair\)"),  # sigma without a unit
        ({"parameters": NUMBERS | {"epsilon": "2.1683 u", "sigma": "1 nm"}}, r"an energy \(pair\); got mass"),
        ({"parameters": NUMBERS | {"epsilon": "2 m^9^9^9"}}, "a number and a unit"),
        ({"parameters": {"epsilon": 1.0}}, "Name it among the parameters"),
        ({"switch": 4.0}, "a switch below the cutoff"),
        ({"parameters": {**NUMBERS, "__class__": 1.0}}, "parameters named by letters"),
    ],
)
def test_bad_formulas_are_refused_when_they_are_read(change: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ManyBodyModel.model_validate(BY_HAND | change)


def test_a_study_says_where_its_formula_is_wrong(silicon: Path) -> None:
    text = "{name: many-body, element: Si, pair: 'k*(3 - x)**3', parameters: {k: 1}, cutoff: 3 angstrom}"
    with pytest.raises(InputError, match=r"system.energy.*one of k, r, r2 \(pair, column 8\); got x"):
        load_study(silicon, [f"system.energy={text}"])
    with pytest.raises(InputError, match="a model that knows Ge"):
        load_study(silicon, ["system.material=Ge"])


def test_silicon_keeps_the_contract_of_an_engine() -> None:
    crystal = Crystal(material="Si", lattice="diamond", lattice_constant=5.431, repeat=(1, 1, 1), energy=SILICON)
    engine = AtomsEngine(crystal, FEMTOSECOND)
    check_engine(engine, conserved=3e-3, reverse=lambda state: replace(state, velocities=-state.velocities), steps=10)


def test_silicon_moves_and_keeps_its_energy(evidence: Callable[..., Measured]) -> None:
    study = load_study(GALLERY / "silicon-crystal", [
        *REST, "repeats=1", "system.lattice_constant=5.431 angstrom", "system.temperature=600 K",
        "method={name: atoms-dynamics, thermostat: none, equilibration: 100 fs, segment: 200 fs, duration: 200 fs}",
        "measures=[atoms-energy]", "checks=[conservation, convergence]",
    ])  # fmt: skip
    assert not wrong(evidence(study))
