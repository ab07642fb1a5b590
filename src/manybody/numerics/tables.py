"""Pair potentials from tables: what a file says, a smooth curve through it, and the pieces that kernels look up.

Files have columns r, u and, where it is known, f = -du/dr, for any number of points; or they are tables of LAMMPS
(``pair_style table``; https://docs.lammps.org/pair_table.html). Through the points goes a cubic spline: that of Hermite
where f is given, else the one that is smooth to the second derivative. The potential that is simulated is cubic between
evenly spaced squares of r, with the spline's energy and slope at both ends of each piece: it needs no root and no
division, and its force is the exact derivative of its energy, so that dynamics conserves it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from manybody.core.errors import InputError, Problem

FEWEST_POINTS = 5
FEWEST_PIECES, MOST_PIECES = 512, 16_384  # 16 kB, which any cache holds, to 512 kB, which the second one does
INCONSISTENT = 0.1  # of the points: forces that are not the slope of the energy at more of them are somebody's mistake

Row = tuple[int, list[str]]  # line number, words


@dataclass(frozen=True)
class Table:
    """Points of a potential, each [points]: distances, that grow; energies; and forces -du/dr where they are known."""

    r: np.ndarray
    energy: np.ndarray
    force: np.ndarray | None = None

    def at(self, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Energies and slopes du/dr of the spline at distances within the table, each shaped as `r`."""
        from scipy.interpolate import CubicHermiteSpline, CubicSpline

        spline = CubicSpline(self.r, self.energy) if self.force is None else CubicHermiteSpline(self.r, self.energy, -self.force)
        return np.asarray(spline(r)), np.asarray(spline(r, 1))


@dataclass(frozen=True)
class Pieces:
    """u as cubic polynomials of s = r^2: a + b t + c t^2 + d t^3 over t in [0, 1] between evenly spaced squares.

    low, high: the first and last square; coefficients [pieces, 4]: a, b, c, d. Below `low` there is no energy.
    """

    low: float
    high: float
    coefficients: np.ndarray

    @classmethod
    def of(cls, table: Table, cutoff: float, pieces: int | None = None) -> Pieces:
        """A table from its first point to `cutoff`, by as many pieces as said, or at least as fine as its points."""
        s = np.linspace(table.r[0] ** 2, cutoff**2, 1 + (pieces or enough_pieces(table, cutoff)))
        r = np.clip(np.sqrt(s), table.r[0], cutoff)
        u, slope = table.at(r)
        b = slope / (2 * r) * (s[1] - s[0])
        rise = u[1:] - u[:-1]
        c, d = 3 * rise - 2 * b[:-1] - b[1:], b[:-1] + b[1:] - 2 * rise
        return cls(float(s[0]), float(s[-1]), np.stack([u[:-1], b[:-1], c, d], axis=1))

    @property
    def per_square(self) -> float:
        """Pieces per unit of r^2."""
        return len(self.coefficients) / (self.high - self.low)

    def energy(self, r: float) -> float:
        """u(r); not a number below the table."""
        place = (r * r - self.low) * self.per_square
        if not place >= 0:
            return math.nan
        piece = min(int(place), len(self.coefficients) - 1)
        a, b, c, d = self.coefficients[piece].tolist()
        t = place - piece
        return float(a + t * (b + t * (c + t * d)))


def enough_pieces(table: Table, cutoff: float) -> int:
    """How many pieces, a power of two, are nowhere longer than the distance of the table's points, up to `MOST_PIECES`."""
    squares = table.r[table.r <= cutoff] ** 2
    finest = float(np.diff(squares).min()) if len(squares) > 1 else math.inf
    wanted = min(MOST_PIECES, max(FEWEST_PIECES, (cutoff**2 - squares[0]) / finest))
    return int(2 ** math.ceil(math.log2(wanted) - 1e-9))


# --- files -----------------------------------------------------------------------------------------------------


def read_table(text: str, where: str, section: str = "") -> Table:
    """The table that a text holds; of a LAMMPS file the one under the keyword `section`, which may be empty if it is alone.

    Everything after a # is a comment. Raises `InputError`, with `where` and the line, for anything that is no table.
    """
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    rows = [(number, words) for number, words in enumerate(lines, 1) if words]
    if not rows:
        _refuse(where, "columns r, u and perhaps f", "nothing", "Write one point a line.")
    if _is_number(rows[0][1][0]):
        if section:
            _refuse(where, f"the keyword {section}", "columns of numbers alone", "Leave `section` out.")
        return _table(rows, where)
    sections = dict(_sections(rows, where))
    if section not in sections and (section or len(sections) > 1):
        _refuse(where, f"one of {', '.join(sections)}", f"`{section}`", "Say which by `section`.")
    return sections[section or next(iter(sections))]


