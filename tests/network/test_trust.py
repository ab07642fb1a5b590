"""Trust: decisions, disagreements and redo as pure values, and closed forms against the simulated network."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manybody.core.errors import InputError
from manybody.core.random import Key
from manybody.network.assurance import (
    Fault,
    assure,
    assure_drawn,
    chance_passes,
    course,
    spot_for,
    standard_faults,
    weakest,
    weakest_drawn,
)
from manybody.network.simulation.population import GARBAGE, OFF, TRUTH, Kind, Network, Population, agree
from manybody.network.simulation.run import Interval, escape_interval, simulate
from manybody.network.trust import (
    NodeRecord,
    Prior,
    Ruling,
    TrustPolicy,
    Work,
    choose_verifiers,
    decide,
    losers,
    parse_policy,
    redo,
    rule,
    settle,
)

KEY = Key.from_seed(11, "trust tests")
POLICY = TrustPolicy()
ALWAYS_SPOTS = TrustPolicy(tolerated=1e9)


# --- records and decisions -------------------------------------------------------------------------------------


def test_a_record_grows_and_is_lost():
    record = NodeRecord("a").with_result().with_agreement(5).with_agreement()
    assert (record.agreed, record.results, record.caught) == (6, 1, 0)
    fallen = record.with_fault()
    assert (fallen.agreed, fallen.results, fallen.caught) == (0, 1, 1)


def test_decisions_follow_the_stated_chances():
    """Frequencies of 1,500 keys within four standard errors of the policy's own numbers."""
    n, segments = 1500, 20
    for agreed in (0, 10, 200):
        record = NodeRecord("a", agreed=agreed)
        made = [decide(record, KEY.derive(i), segments, POLICY) for i in range(n)]
        chance = float(POLICY.replication(agreed, segments))
        whole = sum(d.replicate for d in made)
        assert abs(whole - n * chance) < 4 * math.sqrt(n * chance * (1 - chance))
        assert all(d.chance == chance for d in made)
        hits = np.bincount([s for d in made if not d.replicate for s in d.segments], minlength=segments)
        expected = (n - whole) * POLICY.spots(segments) / segments
        assert np.all(np.abs(hits - expected) < 5 * np.sqrt(expected))


@settings(deadline=None, max_examples=60)
@given(agreed=st.integers(0, 10**6), segments=st.integers(2, 60), seed=st.integers(0, 10**6))
def test_every_result_is_looked_at(agreed, segments, seed):
    decision = decide(NodeRecord("a", agreed=agreed), Key.from_seed(seed), segments)
    assert 1 <= decision.cost <= segments
    assert list(decision.segments) == sorted(set(decision.segments))
    assert all(0 <= s < segments for s in decision.segments)
    assert decision == decide(NodeRecord("a", agreed=agreed), Key.from_seed(seed), segments)
    if decision.replicate:
        assert decision.cost == segments


def test_a_result_of_one_segment_is_replicated_or_not_looked_at():
    """Its chance is that of its node's record, but never below the share of spot checks."""
    assert float(POLICY.replication(0, 1)) > 0.3
    assert float(POLICY.replication(10**6, 1)) == POLICY.spot
    for agreed in (0, 10**6):
        made = [decide(NodeRecord("a", agreed=agreed), KEY.derive(i), 1, POLICY) for i in range(1500)]
        chance = float(POLICY.replication(agreed, 1))
        whole = sum(d.replicate for d in made)
        assert abs(whole - 1500 * chance) < 4 * math.sqrt(1500 * chance * (1 - chance))
        assert all(d.chance == chance and d.segments == ((0,) if d.replicate else ()) for d in made)
    with pytest.raises(InputError, match="node a: expected a result of at least one segment"):
        decide(NodeRecord("a"), KEY, 0)


