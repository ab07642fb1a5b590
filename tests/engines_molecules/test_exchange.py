"""Replica exchange: every rung keeps its own distribution, swaps happen as often as theory says, and plans are exact."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import parmed
import pytest
from scipy.integrate import cumulative_trapezoid
from scipy.stats import gamma, kstest

from manybody.core.certificate import Verdict
from manybody.core.random import Key
from manybody.core.study import Study
from manybody.core.task import Output, Task
from manybody.engines.molecules.conformations import torsion_angles
from manybody.engines.molecules.exchange import acceptance, ladder, partner, swaps
from manybody.engines.molecules.known_answers import harmonic_acceptance
from manybody.engines.molecules.replicas import ReplicaExchange
from manybody.engines.molecules.spec import KELVIN, MOLECULAR_UNITS, Molecule
from manybody.study.certify import findings
from manybody.study.expand import expand
from manybody.study.measure import Measured

FREEDOM, ROUNDS, MEMORY = 10, 2500, 0.8


def exchanged(rule=swaps):
    """Energies [rounds, rungs] of oscillators that move a little and then swap, and the mean probabilities [rungs - 1]."""
    temperatures = np.array(ladder(1.0, 4.0, 4))
    generator = Key.from_seed(8).generator()
    x = np.sqrt(temperatures)[:, None] * generator.standard_normal((4, FREEDOM))
    energies, tried = [], []
    for turn in range(ROUNDS):
        noise = generator.standard_normal(x.shape)
        x = MEMORY * x + np.sqrt((1 - MEMORY**2) * temperatures)[:, None] * noise  # exact at each temperature, with memory
        source, probabilities = rule(turn, (0.5 * (x**2).sum(axis=1)).tolist(), temperatures.tolist(), Key.from_seed(9, turn))
        x = x[source]
        energies.append(0.5 * (x**2).sum(axis=1))
        tried.append(probabilities)
    return np.array(energies), np.mean(tried, axis=0, where=np.array(tried) >= 0)


def test_oscillators_keep_their_distribution_on_every_rung_and_swap_as_often_as_theory_says():
    temperatures = ladder(1.0, 4.0, 4)
    energies, often = exchanged()
    for rung, kT in enumerate(temperatures):
        assert kstest(energies[::15, rung], gamma(FREEDOM / 2, scale=kT).cdf).pvalue > 1e-3
    exact = [harmonic_acceptance(FREEDOM, *pair) for pair in pairwise(temperatures)]
    assert 0.4 < exact[0] < 0.5
    # a probability spreads by at most a half; half the rounds try a pair, and memory of ten rounds is generous
    assert often == pytest.approx(exact, abs=4 * 0.5 / np.sqrt(ROUNDS / 2 / 10))


def test_a_wrong_rule_is_seen():
    """Swaps that are always accepted, or by the wrong sign, do not leave the distributions alone."""

    def always(turn, energies, temperatures, key):
        return swaps(turn, [0.0] * len(energies), temperatures, key)

    def wrong(turn, energies, temperatures, key):
        return swaps(turn, [-energy for energy in energies], temperatures, key)

    for rule in (always, wrong):
        energies, _ = exchanged(rule)
        assert kstest(energies[::15, 0], gamma(FREEDOM / 2, scale=1.0).cdf).pvalue < 1e-6


def test_swaps_pair_neighbours_in_turn():
    for replicas in (2, 3, 4, 7):
        for turn in (0, 1):
            others = [partner(rung, replicas, turn) for rung in range(replicas)]
            assert [others[other] for other in others] == list(range(replicas))
            source, probabilities = swaps(turn, [0.0] * replicas, ladder(1.0, 2.0, replicas), Key.from_seed(1))
            assert source.tolist() == others  # equal energies always swap
            assert (probabilities >= 0).tolist() == [others[rung] == rung + 1 for rung in range(replicas - 1)]
    assert acceptance(3.0, 1.0, 1.0, 2.0) == 1.0  # the cold one has the higher energy
    assert acceptance(1.0, 3.0, 1.0, 2.0) == pytest.approx(np.exp(-1))


@pytest.mark.parametrize(("freedom", "hot"), [(1, 2.0), (6, 1.5), (60, 1.1)])
def test_the_closed_form_of_harmonic_swaps_is_the_mean(freedom, hot):
    generator = np.random.default_rng(3)
    cold, warm = generator.gamma(freedom / 2, 1.0, 40_000), generator.gamma(freedom / 2, hot, 40_000)
    sampled = np.exp(np.minimum(0.0, (1 - 1 / hot) * (cold - warm)))
    assert harmonic_acceptance(freedom, 1.0, hot) == pytest.approx(sampled.mean(), abs=4 * sampled.std() / 200)


# --- whole plans -----------------------------------------------------------------------------------------------


@pytest.fixture
def springs(tmp_path, monkeypatch):
    """Sixteen pairs of atoms on springs that do not feel each other, as Amber's files.

    Without the date that ParmEd writes into one, and named without a folder: so tasks, and their chance, are always the same.
    """
    structure, kind = parmed.Structure(), parmed.AtomType("X", None, 12.0, 6)
    kind.set_lj_params(0.0, 1.0)
    for number in range(16):
        for name in ("A", "B"):
            atom = parmed.Atom(name=name, type="X", atomic_number=6, mass=12.0, charge=0.0)
            atom.atom_type = kind
            structure.add_atom(atom, "PAR", number)
        structure.bonds.append(parmed.Bond(*structure.atoms[-2:]))
        structure.bond_types.append(parmed.BondType(2.0, 1.5))  # k / kcal/mol/A^2 without the half, angstrom
        structure.bonds[-1].type = structure.bond_types[-1]
    structure.bond_types.claim()
    apart = np.arange(16)[:, None, None] * [20.0, 0, 0] + np.array([[0.0, 0, 0], [1.5, 0, 0]])
    structure.coordinates = apart.reshape(-1, 3)
    monkeypatch.chdir(tmp_path)
    structure.save("springs.prmtop")
    structure.save("springs.inpcrd", format="rst7")
    dated, rest = Path("springs.prmtop").read_text().split("\n", 1)
    Path("springs.prmtop").write_text(dated.split("DATE")[0] + "DATE = 11/21/26  00:00:00\n" + rest)
    return Molecule(temperature=300 * KELVIN, topology="springs.prmtop", coordinates="springs.inpcrd", rigid="none")


def study_of(system, measures, checks, **method):
    shared = {"name": "replica-exchange", "thermostat": "langevin", "time_step": 0.001, "sample_every": 0.01}
    return Study.model_validate(
        {
            "name": "replicas", "units": MOLECULAR_UNITS, "system": system, "method": shared | method, "measures": measures,
            "checks": checks,
        }
    )  # fmt: skip


def test_springs_keep_their_lengths_at_every_temperature(springs, evidence: Callable[[Study], Measured]):
    """p(r) = r^2 exp(-k (r - r0)^2 / 2 kT) on every rung, through tasks, files and all; and the swaps are those of springs."""
    study = study_of(
        springs, ["molecular-energy", "exchange-acceptance"], ["conservation"], replicas=3, highest=900 * KELVIN, round=0.2,
        thermostat_time=0.05, equilibration=0.5, duration=4.0, frame_every=0.1,
    )  # fmt: skip
    measured = evidence(study)
    tasks = {task.digest: task for task in measured.plan.tasks}
    legs = [task for task in tasks.values() if task.stage == "replicate"]
    assert {finding.verdict for finding in findings(measured.plan, measured).checks} == {Verdict.HOLDS}
    r, stiffness = np.linspace(0.0, 0.4, 4001), 2 * 2.0 * 418.4
    for rung, kT in enumerate(ladder(300 * KELVIN, 900 * KELVIN, 3)):
        frames = np.concatenate([measured.output(task).arrays["frames"][-1:] for task in legs if task.parameters["rung"] == rung])
        lengths = np.linalg.norm(frames[:, 1::2].astype(float) - frames[:, ::2], axis=2)
        density = r**2 * np.exp(-0.5 * stiffness * (r - 0.15) ** 2 / kT)
        exact = cumulative_trapezoid(density, r, initial=0.0)
        exact /= exact[-1]
        assert kstest(lengths.ravel(), lambda q, exact=exact: np.interp(q, r, exact)).pvalue > 1e-3
    for task in tasks.values():  # a node gives away nothing that is no number
        assert all(np.isfinite(array).all() for array in measured.output(task).arrays.values())
    places = {(task.parameters["rung"], int(measured.output(task).document["walker"])) for task in legs}
    often = measured.estimate(measured.plan.points[0], "exchange-acceptance")
    assert often.axis.tolist() == [0.0, 1.0]
    assert ((often.value > 0.02) & (often.value < 0.8)).all()  # a quarter, but of ten swaps
    assert len(places) > 3  # some walkers have been on other rungs than their own


def test_a_swapped_replica_goes_on_from_its_partners_state(springs, evidence: Callable[[Study], Measured], make_node):
    """To the bit; and a task repeated gives the same bits, another key other swaps."""
    study = study_of(
        springs, ["molecular-energy"], ["conservation"], replicas=2, highest=330 * KELVIN, round=0.02, equilibration=0.1,
        duration=0.12, frame_every=0.02,
    )  # fmt: skip
    measured = evidence(study)
    tasks = {task.digest: task for task in measured.plan.tasks}
    moved = 0
    for task in tasks.values():
        if "exchange" not in task.inputs:
            continue
        rung, inputs = task.parameters["rung"], {name: measured.output(tasks[digest]) for name, digest in task.inputs.items()}
        again = run(study, task, inputs, make_node())
        assert again.arrays["positions"].tobytes() == measured.output(task).arrays["positions"].tobytes()
        came = int(inputs["exchange"].arrays["source"][rung])
        moved += came != rung
        begin = inputs["state" if came == rung else "partner"]
        assert measured.output(task).document["walker"] == begin.document.get("walker", came)
        stayed = dict(inputs) | {"exchange": Output({**inputs["exchange"].arrays, "source": np.arange(2)})}
        other = run(study, task, stayed, make_node()).arrays["positions"]
        assert (came == rung) == (other.tobytes() == again.arrays["positions"].tobytes())
    assert moved > 0


def run(study: Study, task: Task, inputs: dict[str, Output], node) -> Output:
    module, _, name = study.method.stages[task.stage].partition(":")
    found: Output = getattr(import_module(module), name)(task, inputs, node)
    return found


def test_one_replica_is_a_plain_run():
    study = study_of(
        Molecule(temperature=300 * KELVIN),
        [{"name": "torsion-population", "atoms": (4, 6, 8, 14)}, "exchange-acceptance"],
        ["conservation"],
        replicas=1, highest=600 * KELVIN, round=2.0, duration=10.0,
    )  # fmt: skip
    plan = expand(study)
    assert [task.stage for task in plan.tasks] == ["equilibrate"] + 5 * ["replicate"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"highest": 200 * KELVIN}, "more than the system's temperature"), ({"round": 0.7}, "whole multiple of frame_every")],
)
def test_a_ladder_that_cannot_be_is_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        ReplicaExchange(**({"highest": 600 * KELVIN} | changes)).suits(Molecule(temperature=300 * KELVIN))


def test_a_torsion_is_measured_with_its_sign():
    turn = np.radians(-60)
    frame = np.array([[[1, 0, 0], [0, 0, 0], [0, 0, 1], [np.cos(turn), np.sin(turn), 1.0]]])
    assert torsion_angles(frame, (0, 1, 2, 3)) == pytest.approx([-60])
    assert torsion_angles(frame, (3, 2, 1, 0)) == pytest.approx([-60])
    mirrored = frame * [1, -1, 1]
    assert torsion_angles(mirrored, (0, 1, 2, 3)) == pytest.approx([60])
