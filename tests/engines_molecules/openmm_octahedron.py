"""What OpenMM makes of the shipped dipeptide and its water in a truncated octahedron, as Amber has them: as JSON.

Run with an interpreter that has OpenMM, to make the recording anew:

    python tests/engines_molecules/openmm_octahedron.py > tests/engines_molecules/openmm-octahedron-8.6.1.json

Water is taken from the shipped rectangular box and its images, as much as is in the octahedron, less what overlaps, and is
relaxed. Everything is computed on OpenMM's CPU platform, in single precision: its Reference platform misses pairs in this box
(its energy changes with a translation, by a thousandth). Bonds are flexible, and stretched.
"""

import json

import numpy as np
from openmm_solvated import FILES, NAME, SEED, SHAKING, evaluate

EDGE, ANGLE = 2.04, 109.4712190  # nm, degrees to as many digits as Amber writes; nothing is closer than with 197 waters
DIPEPTIDE = 22  # atoms
IMAGES = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)


def nearest(apart, cell):
    """The squared lengths [..] of the shortest images of vectors [.., 3]."""
    return ((apart[..., None, :] + IMAGES @ cell) ** 2).sum(-1).min(-1)


def carve(start, rectangular, cell):
    """The dipeptide about the origin, and as many waters as in the file: [atoms, 3]."""
    start = start - start[:DIPEPTIDE].mean(axis=0)
    waters = start[DIPEPTIDE:].reshape(-1, 3, 3)
    everywhere = (waters[None] + (IMAGES @ np.diag(rectangular))[:, None, None]).reshape(-1, 3, 3)
    oxygens = everywhere[:, 0]
    inside = everywhere[(oxygens**2).sum(-1) <= nearest(oxygens, cell) + 1e-12]
    while len(inside) > len(waters):
        apart = nearest(inside[:, None, 0] - inside[None, :, 0], cell) + 9 * np.eye(len(inside))
        solute = nearest(inside[:, None, 0] - start[None, :DIPEPTIDE], cell).min(axis=1)
        inside = np.delete(inside, np.minimum(apart.min(axis=1), solute).argmin(), axis=0)
    if len(inside) < len(waters):
        raise ValueError(f"only {len(inside)} waters in the octahedron: take a larger edge than {EDGE} nm")
    return np.concatenate([start[:DIPEPTIDE], inside.reshape(-1, 3)])


def relaxed(prmtop, cell, positions):
    import openmm
    from openmm import app, unit

    system = prmtop.createSystem(nonbondedMethod=app.PME, nonbondedCutoff=0.8, constraints=None, rigidWater=False)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("CPU"))
    context.setPeriodicBoxVectors(*cell)
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, 100.0, 200)
    return context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)


def main():
    import openmm
    from openmm import app, unit
    from openmm.app.internal.unitcell import computePeriodicBoxVectors

    inpcrd = app.AmberInpcrdFile(str(FILES / f"{NAME}.inpcrd"))
    start = inpcrd.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    rectangular = np.array([max(vector.value_in_unit(unit.nanometer)) for vector in inpcrd.getBoxVectors()])
    vectors = computePeriodicBoxVectors(*[EDGE] * 3, *[np.radians(ANGLE)] * 3)
    cell = np.array(vectors.value_in_unit(unit.nanometer))
    prmtop = app.AmberPrmtopFile(str(FILES / f"{NAME}.prmtop"), periodicBoxVectors=vectors)
    at_rest = relaxed(prmtop, cell, carve(start, rectangular, cell))
    shaken = at_rest + np.random.Generator(np.random.Philox(key=SEED)).normal(scale=SHAKING, size=start.shape)
    digits = np.rint(1e4 * shaken).astype(int)
    found = {method: evaluate(prmtop, cell, digits / 1e4, method, "CPU") for method in ("PME", "CutoffPeriodic")}
    told = {"openmm": openmm.version.full_version, "box": [EDGE] * 3 + [ANGLE] * 3, "positions": digits.ravel().tolist()}
    print(json.dumps(told | found))


if __name__ == "__main__":
    main()
