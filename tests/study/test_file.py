"""Study files: what is read is what was meant, in every form that is allowed, with settings in their places."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manybody.core.errors import InputError
from manybody.core.study import Budget, Study
from manybody.core.units import UnitSystem
from manybody.study.dump import new_study
from manybody.study.file import dump_study, load_study, parse_study

BASE = """
name: argon
system: {name: lennard-jones-liquid, temperature: 0.85, density: 0.776}
method: {name: molecular-dynamics}
measures: [potential-energy, radial-distribution]
checks: [conservation, reference: {sigma: 2}]
"""
ARGON = "units: {length: 3.405 angstrom, energy: 119.8 K, mass: 39.948 u}\n"
SWEEP = "sweep:\n  - {system.density: 0.776}\n  - {system.density: 0.82}\n  - {system.density: 0.776, system.temperature: 0.9}\n"


def read(text: str, *given_settings: str) -> Study:
    return parse_study(text, "study.yaml", given_settings)


def complaint(text: str, *given_settings: str) -> str:
    with pytest.raises(InputError) as error:
        read(text, *given_settings)
    return str(error.value)


# --- units -------------------------------------------------------------------------------------------------------


def test_physical_units_become_reduced_ones() -> None:
    text = BASE.replace("temperature: 0.85", "temperature: 95.84 K").replace("density: 0.776", "density: 20 1/nm^3")
    study = read(
        ARGON
        + text.replace(
            "{name: molecular-dynamics}",
            "{name: molecular-dynamics, time_step: 8 fs, segment: 1600 reduced, sample_every: 160 fs, frame_every: 4 ps}",
        )
        + "sweep: {method.duration: [1 ns]}\n",
        "method.segment=40 ps",
    )
    tau = 3.405e-10 * math.sqrt(39.948 * 1.66053906660e-27 / (119.8 * 1.380649e-23))  # sigma sqrt(m / epsilon), seconds
    assert study.system.temperature == pytest.approx(95.84 / 119.8, rel=1e-12)
    assert study.system.density == pytest.approx(20e27 * 3.405e-10**3, rel=1e-12)
    assert study.method.time_step == pytest.approx(8e-15 / tau, rel=1e-8)
    assert study.method.segment == pytest.approx(40e-12 / tau, rel=1e-8)
    assert study.point(0).method.duration == pytest.approx(1e-9 / tau, rel=1e-8)
    assert study.unit_system is not None


def test_reduced_numbers_may_be_named_as_such() -> None:
    assert read(BASE.replace("0.85", "0.85 reduced")).digest == read(BASE).digest


def test_bounds_are_told_in_the_units_of_the_study() -> None:
    said = complaint(ARGON + BASE.replace("0.85", "85 K").replace("0.776", "90 1/nm^3"))
    assert "system.density" in said
    assert "at most 50.6616 1/nm^3" in said  # 2 / sigma^3


def test_budget_is_in_seconds_whatever_the_units() -> None:
    assert read(BASE + "budget: {wall_time: 1.5 h}\n").budget.wall_time_s == 5400
    reduced = ARGON + BASE.replace("0.85", "0.85 reduced").replace("0.776", "0.776 reduced")
    assert read(reduced, "budget.wall_time=2 min").budget.wall_time_s == 120


# --- YAML --------------------------------------------------------------------------------------------------------


def test_anchors_and_aliases() -> None:
    study = read(
        BASE + "sweep:\n  - &first {system.density: 0.7}\n  - {system.density: 0.8}\ncitations: &c [one, two]\nquestion: why\n"
    )
    assert study.citations == ("one", "two")


def test_numbers_are_those_of_yaml_1_2() -> None:
    study = read(BASE + "seed: 010\nscale: 1e-1\ntitle: yes\nquestion: 12:30\n")
    assert (study.seed, study.scale, study.title, study.question) == (10, 0.1, "yes", "12:30")


def test_a_folder_stands_for_its_study(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("\ufeff" + BASE, encoding="utf-8")
    assert load_study(tmp_path) == load_study(tmp_path / "study.yaml") == read(BASE)


# --- sweeps ------------------------------------------------------------------------------------------------------


def test_grid_is_the_outer_product() -> None:
    study = read(BASE + "sweep: {system.density: [0.7, 0.8], system.temperature: [0.8, 0.9, 1.0]}\n")
    points = [(study.point(index).system.density, study.point(index).system.temperature) for index in range(6)]
    assert points == [(density, temperature) for density in (0.7, 0.8) for temperature in (0.8, 0.9, 1.0)]


def test_what_every_point_gives_the_base_may_leave_out() -> None:
    study = read(BASE.replace(", density: 0.776", "") + "sweep: {system.density: [0.7, 0.8]}\n")
    assert study.system.density == 0.7
    said = complaint(BASE.replace(", density: 0.776", "") + "sweep:\n  - {system.density: 0.7}\n  - {system.temperature: 0.8}\n")
    assert "the field `density`" in said


def test_a_field_may_be_impossible_at_one_point_only() -> None:
    said = complaint(BASE + "sweep:\n  - {system.density: 0.7}\n  - {system.atoms: 108}\n")
    assert said.startswith("study.yaml:9 (sweep, system.cutoff): expected at most half the box")


FIELD = """
name: wave
system: {name: advected-field, velocity_x: 1, waves: [{cycles_x: 1, cycles_y: 0}]}
method: {name: finite-volume, rows: 64, columns: 16, time_step: 0.005}
measures: [field-error]
checks: [conservation]
"""


def test_a_method_may_refuse_one_point() -> None:
    said = complaint(FIELD + "sweep:\n  - {system.velocity_x: 0.5}\n  - {system.velocity_x: 100}\n")
    assert said.startswith("study.yaml:9 (sweep, method): expected a time_step of at most")
    assert "\n" not in said


def test_a_value_of_none_of_several_types_is_told_once() -> None:
    said = complaint(FIELD, "method.steps_per_round=some")
    assert said == (
        "--set method.steps_per_round=some: expected a whole number, or one of auto; got `some`. "
        "Give a whole number (time steps a task, or `auto`: chosen from `costs`)."
    )


def test_lists_of_mappings_are_read_field_by_field() -> None:
    assert read(dump_study(read(FIELD))).digest == read(FIELD).digest
    said = complaint(FIELD.replace("cycles_y", "cycle_y"))
    assert (
        "study.yaml:3 (system.waves.0.cycle_y): expected a field of system.waves.0; got `cycle_y`. Did you mean `cycles_y`?"
        in said
    )


# --- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("system.temperature=0.9", "system.temperature", 0.9),
        ("method.time_step=0.002", "method.time_step", 0.002),
        ("method.thermostat=langevin", "method.thermostat", "langevin"),
        ("system.tail_correction=false", "system.tail_correction", False),
        ("repeats=4", "repeats", 4),
        ("seed=7", "seed", 7),
        ("scale=2.5", "scale", 2.5),
        ("name=krypton", "name", "krypton"),
        ("title=A title: with a colon", None, None),
        ("title='A title: with a colon'", "title", "A title: with a colon"),
        ("budget.wall_time=30 s", "budget.wall_time_s", 30.0),
        ("checks.reference.sigma=4", "checks.1.sigma", 4.0),
        ("checks.conservation={}", "checks.0.name", "conservation"),
        ("measures.radial-distribution.bins=50", "measures.1.bins", 50),
        ("measures=[pressure]", "measures.0.name", "pressure"),
        ("citations=[one]", "citations.0", "one"),
        ("sweep={system.density: [0.7, 0.8]}", "sweep.1", {"system.density": 0.8}),
        ("system={name: lennard-jones-liquid, temperature: 1, density: 0.7}", "system.density", 0.7),
    ],
)
def test_a_setting_reaches_every_field(setting: str, path: str | None, value: object) -> None:
    if path is None:
        assert "--set title" in complaint(BASE, setting)
        return
    found: object = read(BASE, setting)
    for word in path.split("."):
        found = found[int(word)] if isinstance(found, tuple) else getattr(found, word)
    assert found == value


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("system.temprature=1", "Did you mean `temperature`?"),
        ("sytem.temperature=1", "Did you mean `system`?"),
        ("repeats", "`path=value`"),
        ("=3", "`path=value`"),
        ("system..temperature=3", "`path=value`"),
        ("repeats=[1", "expected YAML"),
        ("repeats={a: 1, a: 2}", "each field once"),
        ("repeats=two", "a whole number"),
        ("seed.x=3", "a single value"),
        ("system.temperature.x=3", "which has no fields"),
        ("checks.referense.sigma=3", "Did you mean `reference`?"),
        ("checks.replication.count=3", "one of the study's checks"),
        ("checks.reference.sigmas=3", "Did you mean `sigma`?"),
        ("sweep.system.density=[0.7]", "Set the whole sweep"),
        ("budget.wall_time=30", "without a unit"),
        ("system.temperature=30 K", "in reduced units"),
        ("system.temperature=-1", "more than 0"),
        ("system.atoms=40", "take at least"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, words: str) -> None:
    said = complaint(BASE, setting)
    assert words in said
    assert said.startswith((f"--set {setting}", "study.yaml"))
    assert f"--set {setting}" in said or "system.cutoff" in said


def test_the_last_setting_wins() -> None:
    assert read(BASE, "repeats=2", "repeats=3").repeats == 3


def test_points_that_a_setting_makes_equal_are_merged() -> None:
    study = read(BASE + SWEEP, "system.temperature=0.9")
    assert [study.point(index).system.temperature for index in range(len(study.sweep))] == [0.9, 0.9]
    assert [study.point(index).system.density for index in range(len(study.sweep))] == [0.776, 0.82]


def test_a_setting_without_effect_is_refused() -> None:
    said = complaint(BASE + SWEEP, "system.density=0.8")
    assert said.startswith("--set system.density=0.8: expected a field that the sweep leaves open")
    assert "sweep={system.density: [0.8]}" in said
    assert len(read(BASE + SWEEP, "sweep={system.density: [0.8]}").sweep) == 1


# --- round trip --------------------------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
scales = st.builds(
    UnitSystem,
    length=st.floats(1e-11, 1e-8),
    energy=st.floats(1e-23, 1e-18),
    mass=st.floats(1e-27, 1e-22),
)
points = st.lists(
    st.fixed_dictionaries(
        {"system.density": st.floats(0.1, 1.0)},
        optional={
            "system.temperature": st.floats(0.1, 9),
            "method.duration": st.floats(1, 1e5),
            "system.tail_correction": st.booleans(),
        },
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda point: point["system.density"],
)


@given(
    name=st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True),
    title=text,
    question=text,
    citations=st.lists(text, max_size=3),
    units=st.one_of(st.just("reduced"), scales),
    temperature=st.floats(1e-3, 1e3),
    duration=st.floats(1e-6, 1e9),
    thermostat=st.sampled_from(["bussi", "langevin", "none"]),
    sweep=points,
    repeats=st.integers(1, 1000),
    scale=st.floats(1e-9, 1e9),
    bins=st.integers(4, 10_000),
    seed=st.integers(0, 2**80),
    wall_time=st.floats(1e-6, 1e12),
)
@settings(max_examples=150, deadline=None)
def test_what_is_dumped_is_what_is_loaded(
    name, title, question, citations, units, temperature, duration, thermostat, sweep, repeats, scale, bins, seed, wall_time
) -> None:
    study = Study(
        name=name,
        title=title,
        question=question,
        units=units,
        system={"name": "lennard-jones-liquid", "temperature": temperature, "density": 0.5},
        method={"name": "molecular-dynamics", "duration": duration, "thermostat": thermostat},
        sweep=tuple(sweep),
        repeats=repeats,
        scale=scale,
        measures=("pressure", {"name": "radial-distribution", "bins": bins}),
        checks=("conservation", {"name": "reference", "sigma": 2.5}),
        seed=seed,
        budget=Budget(wall_time_s=wall_time),
        citations=tuple(citations),
    )
    again = read(dump_study(study))
    assert again == study
    assert again.digest == study.digest


def test_the_file_to_start_from_loads_as_it_is() -> None:
    study = read(new_study("lennard-jones-liquid"))
    assert study.system.name == "lennard-jones-liquid"
    assert {measure.name for measure in study.measures} >= {"potential-energy", "pressure", "radial-distribution"}
    assert study.method.name == "molecular-dynamics"
    assert "density" not in {measure.name for measure in study.measures}  # which is given at constant volume


def test_a_file_for_an_unknown_system_is_refused() -> None:
    with pytest.raises(InputError, match="Did you mean `lennard-jones-liquid`"):
        new_study("lenard-jones")
