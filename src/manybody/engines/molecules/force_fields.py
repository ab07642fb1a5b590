"""The force field of a system, made of its parameters or read from its files."""

from __future__ import annotations

import numpy as np

from manybody.core.errors import InputError, Problem
from manybody.core.random import Key
from manybody.engines.molecules.boxes import MolecularBox
from manybody.engines.molecules.cells import lengths
from manybody.engines.molecules.forces import ForceField, ewald_plan
from manybody.engines.molecules.formats import read_box, read_molecule
from manybody.engines.molecules.spec import BoxOfMolecules, FromFiles, MolecularSystem, Molecule, WaterBox
from manybody.engines.molecules.terms import with_terms
from manybody.engines.molecules.topology import Array, Topology, with_rigid_hydrogens, with_rigid_water
from manybody.engines.molecules.water import water_lattice, water_topology
from manybody.numerics.nonbonded import CutPairs

SKIN = 0.15  # nm that the neighbour lists reach further than the cutoffs: speed, not physics
CALIBRATION = Key.from_seed(0, "particle-mesh Ewald")  # the configuration its error is measured on is the same everywhere


def force_field_of(system: MolecularSystem) -> tuple[ForceField, Array | None]:
    """The force field of a system, and where its atoms begin, [atoms, 3] in nm; None where that is left to chance.

    Raises `InputError` where a file is missing or differs from the one that was asked for.
    """
    if isinstance(system, WaterBox):
        sample = water_lattice(system.model, system.molecules, system.box, CALIBRATION)
        return _in_box(system, water_topology(system.model, system.molecules), np.diag([system.box] * 3), sample), None
    if isinstance(system, MolecularBox):
        _refuse_other_files(system)
        topology, positions, cell = read_box(*system.paths)
        if system.rigid != "none":
            topology = with_rigid_water(topology)
        if system.rigid == "h-bonds":
            topology = with_rigid_hydrogens(topology)
        return _in_box(system, with_terms(topology, system.terms, boxed=True), cell, positions), positions
    assert isinstance(system, Molecule)
    return _in_vacuum(system)


def _in_box(system: BoxOfMolecules, topology: Topology, cell: Array, sample: Array) -> ForceField:
    """In a cell [3, 3]; particle-mesh Ewald as accurate as asked for at positions `sample` [atoms, 3]."""
    charges = topology.charges if system.electrostatics == "reaction-field" else np.zeros(topology.atoms)
    cut = CutPairs(topology.species, charges, topology.c12, topology.c6, system.switch, system.cutoff, system.permittivity)
    ewald = ewald_plan(topology, cell, sample, system.force_error, SKIN) if system.electrostatics == "pme" else None
    edges = lengths(cell)
    return ForceField(topology, edges, cut, ewald, system.tail_correction, SKIN, cell / edges[:, None])


def _in_vacuum(system: Molecule) -> tuple[ForceField, Array]:
    _refuse_other_files(system)
    topology, positions, cell = read_molecule(*system.paths)
    if cell is not None:
        remedy = "Take the system `molecular-box`, or strip the solvent and the box with ParmEd or cpptraj."
        raise InputError(Problem(str(system.paths[1]), "a molecule in vacuum", "a periodic box", remedy))
    if system.rigid == "h-bonds":
        topology = with_rigid_hydrogens(topology)
    return ForceField(with_terms(topology, system.terms, boxed=False)), positions


def _refuse_other_files(system: FromFiles) -> None:
    if not system.is_at_hand:
        missing = [path for path in system.paths if not path.is_file()]
        where, came = ", ".join(map(str, system.paths)), f"{missing[0]} missing" if missing else "other content"
        remedy = "Copy the files of the study to this machine, or run it where they are."
        raise InputError(Problem(where, f"files of content {system.content[:12]}", came, remedy))