def test_belief_against_direct_integration():
    """P(bad | m agreed) and the chance of a next false result, by the trapezoid over s with density s^-1/2 / 2."""
    prior, segments = Prior(), 20
    root = np.linspace(0, 1, 200_001)  # s = root^2 removes the singularity: ds s^-1/2 / 2 = d root
    for m in (0, 1, 7, 100):
        silent = np.trapezoid((1 - root**2) ** m, root)
        next_right = np.trapezoid((1 - root**2) ** (m + segments), root)
        bad = 0.1 * silent / (0.1 * silent + 0.9)
        assert prior.still_bad(m) == pytest.approx(bad, rel=1e-8)
        assert prior.next_false(m, segments) == pytest.approx(bad * (1 - next_right / silent), rel=1e-8)


def test_trust_grows_with_the_record_and_never_becomes_blind():
    chances = POLICY.replication(np.arange(0, 10_000, 50), 20)
    assert np.all(np.diff(chances) < 0)
    assert chances[0] > 0.5
    assert 0 < chances[-1] < 0.01
    assert POLICY.spots(20) == 2.0
    assert POLICY.spots(3) == 1.0


# --- verifiers, disagreements, redo ----------------------------------------------------------------------------


def test_verifiers_are_others_and_different():
    nodes = [f"n{i}" for i in range(6)]
    for i in range(200):
        chosen = choose_verifiers(nodes, ["n0"], KEY.derive(i), 5)
        assert sorted(chosen) == nodes[1:]
    assert len(choose_verifiers(nodes, ["n0"], KEY, 12)) == 12
    assert choose_verifiers(nodes, [], KEY, 0) == ()
    with pytest.raises(InputError, match="a node besides the one that computed"):
        choose_verifiers(["a"], ["a"], KEY, 1)


def test_verifiers_are_drawn_evenly():
    nodes = [f"n{i}" for i in range(5)]
    drawn = [choose_verifiers(nodes, ["n0"], KEY.derive(i), 1)[0] for i in range(4000)]
    for node in nodes[1:]:
        assert abs(drawn.count(node) - 1000) < 4 * math.sqrt(4000 * 0.25 * 0.75)


@pytest.mark.parametrize(
    ("answers", "margin", "winner", "lost"),
    [
        ({}, 2, None, ()),
        ({"a": 1, "b": 2}, 2, None, ()),
        ({"a": 1, "b": 2, "c": 2}, 2, None, ()),
        ({"a": 1, "b": 2, "c": 2, "d": 2}, 2, 2, ("a",)),
        ({"a": 1, "b": 2, "c": 2}, 1, 2, ("a",)),
        ({"a": 1, "b": 2, "c": 3, "d": 3, "e": 3}, 2, 3, ("a", "b")),
        ({"a": 1, "b": 1}, 2, 1, ()),
    ],
)
def test_a_disagreement_needs_a_lead(answers, margin, winner, lost):
    for order in itertools.islice(itertools.permutations(answers.items()), 24):
        assert settle(dict(order), margin) == winner
        assert losers(dict(order), margin) == lost


@pytest.mark.parametrize(
    ("answers", "drawn", "settled", "lost"),
    [
        ({}, True, False, ()),
        ({"a": 1}, False, True, ()),
        ({"a": 1}, True, False, ()),
        ({"a": 1, "b": 1}, True, True, ()),
        ({"a": 1, "b": 2}, False, False, ()),
        ({"a": 1, "b": 2, "c": 2}, True, False, ()),
        ({"a": 1, "b": 2, "c": 2, "d": 2}, True, True, ("a",)),
        ({"a": 1, "b": 2, "own": 2}, True, True, ("a",)),
        ({"a": 1, "b": 1, "c": 1, "own": 2}, True, True, ("a", "b", "c")),
        ({"own": 2}, True, True, ()),
    ],
)
def test_what_answers_come_to(answers, drawn, settled, lost):
    assert rule(answers, drawn, 2, "own") == Ruling(settled, lost)


