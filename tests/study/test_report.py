from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from manybody.core.certificate import Certificate, Finding, Verdict
from manybody.study.export import write_results
from manybody.study.notation import with_error
from manybody.study.report import conclusion, flat, ranked, sentence, write_report

PROVENANCE = {"versions": {"manybody": "0.1.0", "numpy": "2.4"}, "host": "a-machine", "tasks": {"computed": 20, "cached": 4}}
COMMAND = "manybody run studies/hand-made --set seed=3"


class Page(HTMLParser):
    """What a test needs of a page: its elements with their attributes, and the text a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._hidden = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._hidden += tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)

    @property
    def text(self) -> str:
        """All visible words, with single spaces."""
        return " ".join(" ".join(self.words).split())

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        """The attributes of every element with one of the tags."""
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture
def page(hand_made: Callable[..., Any], tmp_path: Path) -> Callable[..., tuple[Page, str]]:
    def make(**changes: Any) -> tuple[Page, str]:
        plan, evidence, certificate = hand_made(**changes)
        text = write_report(tmp_path, plan, evidence, certificate, PROVENANCE, COMMAND).read_text()
        return Page(text), text

    return make


def finding(name: str, verdict: Verdict) -> Finding:
    return Finding(name=name, kind="invariant", claim="c", value=1.0, tolerance=2.0, tolerance_from="t", verdict=verdict)


def test_the_answer_comes_first_with_error_bars_and_verdict(hand_made: Callable[..., Any], page: Callable[..., Any]) -> None:
    plan, evidence, _ = hand_made()
    shown, _ = page()
    places = [shown.text.index("What is the energy of the written series?"), shown.text.index("All 4 claims tested hold.")]
    for point in plan.points:
        number = evidence.estimate(point, "hand-energy")
        places.append(shown.text.index(with_error(number.value, number.error)))
    assert max(places) < shown.text.index("Certificate", max(places))
    assert places[0] < min(places[1:])
    assert "reference -5.432(10)" in shown.text


def test_failing_claims_come_first_and_are_said_in_words(page: Callable[..., Any]) -> None:
    shown, text = page(offset=1.0)
    assert "0 of 4 claims hold; not so: hand-energy at temperature 0.85, density 0.776 (fails)" in shown.text
    assert "Not every claim holds" in shown.text
    assert text.count('<tr class="fails">') == 4


def test_kinds_of_check_that_were_not_made_are_said(page: Callable[..., Any]) -> None:
    shown, _ = page()
    assert "Not checked: invariant, convergence, replication, statistics, calibration." in shown.text


def test_provenance_names_command_digest_workers_and_versions(hand_made: Callable[..., Any], page: Callable[..., Any]) -> None:
    plan, _, certificate = hand_made()
    shown, _ = page()
    for text in (
        COMMAND,
        certificate.digest,
        "local-0 (12), local-1 (12)",
        "versions: numpy 2.4",
        "a-machine",
        "tasks: cached 4",
    ):
        assert text in shown.text
    for run in plan.realisations:
        assert run.tasks[-1].digest[::-1][:16] in shown.text


def test_nothing_is_asked_of_anyone(page: Callable[..., Any]) -> None:
    shown, text = page()
    assert not shown.all("script", "iframe", "object", "embed", "base", "img", "audio", "video")
    assert all(link["href"] == "data:," for link in shown.all("link"))
    assert not any(key in attributes for _, attributes in shown.elements for key in ("src", "srcset", "onload", "onclick"))
    assert not re.search(r"@import|url\((?!#)", text)
    assert "default-src 'none'" in text


def test_a_hostile_study_is_harmless(page: Callable[..., Any]) -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    shown, text = page(title=attack, question=attack, citations=[attack, "javascript:alert(3)"])
    assert not shown.all("script", "img")
    assert attack in shown.text
    assert not any((link["href"] or "").startswith("javascript") for link in shown.all("a"))
    assert "<script" not in text


def test_headings_tables_and_regions_serve_a_screen_reader(page: Callable[..., Any]) -> None:
    shown, text = page()
    levels = [int(tag[1]) for tag, _ in shown.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert len(shown.all("table")) == len(shown.all("caption"))
    assert all(cell.get("scope") in ("col", "row") for cell in shown.all("th"))
    assert all(region.get("aria-label") for region in shown.all("div") if region.get("role") == "region")
    identities = [attributes["id"] for _, attributes in shown.elements if attributes.get("id")]
    assert len(identities) == len(set(identities))
    for _, attributes in shown.elements:
        assert all(name in identities for name in (attributes.get("aria-labelledby") or "").split())
    targets = [link["href"] for link in shown.all("a") if (link["href"] or "").startswith("#")]
    assert {target.removeprefix("#") for target in targets} <= set(identities)
    assert '<html lang="en">' in text


def test_links_lead_to_the_files_that_are_there(hand_made: Callable[..., Any], tmp_path: Path) -> None:
    plan, evidence, certificate = hand_made()
    write_results(tmp_path, plan, evidence)
    (tmp_path / "certificate.json").write_text(certificate.model_dump_json())
    report = write_report(tmp_path, plan, evidence, certificate, PROVENANCE, COMMAND)
    links = {link["href"] for link in Page(report.read_text()).all("a")}
    assert {"certificate.json", "results.zarr", "configurations.extxyz"} <= links
    assert "study.yaml" not in links
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_swept_values_have_units_where_the_study_has_scales(page: Callable[..., Any]) -> None:
    argon = {"length": 3.405e-10, "energy": 119.8 * 1.380649e-23, "mass": 6.6335e-26}
    shown, _ = page(units=argon)
    assert "101.83 K" in shown.text  # 0.85 x 119.8 K
    assert "3.405e-10 m" in shown.text


def test_the_same_evidence_gives_the_same_report(page: Callable[..., Any]) -> None:
    assert page()[1] == page()[1]


def test_a_certificate_without_checks_decides_nothing(hand_made: Callable[..., Any], tmp_path: Path) -> None:
    plan, evidence, _ = hand_made()
    empty = Certificate.of(plan.study.name, plan.study.digest, [])
    shown = Page(write_report(tmp_path, plan, evidence, empty, {}, COMMAND).read_text())
    assert "No claim was tested, so nothing is decided." in shown.text
    assert "undecided" in shown.text


def test_findings_rank_by_how_bad_they_are_and_conclusions_count_them() -> None:
    found = [
        finding("a", Verdict.HOLDS),
        finding("b", Verdict.FAILS),
        finding("c", Verdict.UNDECIDED),
        finding("d", Verdict.FAILS),
    ]
    assert [each.name for each in ranked(found)] == ["b", "d", "c", "a"]
    assert conclusion(Certificate.of("s", "d", found)) == "1 of 4 claims hold; not so: b (fails), d (fails), c (undecided)."
    assert conclusion(Certificate.of("s", "d", found * 2)).endswith(", and 3 more.")
    assert conclusion(Certificate.of("s", "d", found[:1])) == "The one claim tested holds."


def test_nested_documents_become_rows_and_words_sentences() -> None:
    rows = dict(flat({"a": {"b": 1.23456789, "c": [1, 2]}, "d": None}))
    assert rows == {"a: b": "1.23457", "a: c": "1, 2", "d": "none"}
    assert sentence("velocity Verlet; NVE") == "Velocity Verlet; NVE."
