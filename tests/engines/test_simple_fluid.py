"""Fluids of any pair potential: what a study may say, the engine, and answers that are not Lennard-Jones'."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from manybody.core.errors import InputError
from manybody.core.random import Key
from manybody.engines.particles import known_answers
from manybody.engines.particles.engine import ExplodedError, LiquidEngine, closest_pair
from manybody.engines.particles.ensemble import LiquidEnsemble
from manybody.engines.particles.fluids import Potential, SimpleFluid
from manybody.engines.particles.spec import LennardJonesLiquid, MolecularDynamics, fluid_of
from manybody.numerics.plain_pairs import PlainPairs, sums
from manybody.numerics.potentials import LIBRARY
from manybody.study.fields import models_of
from manybody.testing.engine import check_engine

STATE = {"temperature": 0.9, "density": 0.7, "atoms": 256, "cutoff": 2.5}
FORMULA = {"name": "formula", "expression": "4*epsilon*((sigma/r)**12 - (sigma/r)**6)"}  # a kernel that others compile, too
LENNARD_JONES = FORMULA | {"parameters": {"sigma": 1.0, "epsilon": 1.0}}
SOFT = {"name": "formula", "expression": "c/r2**6", "parameters": {"c": 2.0}}
KEY = Key.from_seed(3)


def fluid(potential, **changes):
    return SimpleFluid.model_validate(STATE | {"potential": potential} | changes)


def table_of(tmp_path, low=0.7, high=2.5, points=400):
    r = np.linspace(low, high, points)
    path = tmp_path / "lennard-jones.txt"
    np.savetxt(path, np.stack([r, 4 * (r**-12 - r**-6), 24 * (2 * r**-13 - r**-7)], axis=1), fmt="%.17g")
    return {"name": "table", "file": str(path)}


def test_the_library_is_what_a_study_can_name():
    known = {model.model_fields["name"].default: model for model in models_of(Potential)}
    assert set(known) == set(LIBRARY) | {"formula", "table"}
    for name, potential in LIBRARY.items():
        assert set(known[name].model_fields) - {"name"} == set(potential.parameters)


def test_lennard_jones_as_a_formula_is_the_liquid_to_the_bit_and_its_tails_agree():
    liquid, same = LennardJonesLiquid(**STATE), fluid(LENNARD_JONES)
    ours, theirs = (LiquidEngine(system).record(LiquidEngine(system).init(KEY), 10, 2) for system in (same, liquid))
    assert torch.equal(ours[0].positions, theirs[0].positions)
    assert np.array_equal(ours[1].virial, theirs[1].virial)
    assert same.edge_energy == pytest.approx(liquid.edge_energy, rel=1e-12)
    assert same.energy_tail(0.7) == pytest.approx(liquid.energy_tail(0.7), rel=1e-9)
    assert same.pressure_tail(0.7) == pytest.approx(liquid.pressure_tail(0.7), rel=1e-9)
    shifted = fluid(LENNARD_JONES, treatment="shifted")
    assert (shifted.edge_energy, shifted.energy_tail(0.7), shifted.pressure_tail(0.7)) == (0, 0, 0)
    assert fluid({"name": "lennard-jones"}).energy_tail(0.7) == pytest.approx(same.energy_tail(0.7), rel=1e-9)


def test_the_engine_passes_the_contract_with_a_formula_and_with_a_table(tmp_path):
    check_engine(LiquidEngine(fluid(FORMULA | {"parameters": {"sigma": 0.95, "epsilon": 1.3}})), conserved=1e-3)
    check_engine(LiquidEngine(fluid(table_of(tmp_path), treatment="plain")), conserved=1e-3)


def test_a_table_of_lennard_jones_gives_its_forces_and_totals_on_a_device_as_well(tmp_path):
    system = fluid(table_of(tmp_path), treatment="plain")
    state = LiquidEngine(LennardJonesLiquid(**STATE)).step(LiquidEngine(LennardJonesLiquid(**STATE)).init(KEY), 200)
    wanted = LiquidEngine(LennardJonesLiquid(**STATE)).evaluate(state.positions, state.box)
    engine = LiquidEngine(system)
    for found in (engine.evaluate(state.positions, state.box), sums(engine.plain, state.positions, state.box, 2.5)):
        assert (found[0] - wanted[0]).abs().max() <= 1e-5 * wanted[0].abs().max()  # pieces of 0.005 in r^2
        assert found[1:] == pytest.approx(wanted[1:], rel=1e-5)


def test_a_run_that_leaves_the_table_ends_with_both_atoms_the_distance_and_the_step(tmp_path):
    system = fluid(table_of(tmp_path, low=0.95), treatment="plain")
    engine = LiquidEngine(system, thermostat="bussi")
    start = engine.init(KEY)
    with pytest.raises(
        ExplodedError, match=r"Step \d+: atoms \d+ and \d+ come as near as 0\.9\d+; the table .* begins at 0.95"
    ) as left:
        engine.step(start, 400)
    assert left.value.state is not None
    overlapping = replace(start, positions=start.positions.clone())
    overlapping.positions[17] = overlapping.positions[64] + 0.3
    with pytest.raises(ExplodedError, match=r"Step 0: atoms 17 and 64 come as near as 0\.5196; .*without overlapping"):
        engine.step(overlapping, 1)


def test_systems_with_a_table_are_advanced_each_for_itself(tmp_path):
    engine = LiquidEngine(fluid(table_of(tmp_path, high=1.6), treatment="plain", atoms=40, cutoff=1.6))
    starts = [engine.init(KEY), engine.init(Key.from_seed(4))]
    for found, start in zip(LiquidEnsemble(engine).step(starts, 5), starts, strict=True):
        assert torch.equal(found.positions, engine.step(start, 5).positions)


def test_the_closest_pair_is_found_across_the_boundary():
    assert closest_pair(np.array([[0.1, 1, 1], [2, 2, 2], [3.9, 1, 1]]), np.full(3, 4.0)) == (0, 2, pytest.approx(0.2))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"potential": LENNARD_JONES | {"expression": "4*epsilon/s"}}, "column 11.* got s. Name it among the parameters"),
        ({"potential": FORMULA | {"expression": "1/r # a comment"}}, "Leave out comments"),
        ({"potential": FORMULA | {"parameters": {"sigma": 1.0}}}, "expected one of r, r2, sigma"),
        ({"potential": FORMULA | {"parameters": {"sigma; import os": 1.0}}}, "parameters named by letters"),
        ({"potential": {"name": "formula", "expression": "1/(r - 2.5)"}}, "a finite energy at the cutoff"),
        ({"potential": {"name": "formula", "expression": "r**-3"}}, "falls faster than r.*plain"),
        ({"potential": {"name": "weeks-chandler-andersen"}}, "at most 1.12246.*where `weeks-chandler-andersen` ends"),
        ({"potential": {"name": "table", "file": "nowhere.txt"}}, "a file; got `nowhere.txt`"),
        ({"potential": {"name": "morse", "depth": 1.0, "a": 5.0}}, "place"),
        ({"cutoff": 4.0}, "at most half the box"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(changes, said):
    with pytest.raises(ValidationError, match=said):
        fluid(**({"potential": LENNARD_JONES} | changes))


def test_tables_are_identified_by_their_content(tmp_path):
    given = table_of(tmp_path)
    system = fluid(given, treatment="plain")
    with pytest.raises(ValidationError, match="knows nothing of what lies beyond"):
        fluid(given)
    with pytest.raises(ValidationError, match=r"at most 2\.5, where `table` ends"):
        fluid(given, treatment="plain", cutoff=2.6)
    document = system.document()
    assert fluid_of(document) == system
    with open(given["file"], "a") as file:
        file.write("2.6 -0.0129 -0.0296\n")
    assert fluid(given, treatment="plain").digest != system.digest
    document["potential"]["content"] = "0" * 64
    elsewhere = fluid_of(document)  # the study of a file that is not here can be read, but not run
    with pytest.raises(InputError, match=r"expected a file of content 000000000000; got other content. Copy the files"):
        LiquidEngine(elsewhere)


def test_pistons_at_the_edges_are_refused_for_a_table(tmp_path):
    given = table_of(tmp_path)
    pressed = {"pressure": 1.0, "coupling": "anisotropic", "start": "crystal"}
    pistons = MolecularDynamics(**pressed, thermostat="nose-hoover", barostat="martyna-tobias-klein")
    system = fluid(given, treatment="plain", cutoff=2.3, atoms=256)
    with pytest.raises(ValueError, match="expected `isotropic` for a table with pistons"):
        pistons.suits(system)
    pistons.suits(fluid(LENNARD_JONES, atoms=256))
    MolecularDynamics(**pressed).suits(system)


# --- answers that are not Lennard-Jones' -------------------------------------------------------------------------


def test_virial_coefficients_of_inverse_powers_hard_spheres_and_lennard_jones():
    second, third = known_answers.virial_coefficients(lambda r: 2 / r**12, 0.7, 6.0, 150)
    assert second == pytest.approx(known_answers.inverse_power_second_virial(12, 0.7 / 2), rel=1e-5)
    assert third / second**2 == pytest.approx(3.791066 / 2.566507**2, rel=1e-4)  # the ratio is the same at all temperatures
    hard = known_answers.virial_coefficients(lambda r: math.inf if r < 1 else 0.0, 1.0, 1.0, 150)
    assert hard == pytest.approx([2 * math.pi / 3, 5 / 8 * (2 * math.pi / 3) ** 2], rel=5e-5)
    ours, _ = known_answers.virial_coefficients(known_answers.pair_energy, 1.5, 10.0, 500)
    beyond = 2 * math.pi / 1.5 * 4 * (10.0**-9 / 9 - 10.0**-3 / 3)  # f = -u/kT there
    assert ours + beyond == pytest.approx(known_answers.second_virial(1.5), rel=1e-5)


def test_an_inverse_power_scales_configuration_by_configuration():
    """u = c r^-12: lengths times l give energies times l^-12, and the virial is 12 times the energy in each of them."""
    x = torch.rand(200, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 7
    box = torch.full((3,), 7.0, dtype=torch.float64)
    system = fluid(SOFT)
    plain = PlainPairs(LiquidEngine(system).kernel.potential, {"c": 2.0})
    _, energy, virial, pairs = plain.evaluate(x, box, 2.5)
    assert virial == pytest.approx(12 * energy, rel=1e-12)
    _, scaled, _, same = plain.evaluate(1.3 * x, 1.3 * box, 1.3 * 2.5)
    assert scaled == pytest.approx(energy * 1.3**-12, rel=1e-10)
    assert same == pairs
    tail, pressure = system.energy_tail(0.7), system.pressure_tail(0.7)
    assert pressure == pytest.approx(12 / 3 * 0.7 * tail, rel=1e-9)  # of the tails alike
    assert tail == pytest.approx(2 * math.pi * 0.7 * 2.0 * 2.5**-9 / 9, rel=1e-9)