@pytest.mark.parametrize(
    ("words", "policy"),
    [
        ("off", None),
        ("default", TrustPolicy()),
        ("spot=0.2", TrustPolicy(spot=0.2)),
        (" spot = 0.2 , margin=3,arbiter=no,bad=0.3", TrustPolicy(spot=0.2, margin=3, arbiter=False, prior=Prior(bad=0.3))),
    ],
)
def test_policies_in_words(words, policy):
    assert parse_policy(words) == policy


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("spto=0.2", "Did you mean `spot`"),
        ("of", "Did you mean `off`"),
        ("", "expected `off`, `default`, or settings"),
        ("spot=2", "--trust spot.*got `2`.*less than or equal to 1"),
        ("bad=0", "--trust bad: expected chance that an unknown node is bad; got `0`"),
        ("margin=much", "--trust margin.*got `much`"),
    ],
)
def test_words_that_are_no_policy_say_what_to_do(words, complaint):
    with pytest.raises(InputError, match=complaint):
        parse_policy(words)


def test_what_a_caught_node_touched():
    history = [
        Work("computed", "bad", checks=((3, "a"),)),
        Work("replicated", "bad", replicas=("a",)),
        Work("replicated-by-friend", "bad", replicas=("friend",)),
        Work("vouched", "a", checks=((1, "bad"), (2, "b"))),
        Work("vouched-whole", "a", replicas=("bad",)),
        Work("vouched-and-replicated", "a", checks=((1, "bad"),), replicas=("b",)),
        Work("elsewhere", "b", checks=((1, "a"),)),
    ]
    again = redo(["bad", "friend"], history)
    assert again.compute == ("computed", "replicated-by-friend", "vouched-whole")
    assert again.check == (("vouched", 1),)
    assert redo([], history) == redo(["nobody"], history)
    assert redo([], history).compute == ()


# --- closed forms ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segments", "wrong", "checked", "friends"), [(6, 2, 3, 0.0), (6, 2, 3, 0.3), (5, 5, 2, 0.1), (4, 0, 2, 0.0), (4, 2, 0, 0.5)]
)
def test_the_chance_to_pass_by_enumeration(segments, wrong, checked, friends):
    chosen = list(itertools.combinations(range(segments), checked))
    exact = sum(friends ** sum(s < wrong for s in choice) for choice in chosen) / len(chosen)
    assert chance_passes(segments, wrong, checked, friends) == pytest.approx(exact, rel=1e-14)


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match=r"within 0 \.\. 5"):
        chance_passes(5, 6, 1)


def test_without_replicas_the_chance_to_stay_at_large_is_a_power():
    """S = 20, two spots, one wrong segment in a fifth of the results, honest as verifier: (1 - p / 10)^n."""
    fault = Fault(label="", rate=0.2, wrong=1)
    large = course(fault, 50, 20, ALWAYS_SPOTS).large
    np.testing.assert_allclose(large, (1 - 0.2 * 2 / 20) ** np.arange(51), rtol=1e-6)


def test_the_assurance_is_what_a_certificate_can_state():
    found = weakest(300, 20)
    assert found.fault == "one segment wrong in a fifth of the results"
    assert found.in_the_end == max(assure(300, 20, fault).in_the_end for fault in standard_faults(20))
    assert found.in_the_end < 1e-3
    assert found.extra_cost < 0.15
    assert type(found).model_validate_json(found.model_dump_json()) == found
    assert "stand in the end" in found.claim()


def test_an_assurance_after_the_fact_is_the_one_before_it():
    """At equal chances both closed forms are the same, where nothing is learned from what a bad node verifies."""
    policy = TrustPolicy(tolerated=1e9)  # so that nothing but the share of spot checks decides
    for fault in (Fault(label="", rate=0.2, wrong=1), Fault(label="", rate=1.0, wrong=1, friends=0.3)):
        before = assure(30, 1, fault, policy)
        after = assure_drawn([[policy.spot] * 30] * 4, fault, 0.1, 0.0)
        assert after.in_the_end == pytest.approx(before.in_the_end, rel=1e-6)
        assert after.at_first == pytest.approx(before.at_first, rel=1e-6)
        assert after.share == pytest.approx(before.share, rel=1e-6)
    assert assure_drawn([], fault, 0.0, 0.0).in_the_end == 0.0
    assert 0 < weakest_drawn([[1.0] * 5], 1.0, 0.0).in_the_end < 0.02, "friends alone can help"


