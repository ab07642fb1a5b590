"""How a report draws: inline SVG, the same bytes for the same numbers, in colours that the page chooses.

Text stays text and every colour is a CSS variable, so a figure follows the page's light or dark scheme, can be
searched, and is read out by its title and description.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas
    from matplotlib.typing import RcKeyType

INK, FAINT = "#010101", "#020202"  # stand-ins that become CSS variables in the SVG
# Okabe and Ito's palette (Color Universal Design, 2008), darkened where it would be lost on white.
COLOURS = ("#0072b2", "#d55e00", "#007f5f", "#a6427d", "#8a6100", "#4d6f8f")
SERIES = tuple(f"#0303{index:02x}" for index in range(len(COLOURS)))
MARKERS = ("o", "s", "D", "^", "v", "P")
DASHES = ("-", "--", "-.", ":")

STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib, so the layout is the same everywhere
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.formatter.use_mathtext": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.3,
}


@dataclass(frozen=True)
class Figure:
    """A figure of the report: `svg` is one element, ready to stand in a page; `alt` says what it shows."""

    name: str
    title: str
    caption: str
    alt: str
    svg: str


@dataclass(frozen=True)
class Pen:
    """Colour, marker and dash of one series: told apart by more than colour."""

    colour: str
    marker: str
    dash: str

    @classmethod
    def number(cls, index: int) -> Pen:
        """The pen of the series `index`; 24 differ."""
        count = len(SERIES)
        return cls(SERIES[index % count], MARKERS[index % count], DASHES[index // count % len(DASHES)])


def draw(name: str, size: tuple[float, float], shape: tuple[int, int], paint: Callable[[np.ndarray], None], **grid: Any) -> str:
    """An SVG element of `size` inches with `shape` (rows, columns) axes, painted by `paint` ([rows, columns] axes)."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        canvas = Canvas(figsize=size, layout="constrained")
        axes = canvas.subplots(*shape, squeeze=False, **grid)
        paint(axes)
        return _svg(canvas, name)


def described(svg: str, name: str, title: str, alt: str) -> str:
    """The SVG element as an image with a name and a description for those who cannot see it."""
    head = f'<svg role="img" aria-labelledby="{name}-title {name}-desc" '
    words = f'<title id="{name}-title">{html.escape(title)}</title><desc id="{name}-desc">{html.escape(alt)}</desc>'
    opened = svg.replace("<svg ", head, 1)
    end = opened.index(">") + 1
    return opened[:end] + words + opened[end:]


def _svg(canvas: Canvas, name: str) -> str:
    file = io.StringIO()
    canvas.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg ") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)  # the viewBox stays, so the page sizes it
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)  # ids must differ between figures of one page
    for colour, variable in _variables():
        text = text.replace(colour, variable)
    return text


def _variables() -> list[tuple[str, str]]:
    series = [(stand_in, f"var(--series-{index}, {COLOURS[index]})") for index, stand_in in enumerate(SERIES)]
    return [(INK, "var(--ink, #1b1f24)"), (FAINT, "var(--faint, #c9ced6)"), *series]


def thinned(series: np.ndarray, most: int) -> np.ndarray:
    """Indices [<= most] of evenly spaced samples of `series`, the first and last among them."""
    count = len(series)
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def legend_above(axes: Axes) -> None:
    """A legend above the figure that `axes` is in, where more than one series has a name."""
    canvas = axes.get_figure(root=True)
    handles, labels = axes.get_legend_handles_labels()
    if canvas is not None and len(labels) > 1:
        longest = max(map(len, labels))
        columns = 3 if longest < 24 else 2 if longest < 44 else 1
        canvas.legend(handles, labels, loc="outside upper left", ncols=columns)
