"""Study files ask for constant pressure and for chains: documents, refusals, tasks and their checkpoints, crystals, gases."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from manybody.core.protocols import Conserved
from manybody.core.random import Key
from manybody.core.study import Point, Realisation
from manybody.core.task import Output
from manybody.engines.particles import stages
from manybody.engines.particles.engine import LiquidEngine
from manybody.engines.particles.extended import ExtendedEngine
from manybody.engines.particles.fluids import SimpleFluid
from manybody.engines.particles.known_answers import inverse_power_second_virial, second_virial
from manybody.engines.particles.spec import LennardJonesLiquid, MolecularDynamics
from manybody.engines.particles.volume_moves import VolumeMoveEngine
from manybody.store.encoding import decode, encode
from manybody.testing.node import LocalNode

LIQUID = LennardJonesLiquid(temperature=0.9, density=0.7, atoms=108, cutoff=2.3)
CRYSTAL = LennardJonesLiquid(temperature=0.4, density=1.02, atoms=108, cutoff=2.0)
SHORT = {"equilibration": 1.0, "duration": 0.8, "segment": 0.4, "sample_every": 0.04, "frame_every": 0.2}
PISTON = {"thermostat": "nose-hoover", "barostat": "martyna-tobias-klein"}
ENSEMBLES = {
    "trials": (LIQUID, {"pressure": 0.8}),
    "trials with noise": (LIQUID, {"pressure": 0.8, "thermostat": "langevin"}),
    "constant enthalpy": (LIQUID, {"pressure": 0.8, "thermostat": "none"}),
    "chains": (LIQUID, {"thermostat": "nose-hoover"}),
    "piston": (LIQUID, {"pressure": 0.8, **PISTON}),
    "trials of edges": (CRYSTAL, {"pressure": 1.0, "coupling": "anisotropic", "start": "crystal"}),
    "pistons at edges": (CRYSTAL, {"pressure": 1.0, "coupling": "anisotropic", "start": "crystal", **PISTON}),
}


def computed(system, method, seed=1):
    """The tasks of a realisation, what they gave, and their nodes."""
    done: dict[str, Output] = {}
    nodes = []
    tasks, measured = method.plan(system, seed=seed, repeat=0)
    for task in tasks:
        node = LocalNode()
        done[task.digest] = getattr(stages, task.stage)(task, {name: done[digest] for name, digest in task.inputs.items()}, node)
        nodes.append(node)
    return tasks, measured, done, nodes


def test_what_is_not_made_use_of_is_no_part_of_a_document():
    """So a task keeps its digest, and its result, when settings are added that it does not use."""
    assert not {"pressure", "barostat", "exchange_every", "start"} & set(MolecularDynamics().document())
    trials = MolecularDynamics(pressure=0.5).document()
    assert trials["pressure"] == 0.5
    assert "barostat_time" not in trials
    assert MolecularDynamics(pressure=0.5, **PISTON).document()["barostat_time"] == 1.0
    for _, given in ENSEMBLES.values():
        method = MolecularDynamics(**given)
        assert MolecularDynamics.model_validate(method.document()) == method


@pytest.mark.parametrize(
    ("given", "field", "remedy"),
    [
        ({"barostat": "martyna-tobias-klein"}, "pressure", "Give `pressure`, or leave `barostat` out"),
        ({"coupling": "anisotropic"}, "pressure", "Give `pressure`"),
        ({"pressure": 1.0, "barostat": "martyna-tobias-klein"}, "thermostat", "Take it, or `barostat: monte-carlo`"),
        ({"pressure": 1.0, "thermostat": "nose-hoover"}, "thermostat", "or `barostat: martyna-tobias-klein`"),
        ({"pressure": 1.0, "coupling": "anisotropic"}, "coupling", "`start: crystal`"),
        ({"pressure": 1.0, "exchange_every": 0.032}, "sample_every", "whole multiple of exchange_every"),
        ({"thermostat": "nose-hoover", "exchange_every": 0.006}, "exchange_every", "whole multiple of time_step"),
    ],
)
def test_impossible_methods_are_refused_with_a_remedy(given, field, remedy):
    with pytest.raises(ValidationError) as caught:
        MolecularDynamics(**given)
    (error,) = caught.value.errors()
    assert error["ctx"]["field"] == field
    assert remedy in error["msg"]


@pytest.mark.parametrize(
    ("system", "given", "remedy"),
    [
        ({"atoms": 125, "cutoff": 2.8}, {"pressure": 1.0}, "Lower the cutoff, or take at least 144 atoms"),
        ({"atoms": 120, "cutoff": 2.3}, {"start": "crystal"}, "Take 108"),
    ],
)
def test_impossible_systems_are_refused_with_a_remedy(system, given, remedy):
    with pytest.raises(PydanticCustomError, match=remedy):
        MolecularDynamics(**given).suits(LennardJonesLiquid(temperature=0.9, density=0.7, **system))


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_tasks_go_on_from_their_checkpoints_and_from_one_another(ensemble):
    """From any checkpoint to the same bits. What is conserved goes on from segment to segment, baths and pistons included."""
    system, given = ENSEMBLES[ensemble]
    method = MolecularDynamics(**given, **SHORT)
    tasks, measured, done, nodes = computed(system, method)
    for task, node in zip(tasks, nodes, strict=True):
        assert len(node.kept) == round(task.parameters["time"] / 0.2)
        inputs = {name: done[digest] for name, digest in task.inputs.items()}
        left = LocalNode(left=decode(encode(node.kept[len(node.kept) // 2 - 1])))
        assert encode(getattr(stages, task.stage)(task, inputs, left)) == encode(done[task.digest])
    first, second = (done[task.digest].arrays for task in measured)
    assert first["frames"].shape == (2, 108, 3)
    if method.pressure is not None:
        assert first["edges"].shape == (10, 3)
        np.testing.assert_allclose(first["volume"], first["edges"].prod(axis=1))
        assert first["frame_edges"].shape == (2, 3)
        assert np.ptp(first["volume"]) > 0
        spread = np.ptp(first["edges"] / first["edges"][:, :1], axis=1).max()
        assert (spread > 1e-4) == (method.coupling == "anisotropic")
    if method.thermostat == "nose-hoover":
        claim = method.conserves(system)[0]
        assert isinstance(claim, Conserved)
        # Within the error of the outer step, kT a degree of freedom; a chain that began anew would lose the heat in its xi.
        assert abs(second[claim.series][0] - first[claim.series][-1]) < 3e-3
        assert abs(first["chain"][0, 0]) > 1e-2


# Forces that end at the cutoff kick each pair that crosses it, an error of first order: chains need an end without.
VANISHING = {"name": "formula", "expression": "5*(1 - r**2/4)**4"}
SMOOTH = SimpleFluid(temperature=0.9, density=0.7, atoms=108, cutoff=2.0, treatment="plain", potential=VANISHING)
CHAINS = {"thermostat": "nose-hoover"}


@pytest.mark.parametrize(("system", "given"), [(SMOOTH, CHAINS), (LIQUID, {"pressure": 0.8, **PISTON})], ids=["chains", "piston"])
def test_twins_converge_to_second_order(system, given):
    """The extended energy, with every action of chains and piston at half its interval, too. One run scatters by 0.2: six do."""
    method = MolecularDynamics(**given, **SHORT | {"equilibration": 4.0})
    orders = []
    for seed in range(6):
        tasks, measured, done, _ = computed(system, method, seed)
        run = Realisation(Point(0, "", system, method), 0, tasks, measured)
        found = []
        for factor in (1.0, 0.5):
            twin = method.twin(run, factor)
            assert twin.parameters["exchange_every"] == pytest.approx(0.04 * factor)
            found.append(stages.conserve(twin, {"state": done[tasks[-1].digest]}, LocalNode()).document["energy_fluctuation"])
        orders.append(math.log2(found[0] / found[1]))
    assert np.mean(orders) == pytest.approx(2.0, abs=0.3)


def block_error(values, blocks=20):
    means = values[: len(values) // blocks * blocks].reshape(blocks, -1).mean(axis=1)
    return float(means.std(ddof=1) / math.sqrt(blocks))


def test_a_strained_crystal_relaxes_to_equal_stresses():
    """A crystal 2 % too long in x and 2 % too short in z: at last all edges are as long, and all normal pressures that kept."""
    liquid = LiquidEngine(CRYSTAL, 0.004, "bussi", 0.1)
    start = liquid.step(liquid.init(Key.from_seed(8)), 500)
    by = torch.tensor([1.02, 1.0, 0.98], dtype=torch.float64)
    strained = replace(start, positions=start.positions * by, box=start.box * by)
    engine = ExtendedEngine(CRYSTAL, 1.0, 0.004, 0.2, 0.8, coupling="anisotropic")
    state, edges, pressures = engine.adopt(strained), [], []
    tail = engine.tail * CRYSTAL.atoms**2
    first = normal_pressures(state, tail)
    assert np.abs(first - 1.0).max() > 1.0
    for cycle in range(600):
        state = engine.step(state)
        if cycle >= 150:
            edges.append(state.particles.box.numpy())
            pressures.append(normal_pressures(state, tail))
    lengths, found = np.array(edges), np.array(pressures)
    for a, b in ((0, 1), (0, 2)):
        apart = lengths[:, a] - lengths[:, b]
        assert block_error(apart) < 0.02
        assert abs(apart.mean()) < 4 * block_error(apart)
    for axis in range(3):
        # less kT / V for the centre of mass, 0.004: the volume has V^(N-1)
        assert abs(found[:, axis].mean() - 1.0) < 4 * block_error(found[:, axis]) + 0.005
        assert block_error(found[:, axis]) < 0.1


def normal_pressures(state, tail):
    """(2 K_a + virial_a) / V, with the tail."""
    volume = float(state.particles.box.prod())
    kinetic = 0.5 * (state.particles.velocities**2).sum(dim=0).numpy()
    return (2 * kinetic + state.sums.virial) / volume + tail / volume**2


SPHERES = {"name": "formula", "expression": "30*r2**-6"}


@pytest.mark.parametrize(
    ("gas", "virial"),
    [
        (LennardJonesLiquid(temperature=2.0, density=0.002, atoms=32, cutoff=3.0), second_virial(2.0)),
        (
            SimpleFluid(temperature=2.0, density=0.002, atoms=32, cutoff=3.0, potential=SPHERES),
            inverse_power_second_virial(12, 2.0 / 30),
        ),
    ],
    ids=["lennard-jones", "spheres"],
)
def test_a_thin_gas_has_the_volume_of_an_ideal_one(gas, virial):
    """Gamma distributed of shape N + 1, and moved by the second virial coefficient: <V> = (N + 1) kT / P + N B2."""
    moves = VolumeMoveEngine(gas, 0.004, 0.01, "bussi", size=0.3, stride=4)
    state, _ = moves.record(moves.init(Key.from_seed(5)), 100)
    _, trace = moves.record(state, 3000)
    volumes, unit = trace.box.prod(axis=1), 2.0 / 0.004
    error = block_error(volumes)
    assert error < 0.03 * 33 * unit
    assert abs(volumes.mean() - (33 * unit + 32 * virial)) < 4 * error
    squares = (volumes - volumes.mean()) ** 2
    assert abs(squares.mean() - 33 * unit**2) < 4 * block_error(squares)
