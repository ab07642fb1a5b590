"""Configurations with energies and forces: labelled by the project's own kernel, or read from a file that a node holds."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from manybody.core.digest import digest_bytes
from manybody.core.errors import TaskError
from manybody.core.task import Output
from manybody.numerics.pairs import LENNARD_JONES

ARRAYS = ("positions", "box", "energy", "forces")


@dataclass(frozen=True)
class Configurations:
    """positions and forces [frames, atoms, 3], box [3], energy [frames]; float64, reduced units.

    The energy is that of pairs within the cutoff, shifted to vanish there.
    """

    positions: np.ndarray
    box: np.ndarray
    energy: np.ndarray
    forces: np.ndarray

    @classmethod
    def of(cls, output: Output, where: str) -> Configurations:
        """Those in an output's arrays; `TaskError` names `where` and what does not fit."""
        missing = [name for name in ARRAYS if name not in output.arrays]
        if missing:
            raise TaskError(f"{where}: expected arrays {', '.join(ARRAYS)}; got none named {', '.join(missing)}. Add them.")
        found = cls(**{name: np.asarray(output.arrays[name], dtype=np.float64) for name in ARRAYS})
        frames, atoms = found.positions.shape[:2]
        shapes = {"positions": (frames, atoms, 3), "box": (3,), "energy": (frames,), "forces": (frames, atoms, 3)}
        for name, shape in shapes.items():
            array = getattr(found, name)
            if array.shape != shape or not np.isfinite(array).all():
                raise TaskError(
                    f"{where}: expected finite `{name}` {list(shape)}; got {list(array.shape)}, or NaN. Mend the file."
                )
        return found

    def output(self) -> Output:
        """The arrays as a task's output."""
        return Output({name: getattr(self, name) for name in ARRAYS}, {})

    @property
    def frames(self) -> int:
        """How many configurations."""
        return len(self.positions)

    @property
    def atoms(self) -> int:
        """Atoms of each."""
        return int(self.positions.shape[1])


@dataclass(frozen=True)
class Pairs:
    """Pairs of one configuration: atoms `first` and `second` [pairs], distance [pairs], direction [pairs, 3] to the first."""

    first: np.ndarray
    second: np.ndarray
    distance: np.ndarray
    direction: np.ndarray


def pairs_within(positions: np.ndarray, box: np.ndarray, cutoff: float) -> Pairs:
    """Every pair within `cutoff` once, at its minimum image, in the order of the atoms.  positions: [atoms, 3]."""
    wrapped = positions - box * np.floor(positions / box)
    wrapped[wrapped >= box] = 0.0  # round-off can put an atom on the far face
    found = cKDTree(wrapped, boxsize=box).query_pairs(cutoff, output_type="ndarray")
    first, second = found[np.lexsort((found[:, 1], found[:, 0]))].T
    apart = positions[first] - positions[second]
    apart -= box * np.round(apart / box)
    distance = np.linalg.norm(apart, axis=1)
    return Pairs(first, second, distance, apart / distance[:, None])


def pair_potential(r: np.ndarray, cutoff: float) -> np.ndarray:
    """The potential that configurations are labelled with: 4 (r^-12 - r^-6), shifted to vanish at the cutoff.  r: [...]."""

    def u(r: np.ndarray | float) -> np.ndarray:
        return np.asarray(4 * (np.asarray(r) ** -12.0 - np.asarray(r) ** -6.0))

    return np.asarray(u(r) - u(cutoff))


def labelled(frames: np.ndarray, box: np.ndarray, cutoff: float) -> Configurations:
    """Configurations [frames, atoms, 3] with the energies and forces of the Lennard-Jones liquid."""
    kernel = LENNARD_JONES.bind({"epsilon": 1.0, "sigma": 1.0})
    shift = kernel.energy(cutoff)
    positions = np.ascontiguousarray(frames, dtype=np.float64)
    edges = np.ascontiguousarray(box, dtype=np.float64)
    energy, forces = np.empty(len(positions)), np.empty_like(positions)
    for at, configuration in enumerate(positions):
        forces[at], plain, _, count = kernel.evaluate(configuration, edges, cutoff)
        energy[at] = plain - shift * count
    return Configurations(positions, edges, energy, forces)


def read(path: Path) -> tuple[Configurations, str]:
    """The configurations in an ``.npz`` (arrays `positions`, `box`, `energy`, `forces`) or ``.extxyz`` file, and its digest.

    Raises `TaskError` where it holds no such thing. No pickles are read.
    """
    digest = digest_bytes(path.read_bytes())
    try:
        arrays = _npz(path) if path.suffix == ".npz" else _extended_xyz(path)
    except (ValueError, KeyError, IndexError, RuntimeError, zipfile.BadZipFile) as error:
        expected = f"arrays {', '.join(ARRAYS)} (.npz), or energies and forces of a periodic box (.extxyz)"
        raise TaskError(f"held data {path.name}: expected {expected}; got {error}. Write the file anew.") from error
    return Configurations.of(Output(arrays, {}), f"held data {path.name}"), digest


def _npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in ARRAYS if name in file}


def _extended_xyz(path: Path) -> dict[str, np.ndarray]:
    import ase.io

    images = ase.io.read(path, index=":")
    lengths = {tuple(image.cell.cellpar().tolist()) for image in images}
    if len(lengths) != 1 or set(next(iter(lengths))[3:]) != {90.0} or len({len(image) for image in images}) != 1:
        raise ValueError("configurations of several boxes or sizes, or of a box that is not rectangular")
    return {
        "positions": np.stack([image.get_positions() for image in images]),
        "box": np.array(next(iter(lengths))[:3]),
        "energy": np.array([image.get_potential_energy() for image in images]),
        "forces": np.stack([image.get_forces() for image in images]),
    }
