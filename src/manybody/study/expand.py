"""Expand: a study becomes tasks, sweep times repeats, and the tasks that its checks ask for."""

from __future__ import annotations

from dataclasses import replace

from manybody.core.study import Plan, Realisation, Study


def expand(study: Study) -> Plan:
    """The plan of a study. The same study gives the same tasks, with the same digests, anywhere."""
    realisations = []
    for index in range(len(study.sweep)):
        point = study.point(index)
        for repeat in range(study.repeats):
            tasks, measured = point.method.plan(point.system, study.seed, repeat)
            realisations.append(Realisation(point, repeat, tasks, measured))
    plan = Plan(study, tuple(realisations))
    return replace(plan, evidence=tuple(check.tasks(plan) for check in study.checks))
