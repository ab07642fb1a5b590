"""Run: the conductor. Every task of a study computed once, measured, checked and reported."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from manybody.core.certificate import Certificate, Verdict
from manybody.core.protocols import Event, NodeInfo
from manybody.core.study import Plan, Study
from manybody.core.task import Task
from manybody.network.addresses import FEDERATION, open_backend
from manybody.network.local import Embedded
from manybody.network.trust import TrustPolicy, parse_policy
from manybody.store import audits
from manybody.store.home import Home
from manybody.store.ledger import Ledger
from manybody.store.provenance import provenance
from manybody.store.rows import ResultRow
from manybody.study.audit import Auditor
from manybody.study.certify import certify
from manybody.study.compare import Comparing
from manybody.study.conduct import Conductor, Tally
from manybody.study.expand import expand
from manybody.study.gangs import refuse_impossible_gangs
from manybody.study.measure import Measured
from manybody.study.roster import Roster
from manybody.study.stragglers import prepared
from manybody.study.tune import Stopwatch, tune
from manybody.study.word import Word


@dataclass(frozen=True)
class RunOptions:
    """How to run a study: where things are kept and written, on which network and workers, and whether from scratch.

    `trust` says how nodes are checked (`network.trust.parse_policy`); by default those of a federation are, others are not.
    """

    home: Path | None = None
    out: Path | None = None
    workers: int | None = None
    fresh: bool = False
    command: str = ""
    network: str | None = None
    trust: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the verdict, and where the certificate and the report lie."""

    study: str
    digest: str
    verdict: Verdict
    certificate: Path
    report: Path
    tally: Tally
    wall_s: float
    findings: Certificate


class Listener(Protocol):
    """Who is told how a run goes."""

    def planned(self, plan: Plan, cached: int, nodes: Sequence[NodeInfo], expected_s: float) -> None:
        """What will be done, before anything is."""

    def event(self, event: Event, task: Task, tally: Tally, left_s: float | None) -> None:
        """Something happened to a task."""

    def judged(self, outcome: Outcome) -> None:
        """The verdict."""


def run_study(study: Study, options: RunOptions, listener: Listener) -> Outcome:
    """Run a study to its certificate.

    Finished work is kept whatever happens. Raises `TaskError` where a task fails, `BudgetError` where the study's
    wall time is over, `StoreError` where results cannot be kept; KeyboardInterrupt goes through.
    """
    begin = time.monotonic()
    policy = policy_for(options.trust, options.network)  # wrong words are refused before anything is done
    home = Home(options.home)
    tuned = tune(study, home, options.network, options.workers, options.fresh, listener)
    study = tuned.study
    plan = replace(expand(study), notes=tuned.notes)
    watch = Stopwatch(plan, listener)
    out = options.out or Path("runs") / f"{study.name}-{study.digest[:8]}"
    out.mkdir(parents=True, exist_ok=True)
    origin = provenance()
    with closing(home.ledger()) as ledger:
        ledger.record_study(study)
        run = ledger.begin_run(study.digest, out, options.command, origin)
        verdict, certificate_path, report_path = "interrupted", None, None
        try:
            ledger.add_tasks(run, plan.tasks)
            if options.fresh:
                _forget(plan, ledger)
            tally, results, word = _compute(plan, run, ledger, home, options, policy, watch)
            told = origin | {"tasks": f"{tally.total}: {tally.computed} computed in this run, {tally.cached} kept from before"}
            told |= tuned.told(watch.seconds)
            certificate, certificate_path, report_path = certify(
                plan, Measured(plan, results, home.objects), out, told, options.command, word
            )
            verdict = certificate.verdict
        except Exception as error:
            verdict = f"stopped: {type(error).__name__}"
            raise
        finally:
            ledger.end_run(run, str(verdict), certificate_path, report_path)
    outcome = Outcome(
        study.name, study.digest, certificate.verdict, certificate_path, report_path, tally, time.monotonic() - begin, certificate
    )
    listener.judged(outcome)
    return outcome


def _forget(plan: Plan, ledger: Ledger) -> None:
    """Withdraw every result of a plan, and those that checked them."""
    computations = [task.digest for task in plan.tasks]
    with ledger.database.reading() as connection:
        checks = [each.task for each in audits.of(connection, computations) if not each.withdrawn]
    for digest in dict.fromkeys([*computations, *checks]):
        ledger.withdraw(digest, "computed afresh on request")


def _compute(
    plan: Plan, run: int, ledger: Ledger, home: Home, options: RunOptions, policy: TrustPolicy | None, listener: Listener
) -> tuple[Tally, dict[str, ResultRow], Word]:
    """Have every task of a plan computed that is not yet, and its nodes checked; and what is known of these."""
    with closing(open_backend(options.network, home, options.workers)) as reached:
        refuse_impossible_gangs(plan, reached)
        plan, backend = prepared(plan, ledger, reached)
        roster = Roster(ledger, processes=options.network is None and policy is not None)
        auditor = None
        if policy is not None:
            auditor = Auditor(
                plan.tasks, plan.study.digest, ledger, home.secret, policy, roster, Comparing(plan, home.objects), plan.alone
            )
        arbiter = partial(Embedded, home.objects.root, options.workers) if policy and policy.arbiter else None
        conductor = Conductor(plan, run, ledger, home.objects, backend, auditor, arbiter)
        cached = conductor.recover()
        listener.planned(plan, cached, backend.nodes(), conductor.expected_s)
        tally = conductor.conduct(listener.event)
    results = {task.digest: conductor.standing.rows[task.digest] for task in plan.tasks}
    return tally, results, Word(plan, results, ledger, roster, policy, len(auditor.undecided) if auditor else 0)


def policy_for(trust: str | None, network: str | None) -> TrustPolicy | None:
    """How nodes are checked: as is asked for, else by default in a federation, and not where all is one organisation's."""
    federated = network is not None and urlsplit(network).scheme in FEDERATION
    return parse_policy(trust if trust is not None else "default" if federated else "off")