def test_more_results_and_more_checks_leave_less():
    fault = standard_faults(20)[-1]
    ends = [assure(n, 20, fault).in_the_end for n in (25, 50, 100, 200, 400)]
    assert all(a > b for a, b in itertools.pairwise(ends))
    assert assure(100, 20, fault, TrustPolicy(spot=0.2)).in_the_end < ends[2]


def test_the_least_checks_for_an_aim():
    fault = standard_faults(20)[-1]
    found = spot_for(1e-3, 100, 20, fault)
    assert assure(100, 20, fault, found).in_the_end <= 1e-3
    less = found.model_copy(update={"spot": found.spot - 0.01})
    assert assure(100, 20, fault, less).in_the_end > 1e-3
    assert spot_for(1e-3, 1, 20, Fault(label="", rate=1.0, wrong=20, friends=0.5)) is None


# --- the simulated network -------------------------------------------------------------------------------------


def runs(rule, seeds, policy=None, **population):
    return [simulate(rule, Population(**population), Key.from_seed(seed, "trust"), policy) for seed in range(seeds)]


def mean(values):
    interval = Interval.of(list(values))
    return interval.mean, (interval.high - interval.low) / 2 / 1.96  # the standard error, a little large


def assert_near(values, expected):
    centre, error = mean(values)
    assert abs(centre - expected) < 4 * error + 1e-12


def test_garbage_agrees_with_nothing():
    a = np.array([TRUTH, OFF, GARBAGE])
    np.testing.assert_array_equal(agree(a, a), [True, True, False])


def test_a_run_is_its_seed():
    assert runs("ours", 1, nodes=100, results=20) == runs("ours", 1, nodes=100, results=20)


def test_kinds_and_their_rates():
    population = Population(nodes=2000, bad=0.25, results=60)
    network = Network(population, KEY)
    false = np.zeros(2000)
    for _ in range(60):
        false += np.any(network.results(np.arange(2000)) != TRUTH, axis=1)
    share = {kind: false[network.kinds == kind].mean() / 60 for kind in Kind}
    assert share[Kind.GOOD] == 0
    assert share[Kind.OFF] == 1
    for kind, rate in ((Kind.LAZY, 0.5), (Kind.FLIPS, 0.2), (Kind.COLLUDING, 0.2)):
        assert abs(share[kind] - rate) < 4 * math.sqrt(rate * (1 - rate) / 6000)
    assert 0 < share[Kind.TURNING] < 0.2


def test_no_checks_cost_nothing_and_find_nothing():
    (outcome,) = runs("none", 1, nodes=100, results=20)
    assert outcome.cost == 1.0
    assert outcome.escape == 1.0


def test_good_nodes_are_left_alone():
    for policy in ("quorum", "boinc", "ours"):
        (outcome,) = runs(policy, 1, nodes=100, results=30, bad=0.0)
        assert (outcome.false_given, outcome.false_accepted, outcome.good_caught) == (0, 0, 0)


def test_quorum_two_against_nodes_off_by_one_per_cent():
    """Two of three agree: with a share g that agree with one another, 3 g^2 (1 - g) + g^3 is false; cost 2 + 2 g (1 - g).

    Drawn without replacement, g^2 is g (B - 1) / (N - 1), and so on.
    """
    n, b = 200, 20
    first, second, third = b / n, (b - 1) / (n - 1), (b - 2) / (n - 2)
    two = first * second * (n - b) / (n - 2)
    outcomes = runs("quorum", 5, nodes=n, bad=0.1, mix=(Kind.OFF,), results=16)
    assert_near([o.share for o in outcomes], 3 * two + first * second * third)
    assert_near([o.cost for o in outcomes], 2 + 2 * first * (n - b) / (n - 1))


