"""Studies, points and plans."""

import pytest
from pydantic import ValidationError

from manybody.core.study import Study
from manybody.study.expand import expand

DOCUMENT = {
    "name": "test-liquid",
    "system": {"name": "lennard-jones-liquid", "temperature": 0.85, "density": 0.776},
    "method": {"name": "molecular-dynamics", "duration": 400.0, "segment": 200.0},
    "sweep": [{"system.density": 0.776}, {"system.density": 0.82}],
    "repeats": 2,
    "measures": ["potential-energy"],
    "checks": ["conservation", "convergence", "replication"],
    "seed": 3,
}


def study(**changes: object) -> Study:
    return Study.model_validate(DOCUMENT | changes)


def test_a_study_is_a_value_and_survives_the_way_to_json_and_back() -> None:
    assert study() == study()
    assert Study.model_validate_json(study().model_dump_json()) == study()
    assert study(seed=4).digest != study().digest
    with pytest.raises(ValidationError):
        study().seed = 5  # type: ignore[misc]


def test_a_plan_has_each_task_once_and_inputs_come_first() -> None:
    plan = expand(study())
    digests = [task.digest for task in plan.tasks]
    # 2 points x 2 repeats x (equilibration + 2 segments), 2 points x 2 twins, 1 replica.
    assert len(digests) == len(set(digests)) == 12 + 4 + 1
    for position, task in enumerate(plan.tasks):
        assert all(digests.index(need) < position for need in task.inputs.values())


def test_the_same_study_gives_the_same_tasks() -> None:
    assert [task.digest for task in expand(study()).tasks] == [task.digest for task in expand(study()).tasks]


def test_what_did_not_change_keeps_its_digests() -> None:
    before = {task.digest for run in expand(study()).realisations for task in run.tasks}
    hotter = study(system=DOCUMENT["system"] | {"temperature": 0.9})
    assert not before & {task.digest for run in expand(hotter).realisations for task in run.tasks}
    wider = study(sweep=[*DOCUMENT["sweep"], {"system.density": 0.86}])
    assert before < {task.digest for run in expand(wider).realisations for task in run.tasks}


def test_more_of_the_same_keeps_what_is_done() -> None:
    before = {task.digest for run in expand(study()).realisations for task in run.tasks}
    for more in (study(scale=2.0), study(repeats=3)):
        after = {task.digest for run in expand(more).realisations for task in run.tasks}
        assert before < after


def test_tasks_of_different_points_and_repeats_have_different_randomness() -> None:
    tasks = [task for run in expand(study()).realisations for task in run.tasks]
    assert len({task.key for task in tasks}) == len(tasks)
    assert tasks[0].replicated(1).key == tasks[0].key
    assert tasks[0].replicated(1).digest != tasks[0].digest
    assert tasks[0].model_copy(update={"cost": 99.0}).digest == tasks[0].digest


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"sweep": [{"density": 0.8}]}, "system.density"),
        ({"sweep": [{"system.density": -1.0}]}, "greater than 0"),
        ({"system": {"name": "lennard-jones-liquit", "temperature": 1.0, "density": 0.8}}, "Did you mean `lennard-jones-liquid`"),
        ({"system": {"name": "lennard-jones-liquid", "temperature": 1.0, "density": 0.8, "cutoff": 5.0}}, "half the box"),
        ({"method": {"name": "molecular-dynamics", "segment": 0.1}}, "multiple"),
        ({"repeats": 0}, "greater than or equal to 1"),
        ({"measures": []}, "at least 1"),
        ({"unknown": 1}, "Extra inputs"),
    ],
)
def test_impossible_studies_are_refused(changes: dict[str, object], part: str) -> None:
    with pytest.raises(ValidationError) as caught:
        study(**changes)
    assert part in str(caught.value)
