"""SPC/E water at 300 K and 1 bar by OpenMM: its density and the first maximum of g_OO, as JSON, to compare a study with.

Run with an interpreter that has OpenMM and manybody; it takes some minutes:

    python tests/engines_molecules/openmm_water.py 150 > water.json
"""

import json
import sys

import numpy as np

from manybody.core.random import Key
from manybody.engines.molecules.engine import MoleculeEngine
from manybody.engines.molecules.observables import GRAMS, WIDTH, first_maximum
from manybody.engines.molecules.spec import HYDROGEN_MASS, KELVIN, OXYGEN_MASS, WATER_MASS, WaterBox
from manybody.numerics.histogram import pair_distances
from manybody.numerics.statistics import block_error

TEMPERATURE, SETTLING, FRAME, A_FIT = 300.0, 20, 50, 40  # K, ps, steps of 2 fs, frames


def water(molecules, edge):
    import openmm

    system, force = openmm.System(), openmm.NonbondedForce()
    system.setDefaultPeriodicBoxVectors(*(edge * np.eye(3)))
    base = 2 * 0.1 * np.sin(np.radians(109.47) / 2)
    for molecule in range(molecules):
        first = 3 * molecule
        for mass, charge, epsilon in ((OXYGEN_MASS, -0.8476, 0.65), *[(HYDROGEN_MASS, 0.4238, 0.0)] * 2):
            system.addParticle(mass)
            force.addParticle(charge, 0.3166, epsilon)
        for i, j, length in ((0, 1, 0.1), (0, 2, 0.1), (1, 2, base)):
            system.addConstraint(first + i, first + j, length)
            force.addException(first + i, first + j, 0, 1, 0)
    force.setNonbondedMethod(openmm.NonbondedForce.PME)
    force.setCutoffDistance(0.9)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(0.8)
    force.setUseDispersionCorrection(True)
    force.setEwaldErrorTolerance(1e-4)
    system.addForce(force)
    system.addForce(openmm.MonteCarloBarostat(1.0, TEMPERATURE, 25))
    return system


def estimate(values):
    values = np.array(values)
    return float(values.mean()), float(block_error([values - values.mean()]).error)


def main(duration):
    import openmm
    from openmm import unit

    box = WaterBox(temperature=TEMPERATURE * KELVIN, molecules=216, cutoff=0.9)
    engine = MoleculeEngine(box, 0.002, "langevin", 0.1)
    start = engine.step(engine.init(Key.from_seed(1)), 500).positions.numpy()
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 2.0, 0.002)
    context = openmm.Context(water(box.molecules, box.box), integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(start)
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    integrator.step(round(SETTLING / 0.002))
    edges, density, curves = np.arange(0.0, 0.4, WIDTH), [], []
    for _ in range(round(duration / (FRAME * 0.002))):
        integrator.step(FRAME)
        state = context.getState(getPositions=True)
        edge = float(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)[0, 0])
        x = np.ascontiguousarray(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)[None, ::3])
        ideal = box.molecules * (box.molecules - 1) / edge**3 * 4 / 3 * np.pi * np.diff(edges**3)
        curves.append(pair_distances(x, edge, float(edges[-1]), len(edges) - 1)[0] / ideal)
        density.append(GRAMS * box.molecules * WATER_MASS / edge**3)
    far = edges[:-1] >= 0.2 - 1e-9
    fits = np.array_split(np.array(curves), max(2, len(curves) // A_FIT))
    tops = np.array([first_maximum(edges[:-1][far] + WIDTH / 2, fit.mean(axis=0)[far]) for fit in fits])
    told = {"mass-density": density, "oxygen-peak-position": tops[:, 0], "oxygen-peak-height": tops[:, 1]}
    print(json.dumps({name: estimate(values) for name, values in told.items()} | {"openmm": openmm.__version__}))


if __name__ == "__main__":
    main(float(sys.argv[1]))
