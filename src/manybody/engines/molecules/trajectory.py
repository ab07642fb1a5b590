"""Configurations of molecules as other tools take them: an MDTraj trajectory, saved as DCD, XTC, PDB or GRO.

The extra `manybody[molecules]` brings MDTraj. MDAnalysis, VMD and their like open what it saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from manybody.core.errors import InputError, Problem
from manybody.engines.molecules.cells import angles_of, lengths
from manybody.engines.molecules.topology import Topology

if TYPE_CHECKING:
    import mdtraj


def trajectory(
    topology: Topology, frames: np.ndarray, times: Sequence[float] | np.ndarray | None = None, box: np.ndarray | None = None
) -> mdtraj.Trajectory:
    """Frames [frames, atoms, 3] in nm at `times` [frames] in ps, in a box in nm (None or zeros: vacuum).

    box: its edges [3] where it is rectangular, or its cell [3, 3], such as ``engine.field.cell``.

    ``trajectory(...).save("water.dcd")`` writes a file; the ending says of what kind. Molecules are left whole, so that
    atoms may lie outside the box. Raises `InputError` where MDTraj is missing or the frames are not of this topology.
    """
    try:
        import mdtraj
    except ImportError as error:
        remedy = "Install it: pip install 'manybody[molecules]'."
        raise InputError(Problem("trajectory", "MDTraj to write files with", "no such package", remedy)) from error
    frames = np.asarray(frames, dtype=np.float32)
    if frames.ndim != 3 or frames.shape[1:] != (topology.atoms, 3):
        expected, remedy = f"frames of shape [frames, {topology.atoms}, 3]", "Take the topology of the same system."
        raise InputError(Problem("trajectory", expected, f"{list(frames.shape)}", remedy))
    edges = angles = None
    if box is not None and np.any(box):
        cell = np.diag(box) if np.ndim(box) == 1 else np.asarray(box)
        edges, angles = (np.tile(np.asarray(each, np.float32), (len(frames), 1)) for each in (lengths(cell), angles_of(cell)))
    stamps = None if times is None else np.asarray(times, dtype=np.float32)
    return mdtraj.Trajectory(frames, _named(topology), time=stamps, unitcell_lengths=edges, unitcell_angles=angles)


def _named(topology: Topology) -> Any:
    """Atoms by name and element, in residues of one chain, with their bonds."""
    from mdtraj import Topology as NamedTopology
    from mdtraj.core.element import Element

    named = NamedTopology()
    chain, residue, last = named.add_chain(), None, -1
    for atom in range(topology.atoms):
        if topology.residue[atom] != last:
            last = int(topology.residue[atom])
            residue = named.add_residue(topology.residues[atom], chain)
        named.add_atom(topology.names[atom], Element.getByAtomicNumber(int(topology.numbers[atom])), residue)
    atoms = list(named.atoms)
    for first, second in topology.bonds:
        named.add_bond(atoms[first], atoms[second])
    return named
