"""Audits: what nodes answered to each computation, who is believed, and what has to be done again.

A task of a chain is a segment between two stored states, so computing it once more elsewhere checks that segment. Which
results are recomputed follows from the node's record and a secret of the coordinator's (`manybody.network.trust`). All
that is decided stands in the ledger (`manybody.store.audits`), so a run that was killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

from manybody.core.certificate import Verdict
from manybody.core.random import Key
from manybody.core.task import Output, Task
from manybody.network.trust import NodeRecord, TrustPolicy, Work, decide, redo, rule
from manybody.store import audits
from manybody.store.audits import Audit
from manybody.store.ledger import Ledger
from manybody.study.roster import OWN, Roster, Somebody
from manybody.study.structure import Shapes

TRUST = "trust: "  # how the reason of a result begins that went because of a caught node
JOINT = "it went on from another node's checkpoint"  # so that nobody can tell whose a fault is
FIRST_AUDIT = 1000  # replicas from this one on are audits; those that checks ask for have lower numbers


def is_audit(task: Task) -> bool:
    """Whether a task recomputes another to check its node."""
    return task.replica >= FIRST_AUDIT


@dataclass(frozen=True)
class Answer:
    """What a node found for a computation: the result of the task or of a replica of it."""

    computation: str
    task: str
    replica: int
    attempt: str
    node: Somebody
    result: str


@dataclass(frozen=True)
class Comparison:
    """Whether two answers agree, and by what that was judged."""

    verdict: Verdict
    how: str


Compare = Callable[[Answer, Answer], Comparison]


@dataclass
class Case:
    """A computation, and the answers to it that count, by task."""

    task: Task
    answers: dict[str, Answer] = field(default_factory=dict)
    drawn: bool = False
    doubted: bool = False
    settled: bool = True
    given_up: bool = False
    lost: set[str] = field(default_factory=set)

    @property
    def original(self) -> Answer | None:
        """The answer that stands as the result."""
        return self.answers.get(self.task.digest)


@dataclass(frozen=True)
class Withdrawal:
    """A result that counts no more, and why."""

    task: str
    reason: str


class Auditor:
    """Decides on every result of a study which nodes to believe. The conductor computes, and withdraws, what it says."""

    def __init__(
        self, tasks: Iterable[Task], study: str, ledger: Ledger, key: Key, policy: TrustPolicy, roster: Roster, compare: Compare,
        alone: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self.study, self.ledger, self.key, self.policy, self.roster, self.compare = study, ledger, key, policy, roster, compare
        self.alone = alone
        self.cases = {task.replicated(0).digest: Case(task.replicated(0)) for task in tasks}
        self._of = {task.digest: task.replicated(0).digest for task in tasks}
        self._dirty: set[str] = set()
        self._open: set[str] = set()
        self._agreed: set[str] = set()
        self._unrecorded: list[Audit] = []
        self._shapes = Shapes()
        with ledger.database.reading() as connection:
            known = audits.of(connection, list(self.cases))
            self.caught = audits.caught(connection, study)
            records = audits.standings(connection)
        self._fallen = set(self.caught)  # a run that was killed may not have drawn the consequences
        self.records = {node: NodeRecord(node, each.agreed, each.results, each.caught) for node, each in records.items()}
        self._decided = {each.audit.attempt: each.audit for each in known}
        self._agreed = {each.audit.attempt for each in known if each.audit.verdict == "agreed"}
        self.earlier = tuple(
            self.cases[each.audit.computation].task.replicated(each.replica)
            for each in known
            if each.replica >= FIRST_AUDIT and not each.withdrawn
        )

    # --- what is decided, and heard ----------------------------------------------------------------------------

    def decide(self, task: Task, attempt: str, worker: str) -> Audit:
        """Whether the result of an attempt is to be recomputed: what was decided before, or what follows from the record.

        Replicas are held against each other in any case, and what went on from another node's checkpoint is recomputed in
        any case; the coordinator's own machine is taken at its word, and so is a node in what is `alone`: nobody else could
        find the same.
        """
        if attempt in self._decided:
            return self._decided[attempt]
        node = self.roster.find(worker)
        record = self.records.get(node.identity, NodeRecord(node.identity))
        joint = node.identity != OWN and bool(self.roster.helpers(task.digest) - {node.name})
        if node.identity == OWN or task.digest in self.alone:
            chance, drawn = 0.0, False
        elif task.replica or joint:
            chance, drawn = 1.0, joint or is_audit(task)
        else:
            decision = decide(record, self.key.derive("attempt", attempt), 1, self.policy)
            chance, drawn = decision.chance, decision.replicate
        self.records[node.identity] = record.with_result()
        told = JOINT if joint else ""
        self._decided[attempt] = Audit(attempt, self._computation(task), node.identity, chance, drawn, reason=told)
        return self._decided[attempt]

    def hear(self, task: Task, attempt: str, worker: str, result: str) -> None:
        """Take a result that counts into account."""
        case = self.cases[self._computation(task)]
        case.answers[task.digest] = Answer(case.task.digest, task.digest, task.replica, attempt, self.roster.find(worker), result)
        case.drawn = any(self._decided[answer.attempt].drawn for answer in case.answers.values())
        self._dirty.add(case.task.digest)

    def adopt(self, task: Task, attempt: str, worker: str, result: str) -> None:
        """Take a result of an earlier or another run into account, with what that run has decided on it.

        Where nothing was decided, trust having been off, it is now, and recorded with the next review.
        """
        if attempt not in self._decided:
            with self.ledger.database.reading() as connection:
                known = audits.decided(connection, attempt)
            if known:
                self._decided[attempt] = known
                record = self.records.get(known.node, NodeRecord(known.node))
                self.records[known.node] = record.with_result()
            else:
                self._unrecorded.append(self.decide(task, attempt, worker))
        self.hear(task, attempt, worker, result)

    def look(self, task: Task, output: Output) -> None:
        """Have recomputed, for certain, what does not look like the results of most tasks of its kind."""
        if not task.replica:
            for suspect in self._shapes.suspects(task, output):
                self.doubt(suspect)

    def drop(self, task: Task) -> None:
        """Forget a result that counts no more."""
        case = self.cases[self._computation(task)]
        case.answers.pop(task.digest, None)
        case.drawn = any(self._decided[answer.attempt].drawn for answer in case.answers.values())
        self._dirty.add(case.task.digest)

    def condemn(self, task: Task, attempt: str, worker: str, reason: str) -> Audit | None:
        """What to record of a result that is none on the face of it; its node is caught. None for this machine's own."""
        node = self.roster.find(worker).identity
        if node == OWN:
            return None
        self._fallen.add(node)
        return Audit(attempt, self._computation(task), node, 1.0, False, "caught", "structure", self.study, reason)

    def pardon(self, attempts: Iterable[str]) -> None:
        """Take back that nodes were condemned for results which others found, too."""
        with self.ledger.database.writing() as connection:
            for attempt in attempts:
                audits.pardon(connection, attempt, "another node found the same")
            self.caught = audits.caught(connection, self.study)

    def may_err(self, worker: str) -> bool:
        """Whether a worker's word needs another's: it names a node, and not this machine."""
        return bool(worker) and self.roster.find(worker).identity != OWN

    def doubt(self, digest: str) -> bool:
        """Have the result of a task recomputed whatever was drawn; false where that is done, or nobody is left to ask."""
        case = self.cases[self._of[digest]]
        if case.task.digest in self.alone:
            return False
        if not case.doubted and case.original is not None and case.original.node.identity != OWN:
            case.doubted = True
            self._judge(case)
        return not case.settled and not case.given_up

    def refresh(self) -> None:
        """Learn whom other runs of the study have caught meanwhile."""
        with self.ledger.database.reading() as connection:
            self._fallen |= audits.caught(connection, self.study) - self.caught

    # --- what follows ------------------------------------------------------------------------------------------

    def review(self) -> list[Withdrawal]:
        """Judge the computations with news: records agreements and faults; returns the results to withdraw."""
        if self._unrecorded:
            with self.ledger.database.writing() as connection:
                audits.record(connection, self.ledger.database, self._unrecorded)
            self._unrecorded.clear()
        found: list[Withdrawal] = []
        while self._fallen or self._dirty:
            fallen, self._fallen = self._fallen, set()
            while self._dirty:
                lost = self._judge(self.cases[self._dirty.pop()])
                joint = [answer for answer in lost if self._decided[answer.attempt].reason == JOINT]
                found += [Withdrawal(answer.task, f"{TRUST}others found something else; {JOINT}") for answer in joint]
                fallen |= {answer.node.identity for answer in lost if answer not in joint}
            found += self._fall(fallen) if fallen else []
        return found

    def wanted(self) -> list[Task]:
        """The replicas that are needed now: one of each computation that is not settled."""
        unsettled = (self.cases[digest] for digest in self._open)
        return [_next_audit(case) for case in unsettled if not case.given_up and case.original is not None]

    @property
    def undecided(self) -> list[Case]:
        """The computations whose answers were not settled, nobody being left to ask."""
        return [self.cases[digest] for digest in sorted(self._open) if self.cases[digest].given_up]

    def avoid(self, task: Task) -> set[str]:
        """The names of the nodes that must not compute a task: those caught, and for an audit whoever has answered."""
        shunned = set(self.caught_names)
        case = self.cases[self._computation(task)]
        if is_audit(task):
            shunned |= {answer.node.name for answer in case.answers.values()}
        return shunned | case.lost

    def strangers(self, task: Task, there: Iterable[str]) -> set[str]:
        """Of the nodes that are there, those of another class of machine than whose result an audit recomputes.

        None where no other is left: then bits cannot be expected to agree, and what is measured has to.
        """
        original = self.cases[self._computation(task)].original
        classes = {name: self.roster.find(f"{name}/").architecture for name in set(there) - self.avoid(task)}
        others = {name for name, each in classes.items() if original and each != original.node.architecture}
        return others if len(others) < len(classes) else set()

    def give_up(self, task: Task) -> None:
        """There is nobody left to ask: the question stays open."""
        self.cases[self._computation(task)].given_up = True

    @property
    def caught_names(self) -> frozenset[str]:
        """The names of the nodes that were caught in this study."""
        return frozenset(self.roster.named(node) for node in self.caught)

    def ask_again(self) -> None:
        """Somebody has joined: questions that were given up are open again."""
        for digest in self._open:
            self.cases[digest].given_up = False

    def is_caught(self, worker: str) -> bool:
        """Whether the node of a worker was caught in this study."""
        return self.roster.find(worker).identity in self.caught

    # --- judging -----------------------------------------------------------------------------------------------

    def _computation(self, task: Task) -> str:
        return self._of.setdefault(task.digest, task.replicated(0).digest)

    def _judge(self, case: Case) -> list[Answer]:
        """Settle a case as far as it goes; returns the answers that lost."""
        voters = [answer for answer in case.answers.values() if answer.node.identity not in self.caught]
        groups, unsure = self._grouped(voters)
        votes: dict[str, int] = {}
        liars = set()
        for answer in voters:
            group = groups.get(answer.task)
            if group is not None and votes.setdefault(answer.node.identity, group) != group:
                liars.add(answer.node.identity)  # two answers of its own that do not agree
        honest = {node: group for node, group in votes.items() if node not in liars}
        ruling = rule(honest, case.drawn or case.doubted, self.policy.margin, OWN)
        case.settled = (ruling.settled and (len(honest) > 1 or not unsure)) or not voters
        (self._open.discard if case.settled else self._open.add)(case.task.digest)
        out = (liars | set(ruling.losers)) - {OWN}
        lost = [answer for answer in voters if answer.node.identity in out]
        if lost:
            case.lost |= {answer.node.name for answer in lost}
            blamed = [answer for answer in lost if self._decided[answer.attempt].reason != JOINT]
            self._record(case, blamed, "caught", "others found something else")
        elif case.settled and len(votes) > 1:
            self._credit(case, voters)
        return lost

    def _credit(self, case: Case, voters: list[Answer]) -> None:
        """Note that nodes found the same, once for each result."""
        fresh = [each for each in voters if each.attempt not in self._agreed and each.node.identity != OWN]
        self._agreed |= {each.attempt for each in fresh}
        own = [each for each in fresh if self._decided[each.attempt].reason != JOINT]
        for each in own:
            record = self.records.get(each.node.identity, NodeRecord(each.node.identity))
            self.records[each.node.identity] = record.with_agreement()
        self._record(case, own, "agreed")

    def _grouped(self, voters: list[Answer]) -> tuple[dict[str, int], bool]:
        """The group of answers that each task's belongs to, and whether some could not be compared with any."""
        heads: list[Answer] = []
        groups: dict[str, int] = {}
        unsure = False
        for answer in sorted(voters, key=lambda answer: answer.replica):
            found = [self.compare(head, answer).verdict for head in heads]
            if Verdict.HOLDS in found:
                groups[answer.task] = found.index(Verdict.HOLDS)
            elif Verdict.UNDECIDED in found:
                unsure = True
            else:
                groups[answer.task] = len(heads)
                heads.append(answer)
        return groups, unsure

    def _record(self, case: Case, judged: list[Answer], verdict: str, reason: str = "") -> None:
        """Write down what came of the results of some nodes."""
        if not judged:
            return
        others = [answer for answer in case.answers.values() if answer not in judged] or judged
        how = self.compare(others[0], judged[0]).how
        with self.ledger.database.writing() as connection:
            audits.judge(connection, [answer.attempt for answer in judged], verdict, self.study, how, reason)

    def _fall(self, fallen: set[str]) -> list[Withdrawal]:
        """What nodes that are caught have touched: results to withdraw; what they vouched for is open again."""
        self.caught |= fallen
        for node in fallen:
            self.records[node] = self.records.get(node, NodeRecord(node)).with_fault()
        again = redo(self.caught, [work for case in self.cases.values() for work in self._works(case)])
        wanted = set(again.compute)
        wanted |= {
            answer.task
            for case in self.cases.values()
            for answer in case.answers.values()
            if answer.replica >= FIRST_AUDIT and answer.node.identity in self.caught
        }
        self._dirty |= {case.task.digest for case in self.cases.values() if fallen & _identities(case)}
        names = ", ".join(sorted(self.roster.named(node) for node in fallen))
        return [Withdrawal(task, f"{TRUST}touched by {names}, which was caught") for task in sorted(wanted)]

    def _works(self, case: Case) -> list[Work]:
        """The results of a case as the ledger tells of them: each with those who found the same."""
        works = []
        for answer in case.answers.values():
            if answer.replica >= FIRST_AUDIT:
                continue
            same = [
                other.node.identity
                for other in case.answers.values()
                if other.node.identity != answer.node.identity and self.compare(answer, other).verdict is Verdict.HOLDS
            ]
            works.append(Work(answer.task, answer.node.identity, tuple((0, node) for node in same), tuple(same)))
        return works


def _next_audit(case: Case) -> Task:
    """The first replica for audits that has not been computed."""
    replicas = (case.task.replicated(number) for number in count(FIRST_AUDIT))
    return next(replica for replica in replicas if replica.digest not in case.answers)


def _identities(case: Case) -> set[str]:
    return {answer.node.identity for answer in case.answers.values()}


def same_bits(one: Answer, other: Answer) -> Comparison:
    """Answers agree where every bit does."""
    return Comparison(Verdict.HOLDS if one.result == other.result else Verdict.FAILS, "bits")
