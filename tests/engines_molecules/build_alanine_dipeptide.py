"""Build alanine dipeptide from internal coordinates, give it ff14SB, and write it as Amber's prmtop and inpcrd.

Run with an interpreter that has OpenMM and ParmEd, to make the shipped files anew in the folder named:

    python tests/engines_molecules/build_alanine_dipeptide.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np

PHI, PSI = -80.0, 75.0  # degrees: where the minimisation begins, near C7eq
# atom: residue, its number, the three atoms before it in the chain, distance (angstrom), angle, dihedral (degrees)
CHAIN = {
    "O": ("ACE", 1, ("CH3", "N", "C"), 1.23, 122.9, 180.0),
    "CA": ("ALA", 2, ("CH3", "C", "N"), 1.449, 121.9, 180.0),
    "C2": ("ALA", 2, ("C", "N", "CA"), 1.522, 111.0, PHI),
    "CB": ("ALA", 2, ("C", "N", "CA"), 1.526, 110.0, PHI - 122.5),
    "N2": ("NME", 3, ("N", "CA", "C2"), 1.335, 116.6, PSI),
    "O2": ("ALA", 2, ("N", "CA", "C2"), 1.23, 120.4, PSI + 180.0),
    "CM": ("NME", 3, ("CA", "C2", "N2"), 1.449, 121.9, 180.0),
}
ORDER = ("CH3", "C", "O", "N", "CA", "CB", "C2", "O2", "N2", "CM")
NAMES = {"C2": "C", "O2": "O", "N2": "N", "CM": "C"}  # in the file


def heavy_atoms():
    """Positions of the atoms that are no hydrogens, angstrom."""
    bend = np.radians(63.4)
    x = {"CH3": np.zeros(3), "C": np.array([1.52, 0, 0])}
    x["N"] = x["C"] + 1.335 * np.array([np.cos(bend), np.sin(bend), 0])
    for name, (_, _, before, distance, angle, dihedral) in CHAIN.items():
        x[name] = place(*(x[other] for other in before), distance, np.radians(angle), np.radians(dihedral))
    return x


def place(a, b, c, distance, angle, dihedral):
    """The atom at a distance from c, at an angle with b, at a dihedral angle with a."""
    along = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, along)
    normal /= np.linalg.norm(normal)
    across = np.cross(normal, along)
    turn = np.sin(angle) * (np.cos(dihedral) * across + np.sin(dihedral) * normal)
    return c + distance * (turn - np.cos(angle) * along)


def write_pdb(path):
    residues = {name: row[:2] for name, row in CHAIN.items()} | {"CH3": ("ACE", 1), "C": ("ACE", 1), "N": ("ALA", 2)}
    x, lines = heavy_atoms(), []
    for number, atom in enumerate(ORDER, start=1):
        (residue, index), name = residues[atom], NAMES.get(atom, atom)
        place = "".join(f"{value:8.3f}" for value in x[atom])
        lines.append(f"ATOM  {number:5d}  {name:<3s} {residue} A{index:4d}    {place}  1.00  0.00           {name[0]}")
    path.write_text("\n".join([*lines, "END", ""]))


def main(folder):
    import openmm
    import parmed
    from openmm import app, unit

    write_pdb(folder / "heavy.pdb")
    pdb, field = app.PDBFile(str(folder / "heavy.pdb")), app.ForceField("amber14/protein.ff14SB.xml")
    reference = openmm.Platform.getPlatformByName("Reference")
    model = app.Modeller(pdb.topology, pdb.positions)
    model.addHydrogens(field, platform=reference)
    system = field.createSystem(model.topology, nonbondedMethod=app.NoCutoff, constraints=None, removeCMMotion=False)
    integrator = openmm.VerletIntegrator(0.001 * unit.picosecond)
    simulation = app.Simulation(model.topology, system, integrator, reference)
    simulation.context.setPositions(model.positions)
    simulation.minimizeEnergy()
    positions = simulation.context.getState(getPositions=True).getPositions()
    structure = parmed.openmm.load_topology(model.topology, system, xyz=positions)
    structure.save(str(folder / "alanine-dipeptide.prmtop"), overwrite=True)
    structure.save(str(folder / "alanine-dipeptide.inpcrd"), format="rst7", overwrite=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
