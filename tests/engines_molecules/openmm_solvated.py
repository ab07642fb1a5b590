"""What OpenMM makes of the shipped dipeptide in water: energy and forces with Ewald and with a reaction field, as JSON.

Run with an interpreter that has OpenMM, to make the recording anew:

    python tests/engines_molecules/openmm_solvated.py > tests/engines_molecules/openmm-solvated-8.6.1.json

Everything is computed on OpenMM's Reference platform, in double precision. Bonds are flexible, and stretched.
"""

import json
from pathlib import Path

import numpy as np

FILES = Path(__file__).parents[2] / "src/manybody/engines/molecules/files"
NAME, SEED, SHAKING = "alanine-dipeptide-tip3p", 20261121, 0.004  # nm
CUTOFF, SWITCH, PERMITTIVITY, EWALD_TOLERANCE = 0.8, 0.7, 78.3, 1e-11
MESH = 5.0, 120, 120, 120  # splitting parameter, 1/nm, and mesh of "PME"


def evaluate(prmtop, cell, positions, method, platform="Reference"):
    import openmm
    from openmm import app, unit

    system = prmtop.createSystem(
        nonbondedMethod=getattr(app, method), nonbondedCutoff=CUTOFF, constraints=None, rigidWater=False,
        removeCMMotion=False, switchDistance=SWITCH, ewaldErrorTolerance=EWALD_TOLERANCE,
    )  # fmt: skip
    for force in system.getForces():
        if isinstance(force, openmm.NonbondedForce):
            force.setUseDispersionCorrection(False)
            force.setReactionFieldDielectric(PERMITTIVITY)
            force.setPMEParameters(*MESH)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform))
    context.setPeriodicBoxVectors(*cell)
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    return {"energy": energy, "forces": np.round(forces, 4).ravel().tolist()}


def main():
    import openmm
    from openmm import app, unit

    inpcrd = app.AmberInpcrdFile(str(FILES / f"{NAME}.inpcrd"))
    start = inpcrd.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    box = np.array([max(vector.value_in_unit(unit.nanometer)) for vector in inpcrd.getBoxVectors()])
    prmtop = app.AmberPrmtopFile(str(FILES / f"{NAME}.prmtop"), periodicBoxVectors=inpcrd.getBoxVectors())
    shaken = start + np.random.Generator(np.random.Philox(key=SEED)).normal(scale=SHAKING, size=start.shape)
    digits = np.rint(1e4 * shaken).astype(int)
    found = {method: evaluate(prmtop, np.diag(box), digits / 1e4, method) for method in ("Ewald", "CutoffPeriodic")}
    print(json.dumps({"openmm": openmm.version.full_version, "box": box.tolist(), "positions": digits.ravel().tolist()} | found))


if __name__ == "__main__":
    main()