def _sections(rows: Sequence[Row], where: str) -> Iterator[tuple[str, Table]]:
    """The tables of a LAMMPS file by keyword."""
    place = 0
    while place < len(rows):
        line, words = rows[place]
        settings = rows[place + 1][1] if place + 1 < len(rows) else []
        if len(words) != 1 or settings[:1] != ["N"]:
            _refuse(f"{where}, line {line}", "a keyword, and a line `N POINTS` after it", " ".join(words), "Write both.")
        count = _count(settings, f"{where}, line {line + 1}")
        body = rows[place + 2 : place + 2 + count]
        for number, entry in body:
            if len(entry) != 4 or not _is_number(entry[0]):
                _refuse(f"{where}, line {number}", "four numbers: index, r, u, f", " ".join(entry), f"`N` says {count} points.")
        if len(body) < count:
            _refuse(f"{where}, line {rows[-1][0]}", f"{count} points, as `N` says", f"{len(body)}", "Mend one of the two.")
        yield words[0], _table([(number, entry[1:]) for number, entry in body], where, _spacing(settings, where, line + 1))
        place += 2 + count


def _count(settings: list[str], where: str) -> int:
    if len(settings) < 2 or not settings[1].isdigit():
        _refuse(where, "`N` and the number of points", " ".join(settings), "Write for example `N 1000`.")
    return int(settings[1])


def _spacing(settings: list[str], where: str, line: int) -> tuple[str, float, float] | None:
    """``R`` or ``RSQ`` with the first and last r, which LAMMPS takes instead of the column; None where the column counts."""
    for kind in ("R", "RSQ"):
        if kind in settings:
            ends = settings[settings.index(kind) + 1 :][:2]
            if len(ends) == 2 and all(_is_number(end) for end in ends):
                return kind, float(ends[0]), float(ends[1])
            _refuse(f"{where}, line {line}", f"`{kind}` with the first and the last r", " ".join(settings), "Give both.")
    if "BITMAP" in settings:
        _refuse(f"{where}, line {line}", "`R`, `RSQ` or neither", "BITMAP", "Write the table with one of these.")
    return None


def _table(rows: Sequence[Row], where: str, spacing: tuple[str, float, float] | None = None) -> Table:
    """Points from rows of r, u and perhaps f, all of one length."""
    columns = len(rows[0][1])
    if columns not in (2, 3):
        _refuse(f"{where}, line {rows[0][0]}", "two or three columns: r, u and perhaps f", f"{columns}", "Leave the others out.")
    for line, words in rows:
        if len(words) != columns or not all(_is_number(word) for word in words):
            _refuse(f"{where}, line {line}", f"{columns} finite numbers", " ".join(words), "Mend the line.")
    points = np.array([[float(word) for word in words] for _, words in rows])
    r = points[:, 0] if spacing is None else _spaced(*spacing, len(points))
    if len(points) < FEWEST_POINTS:
        _refuse(f"{where}, line {rows[-1][0]}", f"at least {FEWEST_POINTS} points", f"{len(points)}", "Add more.")
    wrong = np.flatnonzero(np.diff(r, prepend=0.0) <= 0)
    if len(wrong):
        _refuse(f"{where}, line {rows[wrong[0]][0]}", "distances above 0 that grow", f"{r[wrong[0]]:g}", "Sort the lines by r.")
    table = Table(r, points[:, 1].copy(), points[:, 2].copy() if columns == 3 else None)
    _refuse_inconsistent(table, rows, where)
    return table


def _spaced(kind: str, low: float, high: float, count: int) -> np.ndarray:
    return np.linspace(low, high, count) if kind == "R" else np.sqrt(np.linspace(low**2, high**2, count))


def _refuse_inconsistent(table: Table, rows: Sequence[Row], where: str) -> None:
    """Refuse forces that are not minus the slope of the energies: outside of what the neighbours' slopes allow at many points."""
    if table.force is None:
        return
    slopes = np.diff(table.energy) / np.diff(table.r)
    low, high = np.minimum(slopes[:-1], slopes[1:]), np.maximum(slopes[:-1], slopes[1:])
    room = (high - low) + 1e-6 * np.abs(slopes).max()  # digits of the file; points of inflection are the rest
    off = np.flatnonzero((-table.force[1:-1] < low - room) | (-table.force[1:-1] > high + room))
    if len(off) > INCONSISTENT * len(low):
        at = int(off[0]) + 1
        _refuse(
            f"{where}, line {rows[at][0]}",
            f"a force -du/dr between {-high[at - 1]:.6g} and {-low[at - 1]:.6g}",
            f"{table.force[at]:.6g}, and {len(off) - 1} others like it",
            "Turn its sign, or leave the column out.",
        )


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _refuse(where: str, expected: str, came: str, remedy: str) -> NoReturn:
    raise InputError(Problem(where, expected, came, remedy))