def test_boinc_replicates_ever_less():
    """Good nodes only. A replica counts for both, so a node has n = 10 after 5 results and dn/dt = 2 / n from then on.

    So n = sqrt(100 + 4 (t - 5)), and the replicas of T results are 5 + (sqrt(100 + 4 (T - 5)) - 10) / 2.
    """
    results = 100
    (outcome,) = runs("boinc", 1, nodes=300, results=results, bad=0.0)
    replicas = 5 + (math.sqrt(100 + 4 * (results - 5)) - 10) / 2
    assert outcome.cost - 1 == pytest.approx(replicas / results, rel=0.1)


@pytest.mark.parametrize(
    ("mix", "lie", "fault"),
    [
        ((Kind.FLIPS,), 20, Fault(label="", rate=0.2, wrong=1, as_verifier=True)),
        ((Kind.COLLUDING,), 1, Fault(label="", rate=0.2, wrong=1, friends=0.05)),
    ],
)
def test_the_closed_form_is_what_the_simulation_does(mix, lie, fault):
    """Escape and cost of one kind of bad node, small enough that some escape. Redone work keeps good nodes a little
    longer at work, which the closed form leaves out: 2 % of the cost and of the exponent of the escape."""
    outcomes = runs("ours", 12, nodes=200, bad=0.05, mix=mix, lie_segments=lie, results=40)
    found = assure(42, 20, fault, POLICY, bad=0.05)  # those that are left do the work of the caught, 1 / 0.95
    given = sum(o.false_given for o in outcomes)
    escape, error = mean([o.false_accepted * 12 / given for o in outcomes])
    assert abs(escape - found.in_the_end) < 4 * error
    assert np.mean([o.cost for o in outcomes]) - 1 == pytest.approx(found.extra_cost, rel=0.06)
    first, error = mean([o.false_at_first * 12 / given for o in outcomes])
    assert abs(first - found.at_first) < 4 * error


def test_results_of_one_segment_in_the_simulation():
    """What a run does whose segments are tasks: escape and cost as the closed form has them."""
    outcomes = runs("ours", 12, nodes=200, bad=0.05, mix=(Kind.FLIPS,), segments=1, lie_segments=1, results=25)
    found = assure(26, 1, Fault(label="", rate=0.2, wrong=1, as_verifier=True), POLICY, bad=0.05)
    escape, error = mean([o.false_accepted * 12 / sum(o.false_given for o in outcomes) for o in outcomes])
    assert abs(escape - found.in_the_end) < 4 * error
    assert np.mean([o.cost for o in outcomes]) - 1 == pytest.approx(found.extra_cost, rel=0.06)


def test_checks_alone_cost_what_they_should():
    (outcome,) = runs("ours", 1, nodes=200, bad=0.0, results=50)
    replicated = course(None, 50, 20, POLICY).replicated
    assert outcome.cost - 1 == pytest.approx(np.mean(replicated + (1 - replicated) * 0.1), rel=0.02)


def test_the_aim_with_every_kind_at_once():
    """A tenth of 300 nodes bad, five kinds; at most one false result in a thousand stands, at under 1.15."""
    ours = runs("ours", 1, nodes=300, results=300)
    assert escape_interval(ours).mean <= 1e-3
    assert max(o.cost for o in ours) < 1.15
    (boinc,) = runs("boinc", 1, nodes=200, results=200)
    assert boinc.escape > 0.05
    assert boinc.cost > 1.1


def test_what_is_not_reached():
    """One-off errors of good nodes leave no pattern: nine in ten pass, and the policy does not pretend otherwise."""
    (outcome,) = runs("ours", 1, nodes=200, results=100, bad=0.0, transient=0.002)
    assert outcome.escape > 0.5
    assert outcome.share < 0.002


def test_colluders_do_not_expel_the_good():
    outcomes = runs("ours", 4, nodes=200, bad=0.1, mix=(Kind.COLLUDING,), results=50)
    assert sum(o.good_caught for o in outcomes) <= 2
