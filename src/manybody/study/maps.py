"""The figure of a measure whose bins are the cells of a plane: one map a point, with one scale of colours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from manybody.study.answers import Answer
from manybody.study.drawing import INK, Figure, described, draw
from manybody.study.notation import typeset

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 7.2  # inches
MAPS_SHOWN = 4  # side by side, two in a row
LEVELS = 10  # colours of a map
TITLE = 30  # characters in a line of a map's title: two maps are side by side
COLOURS = "viridis"  # even steps of lightness: it reads in grey and without red and green


def is_map(answer: Answer) -> bool:
    """Whether the bins of a measure are the cells of a plane, told by an axis [bins, 2]."""
    return answer.estimate.axis is not None and np.asarray(answer.estimate.axis).ndim == 2


def map_figure(found: Sequence[Answer]) -> Figure:
    """Maps of one measure at every point; cells without a value are left open."""
    measure, shown = found[0].measure, found[:MAPS_SHOWN]
    name, title = f"map-{measure.name}", measure.name.replace("-", " ").capitalize()
    grids = [_grid(answer) for answer in shown]
    values = np.concatenate([values[np.isfinite(values)] for _, _, values in grids])
    levels = np.linspace(values.min(), values.max(), LEVELS + 1) if len(values) else np.linspace(0, 1, LEVELS + 1)
    rows, columns = -(-len(shown) // 2), min(2, len(shown))

    def paint(axes: np.ndarray) -> None:
        for place, answer, grid in zip(axes.flat, shown, grids, strict=False):
            drawn = _paint(place, grid, levels)
            place.set_title(fill(answer.point.label, TITLE))
        for place in list(axes.flat)[len(shown) :]:
            place.set_visible(False)
        _label(axes, measure.symbol)
        bar = axes.flat[0].get_figure(root=True).colorbar(drawn, ax=list(axes.flat), shrink=0.9)
        bar.set_label(typeset(f"{measure.symbol} ({measure.unit})" if measure.unit else measure.symbol), color=INK)

    svg = draw(name, (WIDTH, 3.4 * rows), (rows, columns), paint, sharex=True, sharey=True)
    caption = f"{title}, {typeset(measure.symbol)}, one map a point; open cells have no value."
    if len(found) > MAPS_SHOWN:
        caption += f" Shown: the first {MAPS_SHOWN} of {len(found)} points."
    lowest = "; ".join(f"{answer.point.label}: {_lowest(answer)}" for answer in shown)
    alt = f"{title}. Lowest values: {lowest}."
    return Figure(name, title, caption, alt, described(svg, name, title, alt))


def _grid(answer: Answer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The centres along both axes, and the values [along the first, along the second]."""
    axis, values = np.asarray(answer.estimate.axis), np.asarray(answer.estimate.value, dtype=np.float64)
    (first, row), (second, column) = (np.unique(part, return_inverse=True) for part in axis.T)
    grid = np.full((len(first), len(second)), np.nan)
    grid[row, column] = values
    return first, second, grid


def _paint(axes: Axes, grid: tuple[np.ndarray, np.ndarray, np.ndarray], levels: np.ndarray) -> object:
    first, second, values = grid
    drawn = axes.contourf(first, second, np.ma.masked_invalid(values.T), levels=levels, cmap=COLOURS)
    axes.set_aspect("equal")
    return drawn


def _label(axes: np.ndarray, symbol: str) -> None:
    """Name the axes by what the measure is of, such as ``phi`` and ``psi`` of ``F(phi, psi)``."""
    found = re.search(r"\((\w+), (\w+)\)$", symbol)
    if found:
        for place in axes[-1]:
            place.set_xlabel(typeset(found.group(1)))
        for place in axes[:, 0]:
            place.set_ylabel(typeset(found.group(2)))


def _lowest(answer: Answer) -> str:
    values = np.asarray(answer.estimate.value, dtype=np.float64)
    if not np.isfinite(values).any():
        return "none"
    low = int(np.nanargmin(values))
    return f"{values[low]:.3g} at " + ", ".join(f"{place:.3g}" for place in np.asarray(answer.estimate.axis)[low])
