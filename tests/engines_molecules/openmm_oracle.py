"""What OpenMM makes of a molecule in vacuum and of water in a box, term by term, as JSON.

Run with an interpreter that has OpenMM, to make the recording anew:

    python tests/engines_molecules/openmm_oracle.py > tests/engines_molecules/openmm-8.6.1.json

Everything is computed on OpenMM's Reference platform, in double precision.
"""

import copy
import json
from pathlib import Path

import numpy as np

FILES = Path(__file__).parents[2] / "src/manybody/engines/molecules/files"
SEED, CONFIGURATIONS, SHAKING = 20261121, 3, 0.006  # nm: bonds are stretched, nothing overlaps
CUTOFF, SWITCH, PERMITTIVITY = 0.8, 0.7, 78.3
EWALD_TOLERANCE, MOLECULE_BOX = 1e-11, 2.0
WATERS = {"spce": (-0.8476, 0.3166, 0.650), "tip3p": (-0.834, 0.315061, 0.1521 * 4.184)}  # as in manybody's water.py


def reference(system):
    import openmm

    return openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))


def evaluate(system, positions, groups=-1):
    """Energy, kJ/mol, and forces [atoms, 3], kJ/(mol nm)."""
    import openmm.unit as unit

    context = reference(system)
    context.setPositions(positions)
    state = context.getState(getEnergy=True, getForces=True, groups=groups)
    per_nm = unit.kilojoule_per_mole / unit.nanometer
    return state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole), state.getForces(asNumpy=True).value_in_unit(per_nm)


def only(system, keep):
    """A copy of a system whose other forces are gone; `keep` edits a force, or returns False for one that goes."""
    found = copy.deepcopy(system)
    for index in reversed(range(found.getNumForces())):
        if keep(found.getForce(index)) is False:
            found.removeForce(index)
    return found


def named(name):
    return lambda force: type(force).__name__ == name


def torsions(impropers, wanted):
    """Keep the proper or the improper torsions only."""

    def keep(force):
        if type(force).__name__ != "PeriodicTorsionForce":
            return False
        for index in range(force.getNumTorsions()):
            *rest, k = force.getTorsionParameters(index)
            force.setTorsionParameters(index, *rest, k if impropers[index] == wanted else 0 * k)
        return True

    return keep


def nonbonded(charges, depths, particles, exceptions):
    """Scale charges and depths by 0 or 1, of particles and of exceptions (which are the 1-4 pairs)."""

    def keep(force):
        if type(force).__name__ != "NonbondedForce":
            return False
        for index in range(force.getNumExceptions()):
            i, j, q, sigma, epsilon = force.getExceptionParameters(index)
            force.setExceptionParameters(index, i, j, charges * exceptions * q, sigma, depths * exceptions * epsilon)
        for index in range(force.getNumParticles()):
            q, sigma, epsilon = force.getParticleParameters(index)
            force.setParticleParameters(index, charges * particles * q, sigma, depths * particles * epsilon)
        return True

    return keep


def alanine():
    import openmm.app as app
    import openmm.unit as unit

    prmtop = app.AmberPrmtopFile(str(FILES / "alanine-dipeptide.prmtop"))
    start = app.AmberInpcrdFile(str(FILES / "alanine-dipeptide.inpcrd")).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    system = prmtop.createSystem(nonbondedMethod=app.NoCutoff, constraints=None, rigidWater=False, removeCMMotion=False)
    raw = prmtop._prmtop._raw_data
    rows = np.array(raw["DIHEDRALS_INC_HYDROGEN"] + raw["DIHEDRALS_WITHOUT_HYDROGEN"], dtype=int).reshape(-1, 5)
    impropers = rows[:, 3] < 0
    parts = {
        "bond": named("HarmonicBondForce"),
        "angle": named("HarmonicAngleForce"),
        "torsion": torsions(impropers, False),
        "improper": torsions(impropers, True),
        "lennard_jones": nonbonded(0, 1, 1, 0),
        "lennard_jones_14": nonbonded(0, 1, 0, 1),
        "coulomb": nonbonded(1, 0, 1, 0),
        "coulomb_14": nonbonded(1, 0, 0, 1),
    }
    systems = {name: only(system, keep) for name, keep in parts.items()}
    generator = np.random.Generator(np.random.Philox(key=SEED))
    found = []
    for number in range(CONFIGURATIONS):
        positions = start + (number > 0) * generator.normal(scale=SHAKING, size=start.shape)
        terms = {name: evaluate(part, positions)[0] for name, part in systems.items()}
        energy, forces = evaluate(system, positions)
        boxed = evaluate(in_a_box(system), positions)
        found.append(
            {
                "positions": positions.tolist(),
                "terms": terms,
                "energy": energy,
                "forces": forces.tolist(),
                "box": {"energy": boxed[0], "forces": boxed[1].tolist()},
            }
        )
    return found


