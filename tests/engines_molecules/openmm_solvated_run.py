"""The shipped dipeptide in water at 300 K and 1 bar by OpenMM: density, and how often psi is where, to compare a study with.

Run with an interpreter that has OpenMM and manybody; a picosecond takes about a second:

    python tests/engines_molecules/openmm_solvated_run.py 300 > solvated.json
"""

import json
import sys

import numpy as np

from manybody.engines.molecules.conformations import torsion_angles
from manybody.engines.molecules.observables import GRAMS
from manybody.engines.molecules.spec import FILES
from manybody.numerics.statistics import block_error

NAME, PSI = "alanine-dipeptide-tip3p", (6, 8, 14, 16)
TEMPERATURE, SETTLING, FRAME = 300.0, 20, 50  # K, ps, steps of 2 fs
# of psi, degrees
RANGES = {"hydrogen-bonded": (30, 105), "extended": (105, -150), "beyond 150": (150, -150), "helical": (-90, 30)}


def simulation():
    import openmm
    from openmm import app

    inpcrd = app.AmberInpcrdFile(str(FILES / f"{NAME}.inpcrd"))
    prmtop = app.AmberPrmtopFile(str(FILES / f"{NAME}.prmtop"), periodicBoxVectors=inpcrd.getBoxVectors())
    system = prmtop.createSystem(
        nonbondedMethod=app.PME, nonbondedCutoff=0.8, switchDistance=0.7, constraints=app.HBonds, rigidWater=True,
        ewaldErrorTolerance=1e-4,
    )  # fmt: skip
    for residue in prmtop.topology.residues():  # as the angle is a term in this file, OpenMM would leave it flexible
        if residue.name == "HOH":
            _, *ends = (atom.index for atom in residue.atoms())
            system.addConstraint(*ends, 2 * 0.09572 * np.sin(np.radians(104.52) / 2))
    system.addForce(openmm.MonteCarloBarostat(1.0, TEMPERATURE, 20))
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 2.0, 0.002)
    made = app.Simulation(prmtop.topology, system, integrator, openmm.Platform.getPlatformByName("CPU"))
    made.context.setPositions(inpcrd.getPositions())
    made.context.setVelocitiesToTemperature(TEMPERATURE, 1)
    mass = sum(system.getParticleMass(atom)._value for atom in range(system.getNumParticles()))
    return made, mass


def estimate(values):
    values = np.array(values, dtype=np.float64)
    return float(values.mean()), float(block_error([values - values.mean()]).error)


def main(duration):
    import openmm
    from openmm import unit

    run, mass = simulation()
    run.step(round(SETTLING / 0.002))
    density, angles = [], []
    for _ in range(round(duration / (FRAME * 0.002))):
        run.step(FRAME)
        state = run.context.getState(positions=True)
        density.append(GRAMS * mass / state.getPeriodicBoxVolume().value_in_unit(unit.nanometer**3))
        x = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        angles.append(torsion_angles(x[None], PSI)[0])
    beyond = {name: (np.array(angles) - begin) % 360 < (end - begin) % 360 for name, (begin, end) in RANGES.items()}
    told = {name: estimate(values) for name, values in {"mass-density": density, **beyond}.items() if np.std(values) > 0}
    print(json.dumps(told | {"openmm": openmm.__version__}))


if __name__ == "__main__":
    main(float(sys.argv[1]))
