"""What OpenMM makes of `all-terms.top`, and of bonds that no such file has, as JSON.

Run with an interpreter that has OpenMM, to make the recording anew:

    python tests/engines_molecules/openmm_terms.py > tests/engines_molecules/openmm-terms-8.6.1.json

Everything is computed on OpenMM's Reference platform, in double precision; OpenMM reads the topology itself.
"""

import copy
import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
FORMULAS = {
    "morse-bond": ("depth*(1-exp(-a*(r-r0)))^2", {"depth": 350.0, "a": 18.0, "r0": 0.14}),
    "fene-bond": ("-0.5*k*longest^2*log(1-(r/longest)^2)", {"k": 30.0, "longest": 0.3}),
}


def evaluate(system, positions):
    """Energy, kJ/mol, and forces [atoms, 3], kJ/(mol nm)."""
    import openmm
    import openmm.unit as unit

    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    state = context.getState(getEnergy=True, getForces=True)
    per_nm = unit.kilojoule_per_mole / unit.nanometer
    forces = state.getForces(asNumpy=True).value_in_unit(per_nm)
    return {"energy": state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole), "forces": forces.tolist()}


def only(system, kept):
    """A copy of a system with the force of one index alone."""
    found = copy.deepcopy(system)
    for index in reversed(range(found.getNumForces())):
        if index != kept:
            found.removeForce(index)
    return found


def bonds(formula, values, atoms):
    """A chain of bonds by a formula."""
    import openmm

    system, force = openmm.System(), openmm.CustomBondForce(formula)
    for name in values:
        force.addPerBondParameter(name)
    for atom in range(atoms):
        system.addParticle(12.0)
        if atom:
            force.addBond(atom - 1, atom, list(values.values()))
    system.addForce(force)
    return system


def main():
    import openmm
    import openmm.app as app
    import openmm.unit as unit

    start = app.GromacsGroFile(str(HERE / "all-terms.gro")).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    positions = start + np.random.Generator(np.random.Philox(key=20261121)).normal(scale=0.004, size=start.shape)
    top = app.GromacsTopFile(str(HERE / "all-terms.top"))
    system = top.createSystem(nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False, removeCMMotion=False)
    forces = {type(system.getForce(index)).__name__ + str(index): index for index in range(system.getNumForces())}
    found = {"openmm": openmm.version.full_version, "positions": positions.tolist(), "all": evaluate(system, positions)}
    found["terms"] = {name: evaluate(only(system, index), positions)["energy"] for name, index in forces.items()}
    found |= {name: evaluate(bonds(*formula, len(positions)), positions) for name, formula in FORMULAS.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