def in_a_box(system):
    """The same molecule in a periodic box with Ewald, so that exclusions and 1-4 pairs are seen there too."""
    found = copy.deepcopy(system)
    found.setDefaultPeriodicBoxVectors(*(MOLECULE_BOX * np.eye(3)))
    (force,) = (force for force in found.getForces() if type(force).__name__ == "NonbondedForce")
    force.setNonbondedMethod(type(force).Ewald)
    force.setCutoffDistance(CUTOFF)
    force.setEwaldErrorTolerance(EWALD_TOLERANCE)
    force.setUseSwitchingFunction(True)
    force.setSwitchingDistance(SWITCH)
    force.setUseDispersionCorrection(False)
    return found


def disordered(molecules_a_side=6, edge=1.864):
    """Molecules near the sites of a lattice, turned at random, to 1e-4 nm: [atoms, 3], whole."""
    generator = np.random.Generator(np.random.Philox(key=SEED + 1))
    sites = np.stack(np.meshgrid(*[np.arange(molecules_a_side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    oxygen = sites * edge / molecules_a_side + generator.uniform(-0.02, 0.02, size=sites.shape)
    along, other = generator.normal(size=(2, len(sites), 3))
    across = np.cross(along, other)
    along, across = (0.1 * v / np.linalg.norm(v, axis=1, keepdims=True) for v in (along, across))
    hydrogens = [oxygen + np.cos(0.9553) * along + sign * np.sin(0.9553) * across for sign in (1, -1)]
    return np.rint(1e4 * np.stack([oxygen, *hydrogens], axis=1).reshape(-1, 3)) / 1e4, edge


def water_system(model, edge, molecules, method, switched=True, correction=False):
    import openmm

    charge, sigma, epsilon = WATERS[model]
    system, force = openmm.System(), openmm.NonbondedForce()
    system.setDefaultPeriodicBoxVectors(*(edge * np.eye(3)))
    for m in range(molecules):
        for mass, q, s, e in ((15.999, charge, sigma, epsilon), *[(1.008, -charge / 2, 0.1, 0.0)] * 2):
            system.addParticle(mass)
            force.addParticle(q, s, e)
        for a, b in ((0, 1), (0, 2), (1, 2)):
            force.addException(3 * m + a, 3 * m + b, 0, 0.1, 0)
    force.setNonbondedMethod(getattr(openmm.NonbondedForce, method))
    force.setCutoffDistance(CUTOFF)
    force.setEwaldErrorTolerance(EWALD_TOLERANCE)
    force.setReactionFieldDielectric(PERMITTIVITY)
    force.setUseSwitchingFunction(switched)
    force.setSwitchingDistance(SWITCH)
    force.setUseDispersionCorrection(correction)
    system.addForce(force)
    return system


def water():
    positions, edge = disordered()
    molecules = len(positions) // 3
    found = {"positions": np.rint(1e4 * positions).astype(int).ravel().tolist(), "edge": edge}
    for model, method in (("spce", "Ewald"), ("tip3p", "Ewald"), ("spce", "CutoffPeriodic")):
        energy, forces = evaluate(water_system(model, edge, molecules, method), positions)
        found[f"{model} {method}"] = {"energy": energy, "forces": np.round(forces, 4).ravel().tolist()}
    plain, corrected = (
        evaluate(water_system("spce", edge, molecules, "CutoffPeriodic", False, correction), positions)[0]
        for correction in (False, True)
    )
    return found | {"correction": corrected - plain}


def main():
    import openmm

    print(json.dumps({"openmm": openmm.version.full_version, "alanine dipeptide": alanine(), "water": water()}))


if __name__ == "__main__":
    main()
