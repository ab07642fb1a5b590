"""Dynamics with a bias: the same steps as without, what is conserved, restarts, and small studies of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from manybody.core.certificate import Verdict
from manybody.core.errors import InputError, TaskError
from manybody.core.random import Key
from manybody.core.study import Study
from manybody.core.task import Output
from manybody.engines.molecules import sampling_stages
from manybody.engines.molecules.bias import BiasedEngine, molecule_terms
from manybody.engines.molecules.engine import MoleculeEngine
from manybody.engines.molecules.free_energy import free_energy, jackknifed, restraint_energies
from manybody.engines.molecules.sampling import BiasedDynamics, Hills, Metadynamics, Umbrella, Unbiased, Window
from manybody.engines.molecules.spec import KELVIN, MOLECULAR_UNITS, Molecule
from manybody.numerics.bias import hills_energy, restraint_energy
from manybody.numerics.vacuum import Bias, advance, evaluate
from manybody.study.certify import findings
from manybody.study.measure import Measured
from manybody.testing.engine import check_engine

KT = 300 * KELVIN
ALANINE = Molecule(temperature=KT)
TORSIONS = ((4, 6, 8, 14), (6, 8, 14, 16))
HILLS = Hills(height=2.0, pace=0.01, bias_factor=6.0)
WINDOW = Window(centres=(1.0, -1.0), stiffness=(40.0, 40.0), approach=0.5)


@pytest.mark.parametrize("thermostat", ["langevin", "none"])
def test_compiled_steps_are_those_of_the_engine(thermostat):
    """Without a bias, on the same random numbers, to round-off."""
    plain = MoleculeEngine(ALANINE, 0.002, thermostat, 0.1)
    start = plain.init(Key.from_seed(5))
    there, trace = plain.record(start, 20, 1)
    x, v = start.positions.numpy().copy(), start.velocities.numpy().copy()
    noise = plain.bath.noise(start.key, 0, 20, 22)[0] if thermostat == "langevin" else np.empty((20, 22, 3))
    decay = plain.bath.decay(0.002) if thermostat == "langevin" else 1.0
    nothing, none = np.empty(0), np.empty((0, 4), np.int64)
    bias = Bias(none[:, 0], none, np.empty(0, np.bool_), nothing, nothing, nothing, np.empty((0, 0, 4)))
    told = advance(x, v, np.zeros(2), molecule_terms(plain.topology), bias, noise, 0.002, decay, KT, 0.1)
    assert told[:2] == (0, 20)
    assert x == pytest.approx(there.positions.numpy(), abs=1e-12)
    assert v == pytest.approx(there.velocities.numpy(), abs=1e-10)
    assert told[2] == pytest.approx(trace.potential_energy[-1], abs=1e-9)
    assert told[4] == pytest.approx(trace.heat[-1], abs=1e-9)


def reversed_motion(state):
    return replace(state, molecule=replace(state.molecule, velocities=-state.molecule.velocities))


def test_biased_engines_keep_the_contract():
    # With hills, energy less heat less work; hills are never taken back, so only restraints can be reversed.
    check_engine(BiasedEngine(ALANINE, TORSIONS, HILLS, 0.0005), conserved=3e-2, steps=20)
    check_engine(BiasedEngine(ALANINE, TORSIONS, WINDOW, 0.0005, None), conserved=3e-2, reverse=reversed_motion, steps=20)


def test_forces_of_the_bias_conserve_energy_with_the_square_of_the_time_step():
    """Strong hills without a bath: energy less the work of adding them fluctuates less by four at half the step."""
    hills = Hills(height=4.0, pace=0.02)
    engine = BiasedEngine(ALANINE, TORSIONS, hills)
    start = engine.step(engine.init(Key.from_seed(2)), 500)
    spread = []
    for dt in (0.002, 0.001):
        _, trace = BiasedEngine(ALANINE, TORSIONS, hills, dt, None).record(start, 1, round(1 / dt))
        spread.append(np.std(trace.potential_energy + trace.bias_energy + trace.kinetic_energy - trace.work))
    assert math.log2(spread[0] / spread[1]) == pytest.approx(2, abs=0.3)
    assert np.ptp(trace.work) > 20 * spread[1]


def test_the_bias_that_is_felt_is_the_sum_of_the_hills():
    engine = BiasedEngine(ALANINE, TORSIONS, HILLS)
    state, trace = engine.record(engine.init(Key.from_seed(3)), 5, 40)
    assert state.hills.shape == (40, 3)
    assert state.hills[0, 2] == HILLS.height
    assert (state.hills[1:, 2] < HILLS.height).all()  # ever lower where hills are
    before = hills_energy(torch.from_numpy(trace.torsions[-1]), state.hills[:-1], HILLS.width)  # the last is not felt yet
    assert trace.bias_energy[-1] == pytest.approx(float(before), abs=1e-4 * float(state.hills[:, 2].sum()))
    height = HILLS.height * math.exp(-trace.bias_energy[-1] / (KT * (HILLS.bias_factor - 1)))
    assert float(state.hills[-1, 2]) == pytest.approx(height)
    assert trace.offset[-1] > 0


def test_a_restraint_pulls_the_shorter_way_round_and_its_work_is_counted():
    engine = BiasedEngine(ALANINE, TORSIONS, WINDOW)
    state = engine.begin(engine.plain.init(Key.from_seed(4)))
    there = engine.pull(state, 2000)
    _, trace = engine.record(there, 10, 100)
    turns = np.array(WINDOW.centres) - trace.torsions
    assert np.abs(np.sin(turns.mean(axis=0))).max() < 0.5  # where the molecule's own forces let it
    energy = restraint_energy(
        torch.from_numpy(trace.torsions[-1]), there.centres, torch.full((2,), 40.0).double(), torch.ones(2, dtype=torch.bool)
    )
    assert trace.bias_energy[-1] == pytest.approx(float(energy))
    total = [engine.conserved(some)["effective_energy"] for some in (state, there)]
    assert total[1] == pytest.approx(total[0], abs=0.05)
    assert abs(there.work) > 1.0  # without it that would be off by work / (54 kT)


def test_a_run_that_cannot_go_on_names_step_atom_and_remedy():
    engine = BiasedEngine(ALANINE, TORSIONS, Unbiased())
    state = engine.init(Key.from_seed(1))
    for bad in (1000.0, math.nan):
        v = state.molecule.velocities.clone()
        v[4] *= bad
        with pytest.raises(TaskError, match=r"Step \d+: (atom 4 \(C of ACE 1\)|the rigid bonds).*Lower `time_step`"):
            engine.step(replace(state, molecule=replace(state.molecule, velocities=v)), 10)
    with pytest.raises(InputError, match="atoms from 0 to 21"):
        BiasedEngine(ALANINE, [(4, 6, 8, 22)], Unbiased())


def test_energies_are_those_of_the_force_field():
    engine = BiasedEngine(ALANINE, TORSIONS, Unbiased())
    x = engine.plain.init(Key.from_seed(1)).positions.numpy()
    forces, found = np.empty_like(x), engine.plain.field.evaluate(x)
    assert evaluate(x, engine.terms, forces) == pytest.approx(found.energy, abs=1e-9)
    assert forces == pytest.approx(found.forces, abs=1e-8)


# --- as a study ------------------------------------------------------------------------------------------------


def study(**method: object) -> Study:
    small = {"equilibration": 0.4, "sample_every": 0.1, "bins": 12, "blocks": 4}
    return Study.model_validate(
        {
            "name": "small",
            "units": MOLECULAR_UNITS,
            "system": {"name": "molecule", "temperature": KT},
            "method": {"name": "biased-dynamics", "torsions": TORSIONS, **small, **method},
            "repeats": 1,
            "measures": [{"name": "free-energy-surface", "cells": 6}],
            "checks": ["conservation", "convergence", {"name": "unbiased", "duration": 10.0, "runs": 1}],
        }
    )


@pytest.mark.parametrize(
    "method",
    [
        {"bias": {"name": "metadynamics", "pace": 0.1, "fill": 10.0}, "duration": 20.0, "segment": 10.0},
        {
            "bias": {"name": "umbrella", "windows": [3, 3], "approach": 0.4, "stiffness": [5.0, 5.0], "most_strain": 20.0},
            "duration": 36.0,
        },
    ],
    ids=["metadynamics", "umbrella"],
)
def test_a_small_study_keeps_what_it_should(method: dict[str, object], evidence: Callable[[Study], Measured]) -> None:
    measured = evidence(study(**method))
    certificate = findings(measured.plan, measured)
    assert {finding.name: finding.verdict for finding in certificate.checks if finding.kind != "reference"} == {
        "conservation of effective energy": Verdict.HOLDS,
        "order in time step": Verdict.HOLDS,
    }
    output = measured.output(measured.plan.realisations[0].measured[0])
    found = output.arrays["populations"]
    assert found.shape == (5, 12, 12)
    assert found.sum(axis=(1, 2)) == pytest.approx(np.ones(5))
    assert 0 < output.document["effective_share"] <= 1
    if "window_errors" in output.arrays:
        assert output.arrays["window_errors"].shape == (9,)


@pytest.mark.parametrize("stage", ["sample", "window"])
def test_an_interrupted_task_ends_with_the_same_bits(stage: str, make_node: Callable[..., sampling_stages.Context]) -> None:
    bias = Metadynamics(pace=0.1, fill=5.0) if stage == "sample" else Umbrella(windows=(3, 3), approach=0.2)
    method = BiasedDynamics(torsions=TORSIONS, bias=bias, duration=99.0, segment=11.0, equilibration=0.2)
    tasks = method.plan(ALANINE, 0, 0)[0]
    state = sampling_stages.equilibrate(tasks[0], {}, make_node())
    run = getattr(sampling_stages, stage)
    task = tasks[1].model_copy(update={"stage": stage})
    whole = run(task, {"state": state}, make_node())
    cut = make_node(patience=1)
    with pytest.raises(InterruptedError):
        run(task, {"state": state}, cut)
    again = run(task, {"state": state}, make_node(cut.kept[-1]))
    assert whole.document == again.document
    assert {name: array.tobytes() for name, array in whole.arrays.items()} == {
        name: array.tobytes() for name, array in again.arrays.items()
    }
    assert len(whole.arrays["hills"]) == (110 if stage == "sample" else 0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"torsions": [(4, 6, 8, 8)]}, "four different atoms"),
        ({"bias": "metadynamic"}, "metadynamics"),
        ({"bias": {"name": "metadynamics", "width": 2.0}}, "less than or equal to 0.8"),
        ({"bias": {"name": "umbrella"}, "duration": 20.0}, "at least 8 samples"),
        ({"sample_every": 0.003}, "whole multiple of time_step"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        BiasedDynamics.model_validate({"torsions": TORSIONS} | change)


def test_a_window_kept_to_one_side_of_a_ridge_is_left_out(make_node: Callable[..., sampling_stages.Context]) -> None:
    """Two wells with a sharp ridge and an easy way round between them, and a window on the ridge that sees one well only.

    With it, the well that it does not see comes out 1.5 kT too high, although all other windows know better.
    """

    def potential(turns: np.ndarray) -> np.ndarray:  # in kT; at its top 180 a radian squared, where restraints have 30
        return 2.0 * np.cos(2 * turns) + 45.0 * np.exp((np.cos(turns) - 1) / 0.25)

    def drawn(centre: float) -> np.ndarray:
        """From a window's distribution; of that on the ridge, what is left of it."""
        nodes = np.linspace(-math.pi, 0.0 if abs(centre) < 1e-9 else math.pi, 8001)
        energy = potential(nodes) + restraint_energies(nodes[:, None], np.array([[centre]]), [30.0], 1.0)[0]
        share = np.cumsum(np.exp(energy.min() - energy))
        return np.interp(generator.uniform(share[0], share[-1], 500), share, nodes)[:, None]

    generator, found = np.random.default_rng(5), {}
    for most in (5.0, 1000.0):
        bias = Umbrella(windows=(16,), stiffness=(30.0 * KT,), most_strain=most)
        method = BiasedDynamics(torsions=TORSIONS[:1], bias=bias, duration=16 * 50.0, bins=24, blocks=4)
        task = method.plan(ALANINE, 0, 0)[1][0]
        series = {"time": np.arange(500.0), "effective_energy": np.zeros(500)}
        parts = {f"part-{n:05d}": Output({"torsions": drawn(*c), **series}, {}) for n, c in enumerate(bias.centres)}
        output = sampling_stages.weigh(task, parts, make_node())
        values = jackknifed(lambda share: free_energy(share[12:].sum(), share[:12].sum(), 1.0), output.arrays["populations"])
        found[most] = output.document["windows_left_out"], abs(values.mean()), values.std(ddof=1) / math.sqrt(4)
    out, apart, error = found[5.0]
    assert 1 <= out <= 5  # the window on the ridge, and some of those that it pushes off
    assert apart < 5 * error + 0.1  # the wells are alike; t of 3 degrees of freedom
    assert error < 0.4
    assert found[1000.0][0] == 0
    assert found[1000.0][1] > 1.0


def test_windows_that_all_strain_are_refused(make_node: Callable[..., sampling_stages.Context]) -> None:
    bias = Umbrella(windows=(3,), stiffness=(30.0 * KT,))
    task = BiasedDynamics(torsions=TORSIONS[:1], bias=bias, duration=99.0).plan(ALANINE, 0, 0)[1][0]
    parts = {f"part-{n}": Output({"torsions": np.full((20, 1), centre + 0.6)}, {}) for n, (centre,) in enumerate(bias.centres)}
    with pytest.raises(TaskError, match=r"more than 5 kT.*larger `stiffness`"):
        sampling_stages.weigh(task, parts, make_node())
