"""The figures of a report, for any study: what they show comes from the plan, the evidence and the certificate alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from manybody.core.protocols import Conserved, Evidence, MeasureSpec, Samples
from manybody.core.study import Plan, Realisation
from manybody.study.answers import Answer, SweepAxis, sweep_axis
from manybody.study.drawing import FAINT, INK, Figure, Pen, described, draw, legend_above, thinned
from manybody.study.maps import is_map, map_figure
from manybody.study.measure import residuals, weighted_mean
from manybody.study.notation import typeset

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 7.2  # inches, of every figure
POINTS_SHOWN = 12  # a figure with more lines cannot be read
SAMPLES_SHOWN = 250  # of a line in a time series


def draw_figures(plan: Plan, evidence: Evidence, found: Sequence[Answer]) -> list[Figure]:
    """All figures: values over the sweep, curves, maps, conserved quantities, and the series behind the error bars."""
    by_measure = {
        measure.name: [answer for answer in found if answer.measure.name == measure.name] for measure in plan.study.measures
    }
    numbers = [group for group in by_measure.values() if not group[0].is_curve]
    maps = [group for group in by_measure.values() if is_map(group[0])]
    curves = [group for group in by_measure.values() if group[0].is_curve and not is_map(group[0])]
    axis = sweep_axis(plan)
    return [
        *(values_figure(group, axis) for group in numbers),
        *(curves_figure(group, expected_curves(group, plan, evidence)) for group in curves),
        *(map_figure(group) for group in maps),
        *conserved_figures(plan, evidence),
        *(series_figure(group[0].measure.name, group, plan, evidence) for group in numbers),
    ]


# --- measured values over the sweep ----------------------------------------------------------------------------------


def values_figure(found: Sequence[Answer], axis: SweepAxis) -> Figure:
    """A measured number over the sweep, with its references and the residuals where there are some."""
    measure = found[0].measure
    compared = any(answer.comparison for answer in found)
    name = f"values-{measure.name}"

    def paint(axes: np.ndarray) -> None:
        _paint_values(axes[0, 0], found, axis)
        axes[0, 0].set_ylabel(_axis_label(measure))
        if compared:
            _paint_residuals(axes[1, 0], found, axis)
        _label_sweep(axes[-1, 0], axis)

    svg = (
        draw(name, (WIDTH, 4.8), (2, 1), paint, sharex=True, height_ratios=[2.4, 1])
        if compared
        else draw(name, (WIDTH, 3.6), (1, 1), paint)
    )
    title = f"{_words(measure.name)} over the sweep" if len(found) > 1 else _words(measure.name)
    caption = f"{_words(measure.name)}, {typeset(measure.symbol)}. Filled: this study; bars are one standard error."
    if compared:
        caption += (
            " Open: reference. Below: their difference in combined standard errors; the band is what the certificate allows."
        )
    return Figure(name, title, caption, (alt := _values_alt(found, compared)), described(svg, name, title, alt))


def _paint_values(axes: Axes, found: Sequence[Answer], axis: SweepAxis) -> None:
    names = list(dict.fromkeys(axis.series))
    for index, series in enumerate(names):
        pen = Pen.number(index)
        rows = [row for row in range(len(found)) if axis.series[row] == series]
        x = [axis.values[row] for row in rows]
        estimates = [found[row].estimate for row in rows]
        compared = [(axis.values[row], known) for row in rows if (known := found[row].comparison)]
        if compared:
            axes.errorbar(
                [place for place, _ in compared],
                [known.reference for _, known in compared],
                [known.reference_error for _, known in compared],
                fmt=pen.marker,
                color=pen.colour,
                mfc="none",
                ms=11,
                capsize=4,
                label=f"reference {series}".strip(),
            )
        axes.errorbar(
            x,
            [each.value for each in estimates],
            [_bar(each.error) for each in estimates],
            fmt=pen.marker,
            color=pen.colour,
            ms=5,
            capsize=3,
            label=f"this study {series}".strip(),
        )
    legend_above(axes)
    axes.margins(x=0.08, y=0.12)


def _bar(error: float) -> float:
    return error if np.isfinite(error) else 0.0


def _paint_residuals(axes: Axes, found: Sequence[Answer], axis: SweepAxis) -> None:
    known = [(row, answer.comparison) for row, answer in enumerate(found) if answer.comparison]
    allowed = min((each.tolerance for _, each in known if each.tolerance is not None), default=3.0)
    axes.axhspan(-allowed, allowed, color=FAINT, alpha=0.5, lw=0)
    axes.axhline(0, color=INK, lw=0.8)
    names = list(dict.fromkeys(axis.series))
    for row, comparison in known:
        pen = Pen.number(names.index(axis.series[row]))
        axes.plot([axis.values[row]], [comparison.residual], pen.marker, color=pen.colour, ms=5)
    reach = max([allowed, *(abs(each.residual) for _, each in known if np.isfinite(each.residual))])
    axes.set_ylim(-1.25 * reach, 1.25 * reach)
    axes.set_ylabel("difference\n(std. errors)")


def _label_sweep(axes: Axes, axis: SweepAxis) -> None:
    axes.set_xlabel(axis.label)
    if axis.ticks:
        axes.set_xticks(axis.values, axis.ticks)


def _values_alt(found: Sequence[Answer], compared: bool) -> str:
    values = "; ".join(
        f"{answer.point.label}: {answer.estimate.value:.5g} ± {answer.estimate.error:.2g}" for answer in found[:POINTS_SHOWN]
    )
    more = f"; and {len(found) - POINTS_SHOWN} more points" if len(found) > POINTS_SHOWN else ""
    known = [answer.comparison.residual for answer in found if answer.comparison]
    worst = (
        f" The largest difference from a reference is {max(map(abs, known)):.1f} combined standard errors." if compared else ""
    )
    return f"{_words(found[0].measure.name)}. {values}{more}.{worst}"


# --- curves ----------------------------------------------------------------------------------------------------------


def expected_curves(found: Sequence[Answer], plan: Plan, evidence: Evidence) -> list[np.ndarray | None]:
    """What each curve should be, by its measure; None where nothing is known."""
    runs = {run.point.index: run for run in reversed(plan.realisations)}
    return [
        each.measure.expected(each.point, [evidence.output(task) for task in runs[each.point.index].measured]) for each in found
    ]


def curves_figure(found: Sequence[Answer], expected: Sequence[np.ndarray | None]) -> Figure:
    """A measured curve, such as a radial distribution function, at every point with its band of one standard error.

    Where it is known what the curves should be, that is drawn too, and below it how far they are from it.
    """
    measure = found[0].measure
    name = f"curve-{measure.name}"
    known = [curve for curve in expected[:POINTS_SHOWN] if curve is not None]

    def paint(axes: np.ndarray) -> None:
        for index, answer in enumerate(found[:POINTS_SHOWN]):
            _paint_curve(axes[:, 0], Pen.number(index), answer, expected[index])
        if known:
            axes[0, 0].plot(np.asarray(found[0].estimate.axis), known[0], ":", color=INK, label="expected")
            axes[1, 0].axhline(0, color=INK, lw=0.8)
            axes[1, 0].set_ylabel("difference")
        axes[-1, 0].set_xlabel(f"{_argument(measure.symbol)} (reduced units)")
        axes[0, 0].set_ylabel(_axis_label(measure))
        axes[0, 0].margins(x=0)
        legend_above(axes[0, 0])

    svg = (
        draw(name, (WIDTH, 5.2), (2, 1), paint, sharex=True, height_ratios=[2, 1])
        if known
        else draw(name, (WIDTH, 4.0), (1, 1), paint)
    )
    title = _words(measure.name)
    beside = " Dotted: what it should be; below: the difference from that." if known else ""
    caption = f"{title}, {typeset(measure.symbol)}; the band is one standard error.{beside}{_only_some(len(found))}"
    peaks = "; ".join(_peak(answer) for answer in found[:POINTS_SHOWN])
    return Figure(name, title, caption, (alt := f"{title}. Highest values: {peaks}."), described(svg, name, title, alt))


def _paint_curve(axes: np.ndarray, pen: Pen, answer: Answer, expected: np.ndarray | None) -> None:
    x, y = np.asarray(answer.estimate.axis), np.asarray(answer.estimate.value)
    bar = np.nan_to_num(np.asarray(answer.estimate.error))
    axes[0].fill_between(x, y - bar, y + bar, color=pen.colour, alpha=0.3, lw=0)
    axes[0].plot(x, y, pen.dash, color=pen.colour, label=answer.point.label)
    if expected is not None:
        axes[1].plot(x, y - expected, pen.dash, color=pen.colour)


def _argument(symbol: str) -> str:
    """What a curve is over, from its symbol: ``r`` of ``g(r)``."""
    found = re.search(r"\((.+)\)$", symbol)
    return found.group(1) if found else "axis"


def _peak(answer: Answer) -> str:
    top = int(np.nanargmax(answer.estimate.value))
    return f"{answer.point.label}: {answer.estimate.value[top]:.3g} at {np.asarray(answer.estimate.axis)[top]:.3g}"


# --- conserved quantities --------------------------------------------------------------------------------------------


def conserved_figures(plan: Plan, evidence: Evidence) -> Iterator[Figure]:
    """How far each declared conserved quantity strays, one figure a quantity."""
    declared = {claim.series: claim for point in plan.points for claim in point.method.conserves(point.system)}
    for series, claim in declared.items():
        yield _conserved_figure(series, claim, plan, evidence)


def _conserved_figure(series: str, claim: Conserved, plan: Plan, evidence: Evidence) -> Figure:
    name = f"conserved-{series.replace('_', '-')}"
    runs = _runs_shown(plan)

    def paint(axes: np.ndarray) -> None:
        reach = end = 0.0
        for run in runs:
            time, strayed = conserved_series(run, evidence, series)
            pen, shown = Pen.number(run.point.index), thinned(time, SAMPLES_SHOWN)
            label = run.point.label if run.repeat == 0 else None
            axes[0, 0].plot(time[shown], strayed[shown], pen.dash, color=pen.colour, lw=0.9, label=label)
            reach, end = max(reach, float(np.max(np.abs(strayed)))), max(end, float(time[-1]))
        for sign in (-1, 1):
            bound = [0.0 if claim.drift else sign * claim.tolerance, sign * claim.tolerance * (end if claim.drift else 1.0)]
            axes[0, 0].plot([0, end], bound, "--", color=INK, lw=1, label="allowed" if sign == 1 else None)
        limit = 1.2 * max(reach, min(claim.tolerance * (end if claim.drift else 1.0), 3 * reach)) or claim.tolerance
        axes[0, 0].set_ylim(-limit, limit)
        axes[0, 0].set_xlabel("simulated time (reduced units)")
        axes[0, 0].set_ylabel(f"change of {series.replace('_', ' ')}")
        legend_above(axes[0, 0])

    svg = draw(name, (WIDTH, 3.6), (1, 1), paint)
    title = f"Conservation of {series.replace('_', ' ')}"
    allowed = f"{claim.tolerance:.2g} per unit of time" if claim.drift else f"{claim.tolerance:.2g}"
    kind = "the slope that is allowed, not a bound on the fluctuation" if claim.drift else "what is allowed"
    caption = (
        f"Claim: {claim.claim}. Every run of every point, its measured parts joined; dashed: {kind} ({allowed})."
        f"{_only_some(len(plan.points))}"
    )
    alt = f"{title}: change of the quantity over simulated time in {len(runs)} runs, against an allowance of {allowed}."
    return Figure(name, title, caption, alt, described(svg, name, title, alt))


def conserved_series(run: Realisation, evidence: Evidence, series: str) -> tuple[np.ndarray, np.ndarray]:
    """Time [samples] and change [samples] of a conserved quantity, each task continuing where the one before ended."""
    times, changes = [np.zeros(1)], [np.zeros(1)]
    for task in run.measured:
        arrays = evidence.output(task).arrays
        times.append(times[-1][-1] + arrays["time"] - arrays["time"][0])
        changes.append(changes[-1][-1] + arrays[series] - arrays[series][0])
    return np.concatenate(times[1:]), np.concatenate(changes[1:])


# --- the series behind the error bars --------------------------------------------------------------------------------


def series_figure(measure: str, found: Sequence[Answer], plan: Plan, evidence: Evidence) -> Figure:
    """Block means of a measured number over simulated time, and its standard error over the length of the blocks."""
    name = f"series-{measure}"
    symbol = typeset(found[0].measure.symbol)
    runs = {point.index: [run for run in plan.realisations if run.point.index == point.index] for point in plan.points}

    def paint(axes: np.ndarray) -> None:
        for answer in found[:POINTS_SHOWN]:
            pen = Pen.number(answer.point.index)
            samples = [evidence.samples(run, measure) for run in runs[answer.point.index]]
            for number, (time, means) in enumerate(block_means(samples, 40)):
                label = answer.point.label if number == 0 else None
                axes[0, 0].plot(time, means, pen.dash, color=pen.colour, lw=0.9, label=label)
            length, error = blocking_curve(samples)
            axes[0, 1].plot(length, error, pen.dash, color=pen.colour, marker=pen.marker, ms=4)
            axes[0, 1].axhline(answer.estimate.error, color=pen.colour, lw=0.7, ls=":")
        _label_series(axes, symbol)
        legend_above(axes[0, 0])

    svg = draw(name, (WIDTH, 3.4), (1, 2), paint)
    title = f"{_words(measure)}: series and error"
    caption = (
        f"Left: block means of {symbol} about the mean of its point. Right: the standard error of the mean that blocks of a "
        f"given length give; it rises to a plateau once blocks outlast the correlation. Dotted: the error that is reported."
        f"{_only_some(len(found))}"
    )
    errors = "; ".join(f"{answer.point.label}: {answer.estimate.error:.2g}" for answer in found[:POINTS_SHOWN])
    alt = f"{title}. Reported standard errors: {errors}."
    return Figure(name, title, caption, alt, described(svg, name, title, alt))


def _label_series(axes: np.ndarray, symbol: str) -> None:
    axes[0, 0].axhline(0, color=INK, lw=0.7)
    axes[0, 0].set_xlabel("simulated time (reduced units)")
    axes[0, 0].set_ylabel(f"{symbol} less its mean")
    axes[0, 1].set_xscale("log")
    axes[0, 1].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes[0, 1].xaxis.set_minor_formatter(lambda value, _: "")
    axes[0, 1].set_ylim(bottom=0)
    axes[0, 1].set_xlabel("length of a block (reduced time)")
    axes[0, 1].set_ylabel("standard error")


def block_means(samples: Sequence[Samples], blocks: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each run, the middle times [blocks] and the means [blocks] of its samples about the common mean."""
    for run, rest in zip(samples, residuals(samples, weighted_mean(samples)), strict=True):
        length = max(1, len(rest) // blocks)
        means = rest[: len(rest) // length * length].reshape(-1, length).mean(axis=1)
        yield (np.arange(len(means)) + 0.5) * length * run.interval, means


def blocking_curve(samples: Sequence[Samples], fewest: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Block lengths (times) and the standard error of the mean that each gives, pooled over runs, by doubling.

    Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989). Ends where fewer than `fewest` blocks would be left.
    """
    rests = residuals(samples, weighted_mean(samples))
    lengths: list[float] = []
    errors: list[float] = []
    length = 1
    while not lengths or sum(len(rest) // length for rest in rests) >= fewest:
        blocks = np.concatenate([rest[: len(rest) // length * length].reshape(-1, length).mean(axis=1) for rest in rests])
        lengths.append(length * samples[0].interval)
        errors.append(float(np.sqrt(np.mean(blocks**2) / max(1, len(blocks) - 1))))
        length *= 2
    return np.array(lengths), np.array(errors)


def _runs_shown(plan: Plan) -> list[Realisation]:
    return [run for run in plan.realisations if run.point.index < POINTS_SHOWN]


def _only_some(points: int) -> str:
    return f" Shown: the first {POINTS_SHOWN} of {points} points." if points > POINTS_SHOWN else ""


def _axis_label(measure: MeasureSpec) -> str:
    return typeset(f"{measure.symbol} ({measure.unit})" if measure.unit else measure.symbol)


def _words(name: str) -> str:
    return name.replace("-", " ").capitalize()
