"""Put the shipped alanine dipeptide into a rectangular box of TIP3P water, at rest with each other at 300 K and 1 bar.

Run with an interpreter that has OpenMM and ParmEd, to make the shipped files anew in the folder named:

    python tests/engines_molecules/build_solvated_dipeptide.py FOLDER
"""

import sys
from pathlib import Path

FILES = Path(__file__).parents[2] / "src/manybody/engines/molecules/files"
NAME, BOX = "alanine-dipeptide-tip3p", (1.84, 1.92, 2.0)  # nm; waters overlap with nothing, and then the box gives way
TEMPERATURE, SETTLING = 300.0, 50_000  # K, steps of 2 fs
SEED = 20261121


def main(folder):
    import openmm
    import parmed
    from openmm import app, unit

    alone = parmed.load_file(str(FILES / "alanine-dipeptide.prmtop"), str(FILES / "alanine-dipeptide.inpcrd"))
    field = app.ForceField("amber14/protein.ff14SB.xml", "amber14/tip3p.xml")
    model = app.Modeller(alone.topology, alone.positions)
    model.addSolvent(field, model="tip3p", boxSize=openmm.Vec3(*BOX) * unit.nanometer, neutralize=False)
    shared = {"nonbondedMethod": app.PME, "nonbondedCutoff": 0.8 * unit.nanometer, "removeCMMotion": False}
    rigid = field.createSystem(model.topology, constraints=app.HBonds, **shared)
    barostat = openmm.MonteCarloBarostat(1.0, TEMPERATURE, 25)
    barostat.setRandomNumberSeed(SEED)
    rigid.addForce(barostat)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1.0, 0.002)
    integrator.setRandomNumberSeed(SEED)
    simulation = app.Simulation(model.topology, rigid, integrator, openmm.Platform.getPlatformByName("CPU"))
    simulation.context.setPositions(model.positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, SEED)
    simulation.step(SETTLING)
    state = simulation.context.getState(positions=True, enforcePeriodicBox=True)
    model.topology.setPeriodicBoxVectors(state.getPeriodicBoxVectors())
    flexible = field.createSystem(model.topology, constraints=None, rigidWater=False, **shared)
    structure = parmed.openmm.load_topology(model.topology, flexible, xyz=state.getPositions(), box=None)
    structure.box = [*(edge.value_in_unit(unit.angstrom) for edge in map(_length, state.getPeriodicBoxVectors())), 90, 90, 90]
    structure.save(str(folder / f"{NAME}.prmtop"), overwrite=True)
    structure.save(str(folder / f"{NAME}.inpcrd"), format="rst7", overwrite=True)


def _length(vector):
    return max(vector, key=abs)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
