"""What is known exactly of an advected field: its solution, the scheme's own solution, and where the scheme is stable.

The field obeys dc/dt + u . grad c = D laplace c on the periodic unit square. A wave keeps its shape,

    cos(2 pi n . x + phase)  ->  exp(-D |2 pi n|^2 t) cos(2 pi n . (x - u t) + phase),

and a Gaussian of width s with its periodic images one of variance s^2 + 2 D t, by Poisson summation a sum of waves:
in each direction

    sum_m exp(-(x - m)^2 / (2 s^2))  =  sqrt(2 pi) s sum_n exp(-2 pi^2 n^2 s^2) cos(2 pi n x).

The average of a wave over a cell of width h is its value at the centre times sinc(n h). Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from manybody.engines.fields.spec import AdvectedField, Gaussian, Wave

NEGLIGIBLE = 1e-18  # of a Gaussian's largest Fourier coefficient
SAFETY = 0.99  # the stability limit is sought on a mesh of wave vectors
WAVE_VECTORS = 64  # of that mesh, a direction


def cosine_averages(cells: int, cycles: int, phase: float) -> np.ndarray:
    """Averages of cos(2 pi cycles x + phase) over each of `cells` equal cells of the unit interval, [cells]."""
    shape = float(np.sinc(cycles / cells))
    # The C library's cosine, not numpy's, whose last bit depends on the processor's vector width.
    return np.array([shape * math.cos(2 * math.pi * cycles * (j + 0.5) / cells + phase) for j in range(cells)])


def gaussian_averages(cells: int, centre: float, width: float, variance: float) -> np.ndarray:
    """Cell averages [cells] of a Gaussian that was of height 1 and width `width` and has spread to `variance`."""
    terms = math.ceil(math.sqrt(-math.log(NEGLIGIBLE) / (2 * math.pi**2 * variance)))
    total = np.ones(cells)
    for n in range(1, terms + 1):
        total += 2 * math.exp(-2 * math.pi**2 * n**2 * variance) * cosine_averages(cells, n, -2 * math.pi * n * centre)
    return math.sqrt(2 * math.pi) * width * total


def exact_averages(
    system: AdvectedField, rows: int, columns: int, time: float, first: int = 0, last: int | None = None
) -> np.ndarray:
    """The exact cell averages at `time` of rows first to last (exclusive) of a grid [rows, columns].

    A cell's value has the same bits whichever rows are asked for.
    """
    rows_wanted = slice(first, rows if last is None else last)
    field = np.full((len(range(rows)[rows_wanted]), columns), system.background)
    for wave in system.waves:
        field += _wave(system, wave, rows, columns, time, rows_wanted)
    for gaussian in system.gaussians:
        field += _gaussian(system, gaussian, rows, columns, time, rows_wanted)
    return field


def _wave(system: AdvectedField, wave: Wave, rows: int, columns: int, time: float, wanted: slice) -> np.ndarray:
    """cos(a + b) = cos a cos b - sin a sin b, a along the rows and b along the columns; sin a = cos(a - pi / 2)."""
    decay = system.diffusivity * (2 * math.pi) ** 2 * (wave.cycles_x**2 + wave.cycles_y**2)
    height = wave.amplitude * math.exp(-decay * time)
    a = wave.phase - 2 * math.pi * wave.cycles_x * system.velocity_x * time
    b = -2 * math.pi * wave.cycles_y * system.velocity_y * time
    cosines = np.outer(cosine_averages(rows, wave.cycles_x, a)[wanted], cosine_averages(columns, wave.cycles_y, b))
    sines = np.outer(
        cosine_averages(rows, wave.cycles_x, a - math.pi / 2)[wanted],
        cosine_averages(columns, wave.cycles_y, b - math.pi / 2),
    )
    return np.asarray(height * (cosines - sines))


def _gaussian(system: AdvectedField, gaussian: Gaussian, rows: int, columns: int, time: float, wanted: slice) -> np.ndarray:
    variance = gaussian.width**2 + 2 * system.diffusivity * time
    x, y = gaussian.x + system.velocity_x * time, gaussian.y + system.velocity_y * time
    along_x = gaussian_averages(rows, x, gaussian.width, variance)[wanted]
    return np.outer(gaussian.amplitude * along_x, gaussian_averages(columns, y, gaussian.width, variance))


def generator(system: AdvectedField, rows: int, columns: int) -> np.ndarray:
    """What d/dt multiplies each Fourier mode with, exactly: -(2 pi i n . u + D |2 pi n|^2), [rows, columns] in FFT order."""
    x, y = np.meshgrid(
        2 * np.pi * np.fft.fftfreq(rows, 1 / rows), 2 * np.pi * np.fft.fftfreq(columns, 1 / columns), indexing="ij"
    )
    return np.asarray(-(1j * (system.velocity_x * x + system.velocity_y * y) + system.diffusivity * (x**2 + y**2)))


def flux_symbol(velocity: float, diffusivity: float, spacing: float, angle: np.ndarray) -> np.ndarray:
    """What L multiplies exp(i angle j) with: -F(angle) (1 - exp(-i angle)) / spacing, F that of one face's flux."""
    shift = np.exp(1j * angle)
    advective = velocity * (7 * (1 + shift) - (1 / shift + shift**2)) / 12
    diffusive = diffusivity * (15 * (shift - 1) - (shift**2 - 1 / shift)) / (12 * spacing)
    return np.asarray(-(advective - diffusive) * (1 - 1 / shift) / spacing)


