from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from manybody.core.protocols import Samples
from manybody.study.answers import answers, sweep_axis
from manybody.study.drawing import Figure, Pen, thinned
from manybody.study.figures import blocking_curve, conserved_series, draw_figures

SVG = "{http://www.w3.org/2000/svg}"


def figures(hand_made: Callable[..., Any], **changes: Any) -> dict[str, Figure]:
    plan, evidence, certificate = hand_made(**changes)
    return {figure.name: figure for figure in draw_figures(plan, evidence, answers(plan, evidence, certificate))}


def words(figure: Figure) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(figure.svg).iter(f"{SVG}text")]


def test_a_study_gets_its_values_curves_conserved_quantities_and_series(hand_made: Callable[..., Any]) -> None:
    drawn = figures(hand_made)
    assert list(drawn) == [
        "values-hand-energy",
        "curve-hand-curve",
        "conserved-effective-energy",
        "conserved-momentum",
        "series-hand-energy",
    ]
    assert {"U*/N (ε)", "density (reduced units)", "reference temperature 0.85"} <= set(words(drawn["values-hand-energy"]))
    assert {"g(r)", "r (reduced units)"} <= set(words(drawn["curve-hand-curve"]))


def test_the_same_evidence_gives_the_same_bytes(hand_made: Callable[..., Any]) -> None:
    assert figures(hand_made) == figures(hand_made)


def test_figures_name_and_describe_themselves_and_ask_for_nothing(hand_made: Callable[..., Any]) -> None:
    drawn = figures(hand_made)
    identities: list[str] = []
    for figure in drawn.values():
        root = ElementTree.fromstring(figure.svg)
        assert root.get("role") == "img"
        assert [root.find(f"{SVG}title").text, root.find(f"{SVG}desc").text] == [figure.title, figure.alt]
        identities += [element.get("id") for element in root.iter() if element.get("id")]
        assert not re.search(r"url\((?!#)|href=\"(?!#)|<image|<metadata", figure.svg)
        assert "#0101" not in figure.svg
        assert "#0202" not in figure.svg
        assert "var(--series-0" in figure.svg
    assert len(identities) == len(set(identities))
    assert "-6.0" in drawn["values-hand-energy"].alt


def test_a_sweep_lies_along_the_path_with_most_values(hand_made: Callable[..., Any]) -> None:
    axis = sweep_axis(hand_made()[0])
    assert axis.label == "density (reduced units)"
    assert axis.values == (0.776, 0.82, 0.86, 0.776)
    assert axis.series == ("temperature 0.85",) * 3 + ("temperature 0.9",)


def test_a_sweep_without_numbers_has_its_points_side_by_side(hand_made: Callable[..., Any]) -> None:
    changes = {"sweep": [{"method.thermostat": "bussi"}, {"method.thermostat": "langevin"}], "repeats": 1}
    axis = sweep_axis(hand_made(**changes)[0])
    assert axis.ticks == ("thermostat bussi", "thermostat langevin")
    assert axis.values == (0.0, 1.0)
    assert {"thermostat bussi", "thermostat langevin"} <= set(words(figures(hand_made, **changes)["values-hand-energy"]))


def test_a_study_of_one_point_is_drawn_too(hand_made: Callable[..., Any]) -> None:
    drawn = figures(hand_made, sweep=[{}], repeats=1)
    assert drawn["values-hand-energy"].title == "Hand energy"


def test_a_conserved_series_is_joined_across_tasks(hand_made: Callable[..., Any]) -> None:
    plan, evidence, _ = hand_made()
    run = plan.realisations[0]
    time, change = conserved_series(run, evidence, "effective_energy")
    assert len(time) == 512
    assert np.all(np.diff(time) >= 0)
    assert time[-1] == pytest.approx(2 * 255 * 0.08)
    assert change[0] == 0
    assert change[256] == pytest.approx(change[255])  # the second task starts where the first ended


def test_blocks_longer_than_the_correlation_give_the_error_of_a_correlated_series() -> None:
    rng = np.random.default_rng(5)
    phi, count = 0.8, 2**15
    noise = rng.normal(size=count)
    series = np.empty(count)
    series[0] = noise[0]
    for index in range(1, count):
        series[index] = phi * series[index - 1] + math.sqrt(1 - phi**2) * noise[index]
    lengths, errors = blocking_curve([Samples(series, np.ones(count), interval=0.5)])
    exact = math.sqrt((1 + phi) / (1 - phi) / count)  # of the mean of an AR(1) series with unit variance
    plateau = errors[lengths == 64.0][0]
    assert errors[0] == pytest.approx(1 / math.sqrt(count), rel=0.05)  # single samples: the naive error
    assert plateau == pytest.approx(exact, rel=0.15)  # 256 blocks: 4.4 % of scatter, three times that allowed
    assert lengths[0] == 0.5


def test_pens_differ_in_more_than_colour_and_lines_are_thinned_to_their_ends() -> None:
    pens = [Pen.number(index) for index in range(24)]
    assert len(set(pens)) == 24
    assert len({(pen.marker, pen.dash) for pen in pens}) == 24
    assert thinned(np.zeros(1000), 5).tolist() == [0, 250, 500, 749, 999]
    assert thinned(np.zeros(3), 5).tolist() == [0, 1, 2]
