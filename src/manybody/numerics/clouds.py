"""Forces between Gaussian clouds of charge in a periodic cube, through a mesh alone.

Ions with charges z = +1, -1 (total 0) in a cube of edge L. Lengths in any unit, energies in kT. With k = 2 pi m / L, m != 0,

    c(k) = sum_i z_i exp(-i k x_i),   n(k) = sum_i exp(-i k x_i),   g(k) = exp(-k^2 a^2),
    U = 1 / (2 L^3) sum_k g(k) [C / k^2 |c(k)|^2 + R |n(k)|^2],

which is 4 pi l_B = C times erf(r / 2a) / (4 pi r) between charges, and R times a Gaussian of variance 2 a^2 between any two
ions: clouds of width a, whose fields are bounded, so that no pair has to be found. It is the reciprocal part of an Ewald sum
with alpha = 1 / 2a; the mesh is that of U. Essmann et al., J. Chem. Phys. 103 (1995) 8577. The model is that of D. Coslovich,
J.-P. Hansen and G. Kahl, J. Chem. Phys. 134, 244514 (2011).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import fft

from manybody.numerics import mesh as meshes
from manybody.numerics.bsplines import euler_moduli
from manybody.numerics.jit import exact_kernel
from manybody.numerics.pme_parameters import mesh_size

ORDER = 6  # of the splines
# k a at the end of the mesh, where g = 0.003: forces err by some thousandths, those of a repulsion by a hundredth.
RESOLUTION = 2.4

# --- the formula -----------------------------------------------------------------------------------------------


def form_factor(square: np.ndarray, width: float) -> np.ndarray:
    """g = exp(-k^2 a^2); square: k^2, any shape."""
    return np.asarray(np.exp(-square * width**2))


def cloud_energy(
    positions: np.ndarray, charges: np.ndarray, edge: float, width: float, coulomb: float, repulsion: float
) -> float:
    """U mode by mode up to k a = 6, where g is 2e-16: the oracle of the mesh, for some hundred ions.

    positions: [ions, 3]; charges: [ions]; coulomb: C; repulsion: R.
    """
    reach = math.ceil(6 * edge / (2 * math.pi * width))
    axis = np.exp(-2j * math.pi / edge * positions[:, :, None] * np.arange(-reach, reach + 1))
    planes = np.einsum("iy,iz->iyz", axis[:, 1], axis[:, 2]).reshape(len(positions), -1)
    number = (2 * math.pi / edge * np.arange(-reach, reach + 1)) ** 2
    square = (number[:, None, None] + number[:, None] + number).reshape(len(number), -1)
    square[reach, reach * len(number) + reach] = math.inf  # m = 0
    density, charge = (abs((weight[:, None] * axis[:, 0]).T @ planes) ** 2 for weight in (np.ones_like(charges), charges))
    return float((form_factor(square, width) * (coulomb / square * charge + repulsion * density)).sum() / (2 * edge**3))


# --- the compiled path -----------------------------------------------------------------------------------------


def mesh_points(edge: float, width: float) -> int:
    """Mesh points along an edge that resolve clouds of `width`."""
    return mesh_size(max(ORDER + 1.0, RESOLUTION * edge / (math.pi * width)))


class CloudMesh:
    """Forces and modes of clouds of charge. It holds its work space and nothing that decides a result; for one thread.

    ions: how many; edge, width: lengths; coulomb: C = 4 pi l_B; repulsion: R (module docstring).
    """

    def __init__(self, ions: int, edge: float, width: float, coulomb: float, repulsion: float = 0.0) -> None:
        self.edge, self.points, self.repulsion = edge, mesh_points(edge, width), repulsion
        self._shape = np.array([self.points] * 3)
        self._inverse = np.eye(3) / edge
        numbers = np.fft.fftfreq(self.points, 1 / self.points)
        half = np.arange(self.points // 2 + 1)
        square = (2 * math.pi / edge) ** 2 * (numbers[:, None, None] ** 2 + numbers[:, None] ** 2 + half**2)
        moduli = euler_moduli(self.points, ORDER)
        self._smeared = moduli[:, None, None] * moduli[:, None] * moduli[half]  # what spreading does to |mode|^2
        square[0, 0, 0] = math.inf
        influence = form_factor(square, width) / (self._smeared * edge**3)
        self._coulomb, self._repulsion = coulomb / square * influence, repulsion * influence
        self._work = np.empty((self.points, self.points, self.points + meshes.PAD))
        self._mesh = np.empty((self.points, self.points, self.points))
        self._weights, self._slopes = np.empty((2, ions, 3, meshes.PAD))
        self._ones, self._values = np.ones(ions), np.empty(ions)

    def evaluate(self, positions: np.ndarray, charges: np.ndarray) -> tuple[np.ndarray, float]:
        """-dU/dx [ions, 3], kT a length, without the small net force that a mesh exerts; and U, but for a constant.

        positions: [ions, 3], finite; charges: [ions], +1 or -1, which add up to 0.
        """
        stencils = self._stencils(positions)
        forces = self._gradients(stencils, charges, self._coulomb)
        energy = 0.5 * float(charges @ self._values)
        forces *= -charges[:, None]
        if self.repulsion:
            forces -= self._gradients(stencils, self._ones, self._repulsion)
            energy += 0.5 * float(self._values.sum())
        return without_mean(forces), energy

    def modes(self, positions: np.ndarray, charges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """n(k) and c(k), [points, points, points // 2 + 1] each, those of k = 2 pi m / L with m in the order of `rfftn`.

        The splines mix mode m along an axis with m - points, by the sixth power of |m / (points - m)|.
        """
        stencils = self._stencils(positions)
        density, charge = (self._spectrum(stencils, weights) for weights in (self._ones, charges))
        scale = 1 / np.sqrt(self._smeared)
        return density * scale, charge * scale

    def _stencils(self, positions: np.ndarray) -> meshes.Stencils:
        return meshes.stencils(positions, self._inverse, self._shape, ORDER, self._weights, self._slopes)

    def _spectrum(self, stencils: meshes.Stencils, values: np.ndarray) -> np.ndarray:
        meshes.spread(stencils, values, ORDER, self._work, self._mesh)
        return np.asarray(fft.rfftn(self._mesh, workers=1))

    def _gradients(self, stencils: meshes.Stencils, values: np.ndarray, influence: np.ndarray) -> np.ndarray:
        """Gradients [ions, 3], at the ions, of the potential that `values` [ions] give; the potential in `_values`."""
        spectrum = self._spectrum(stencils, values) * influence
        field = fft.irfftn(spectrum, s=self._mesh.shape, norm="forward", workers=1, overwrite_x=True)
        gradients = np.empty((len(values), 3))
        meshes.gather(stencils, field, self._inverse, ORDER, self._work, self._values, gradients)
        return gradients


@exact_kernel
def without_mean(forces: np.ndarray) -> np.ndarray:
    """Take the mean off, in place; forces: [ions, 3]."""
    ions = forces.shape[0]
    for axis in range(3):
        total = 0.0
        for i in range(ions):
            total += forces[i, axis]
        for i in range(ions):
            forces[i, axis] -= total / ions
    return forces