def amplification(z: np.ndarray) -> np.ndarray:
    """What a time step multiplies a mode with: 1 + z + z^2/2 + z^3/6 + z^4/24, z its eigenvalue times the step."""
    return np.asarray(1 + z * (1 + z / 2 * (1 + z / 3 * (1 + z / 4))))


def scheme_symbol(system: AdvectedField, rows: int, columns: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The eigenvalues of L on a grid [rows, columns] for angles x [m] from row to row and y [n] along them, [m, n]."""
    across = flux_symbol(system.velocity_x, system.diffusivity, 1 / rows, x)
    along = flux_symbol(system.velocity_y, system.diffusivity, 1 / columns, y)
    return np.asarray(across[:, None] + along[None, :])


def stability_limit(system: AdvectedField, rows: int, columns: int) -> float:
    """The longest time step with which no mode grows, by bisection between 0 and a step that is surely too long."""
    angles = np.linspace(-np.pi, np.pi, WAVE_VECTORS + 1)
    symbol = scheme_symbol(system, rows, columns, angles, angles)
    low, high = 0.0, 4 / float(np.abs(symbol).max())  # the region of stability lies within |z| < 4
    for _ in range(50):
        middle = (low + high) / 2
        stable = bool((np.abs(amplification(middle * symbol)) <= 1 + 1e-12).all())
        low, high = (middle, high) if stable else (low, middle)
    return SAFETY * low


def scheme_solution(system: AdvectedField, rows: int, columns: int, time_step: float, steps: int) -> np.ndarray:
    """What the scheme gives in exact arithmetic after `steps`, mode by mode, [rows, columns]."""
    start = np.fft.fft2(exact_averages(system, rows, columns, 0.0))
    return np.asarray(np.fft.ifft2(start * amplification(time_step * _symbol_of_modes(system, rows, columns)) ** steps).real)


def truncation_errors(system: AdvectedField, rows: int, columns: int, time_step: float, steps: Sequence[int]) -> np.ndarray:
    """Root mean square deviation of the scheme from the exact solution after each of `steps`, in exact arithmetic.

    By Parseval's theorem, from each mode's amplitude and what the scheme and the exact solution multiply it with.
    """
    power = np.abs(np.fft.fft2(exact_averages(system, rows, columns, 0.0)) / (rows * columns)) ** 2
    factor = amplification(time_step * _symbol_of_modes(system, rows, columns))
    exact = np.exp(time_step * generator(system, rows, columns))
    return np.array([math.sqrt(float(np.sum(power * np.abs(factor**n - exact**n) ** 2))) for n in steps])


def exact_variances(system: AdvectedField, rows: int, columns: int, times: Sequence[float]) -> np.ndarray:
    """The variance of the exact cell averages over the square at each of `times`."""
    return np.array([float(np.var(exact_averages(system, rows, columns, time))) for time in times])


def _symbol_of_modes(system: AdvectedField, rows: int, columns: int) -> np.ndarray:
    return scheme_symbol(system, rows, columns, 2 * np.pi * np.fft.fftfreq(rows), 2 * np.pi * np.fft.fftfreq(columns))
