"""The protocol by itself: the sum is exact, single vectors are noise, dropouts are made up for, liars are found."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from manybody.core.errors import TaskError
from manybody.federate.secure_sum import Secrets, Terms, between, fixed, masked, numbers, opened, packets, revealed, unmasked
from manybody.federate.shamir import PRIME, Share

NAMES = ("anna", "bert", "cleo", "dora", "emil")


def terms(count=5, threshold=3, **others):
    return Terms(session="0" * 32, parties=NAMES[:count], threshold=threshold, **others)


class Session:
    """A whole session in one process: `silent` parties stop before their vector arrives."""

    def __init__(self, terms, vectors, silent=()):
        self.terms, names = terms, terms.parties
        self.own = {name: Secrets.drawn() for name in names}
        self.known = {name: own.announced(terms, name) for name, own in self.own.items()}
        sent = {name: packets(terms, name, own, self.known) for name, own in self.own.items()}
        came = {name: {other: sent[other][name] for other in names} for name in names}
        self.shares = {name: opened(terms, name, self.own[name], self.known, came[name]) for name in names}
        self.vectors = {
            name: masked(terms, name, self.own[name], self.known, names, vector)
            for name, vector in vectors.items()
            if name not in silent
        }

    def told(self, tellers=None):
        arrived = sorted(self.vectors)
        return {name: revealed(self.terms, name, self.shares[name], arrived) for name in tellers or arrived}

    def total(self, tellers=None):
        return unmasked(self.terms, self.known, self.vectors, self.told(tellers))


def integers(names, length=50, seed=3):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 2**64, length, dtype=np.uint64) for name in names}


def test_the_sum_is_exact():
    vectors = integers(NAMES)
    assert np.array_equal(Session(terms(), vectors).total(), sum(vectors.values(), start=np.uint64(0)))


@pytest.mark.parametrize("silent", [*itertools.combinations(NAMES, 1), *itertools.combinations(NAMES, 2)])
def test_any_parties_may_drop_out_down_to_the_threshold(silent):
    vectors = integers(NAMES)
    kept = [vector for name, vector in vectors.items() if name not in silent]
    assert np.array_equal(Session(terms(), vectors, silent).total(), sum(kept, start=np.uint64(0)))


def test_parties_may_still_drop_out_after_their_vector_has_arrived():
    vectors = integers(NAMES)
    session = Session(terms(), vectors, silent=("emil",))
    total = sum((vectors[name] for name in NAMES[:4]), start=np.uint64(0))
    assert np.array_equal(session.total(tellers=("anna", "cleo", "dora")), total)
    with pytest.raises(TaskError, match="at least 3"):
        session.total(tellers=("anna", "cleo"))


@pytest.mark.parametrize("bits", [0, 16, 32, 40])
def test_numbers_are_rounded_by_half_a_step_each_and_no_more(bits):
    agreed = terms(fraction_bits=bits)
    rng = np.random.default_rng(5)
    values = {name: rng.normal(size=200) * min(1.0, agreed.limit / 10) for name in NAMES}
    total = numbers(Session(agreed, {name: fixed(each, agreed) for name, each in values.items()}).total(), agreed)
    off = np.abs(total - [math.fsum(column) for column in zip(*values.values(), strict=True)])
    assert np.max(off) <= agreed.error(5) * (1 + 1e-9)
    assert np.max(off) > agreed.error(5) / 20, "the bound is not far from what happens"


def test_the_largest_numbers_of_all_parties_add_up():
    agreed = terms()
    values = np.array([agreed.limit, -agreed.limit])
    total = numbers(Session(agreed, dict.fromkeys(NAMES, fixed(values, agreed))).total(), agreed)
    np.testing.assert_array_equal(total, 5 * values)


@pytest.mark.parametrize("value", [1e30, -1e30, np.inf, np.nan])
def test_numbers_that_do_not_fit_are_refused(value):
    with pytest.raises(TaskError, match="expected numbers within"):
        fixed(np.array([0.0, value]), terms())


def bits_of(vector):
    return np.unpackbits(vector.view(np.uint8))


def test_a_masked_vector_of_zeros_looks_like_noise():
    """All bytes equally frequent, all bits even, by chi squared and binomial tests at one in a million each."""
    session = Session(terms(), dict.fromkeys(NAMES, np.zeros(20_000, np.uint64)))
    for vector in session.vectors.values():
        counts = np.bincount(vector.view(np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-6
        assert stats.binomtest(int(bits_of(vector).sum()), vector.size * 64).pvalue > 1e-6


def test_masked_vectors_tell_nothing_apart():
    """Two different vectors give the same distribution of masked ones (Kolmogorov and Smirnov, one in a million)."""
    rng = np.random.default_rng(11)
    agreed = terms()
    one = fixed(rng.normal(size=20_000), agreed)
    for vectors in (dict.fromkeys(NAMES, one), integers(NAMES, 20_000)):
        hidden = Session(agreed, vectors).vectors["anna"].astype(np.float64) / 2.0**64
        assert stats.kstest(hidden, "uniform").pvalue > 1e-6
        assert abs(np.corrcoef(hidden, vectors["anna"].astype(np.float64))[0, 1]) < 5 / np.sqrt(20_000)


def test_parties_below_the_threshold_that_collude_with_the_collector_still_see_noise():
    """They know all their own secrets and all shares they hold; what is left is the seed and the key of an honest pair."""
    agreed = terms()
    session = Session(agreed, dict.fromkeys(NAMES, np.zeros(20_000, np.uint64)))
    colluding, honest = ("anna", "bert"), ("cleo", "dora", "emil")
    told = {name: revealed(agreed, name, session.shares[name], sorted(NAMES)) for name in colluding}
    with pytest.raises(TaskError, match="at least 3"):
        unmasked(agreed, session.known, session.vectors, told)
    left = session.vectors["cleo"]
    for other in colluding:  # they take off the masks that they share with cleo
        left = left - between(agreed, "cleo", other, session.own[other].masks, session.known["cleo"].masks, len(left))
    assert stats.chisquare(np.bincount(left.view(np.uint8), minlength=256)).pvalue > 1e-6
    assert all(np.any(left != session.vectors[name]) for name in honest)


def test_the_collector_cannot_have_both_secrets_of_a_party():
    """Whatever two groups are told: of each other party, one of them alone reaches the threshold."""
    agreed = terms()
    session = Session(agreed, integers(NAMES))
    there = revealed(agreed, "anna", session.shares["anna"], sorted(NAMES))
    gone = revealed(agreed, "anna", session.shares["anna"], ["anna", "bert", "cleo"])
    assert there["emil"] != gone["emil"]
    assert 2 * agreed.threshold > len(agreed.parties), "so no two disjoint groups are both large enough"


@pytest.mark.parametrize(
    "arrived", [["anna", "bert"], ["bert", "cleo", "dora"], ["anna", "bert", "zoe"], ["anna", "anna", "bert", "cleo"]]
)
def test_nothing_is_told_of_a_sum_that_is_none(arrived):
    """Too few, not this party, a stranger, one party twice."""
    session = Session(terms(), integers(NAMES))
    with pytest.raises(TaskError, match="expected"):
        revealed(session.terms, "anna", session.shares["anna"], arrived)


@pytest.mark.parametrize("silent", [(), ("emil",)], ids=["a seed", "a key"])
def test_wrong_shares_are_found(silent):
    session = Session(terms(), integers(NAMES), silent)
    for liar, about in (("anna", "emil"), ("dora", "emil"), ("anna", "bert")):
        told = {name: dict(each) for name, each in session.told().items()}
        share = told[liar][about]
        told[liar][about] = Share(share.x, (share.y + 1) % PRIME)
        with pytest.raises(TaskError, match=r"one polynomial|Somebody has changed"):
            unmasked(session.terms, session.known, session.vectors, told)
    only = {name: dict(session.told()[name]) for name in ("anna", "bert", "cleo")}  # no share to compare with
    only["anna"]["emil"] = Share(1, 5)
    with pytest.raises(TaskError, match=r"one polynomial|Somebody has changed"):
        unmasked(session.terms, session.known, session.vectors, only)


def test_packets_are_for_one_reader_of_one_session():
    agreed = terms()
    own = {name: Secrets.drawn() for name in NAMES}
    known = {name: each.announced(agreed, name) for name, each in own.items()}
    sent = packets(agreed, "anna", own["anna"], known)
    assert sent.keys() == set(NAMES)
    for reader, came in (("cleo", {"anna": sent["bert"]}), ("bert", {"cleo": sent["bert"]})):
        with pytest.raises(TaskError, match="has been changed"):
            opened(agreed, reader, own[reader], known, came)
    with pytest.raises(TaskError, match="has been changed"):
        opened(agreed, "bert", own["bert"], known, {"anna": sent["bert"][:-1] + bytes([sent["bert"][-1] ^ 1])})
    later = agreed.model_copy(update={"session": "1" * 32})
    with pytest.raises(TaskError, match="has been changed"):
        opened(later, "bert", own["bert"], known, {"anna": sent["bert"]})


def test_keys_that_are_not_as_announced_are_refused():
    agreed = terms()
    own = {name: Secrets.drawn() for name in NAMES}
    known = {name: each.announced(agreed, name) for name, each in own.items()}
    for changed in (
        known | {"anna": own["bert"].announced(agreed, "anna")},
        known | {"bert": known["cleo"]},
        {name: known[name] for name in NAMES[:2]},
        {name: known[name] for name in NAMES[1:]},
    ):
        with pytest.raises(TaskError, match="expected"):
            packets(agreed, "anna", own["anna"], changed)
    with pytest.raises(TaskError, match="agrees on nothing"):
        packets(agreed, "anna", own["anna"], known | {"bert": replace(known["bert"], packets=bytes(32))})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"parties": ("anna", "bert"), "threshold": 2}, "at least 3"),
        ({"threshold": 2}, "more than half"),
        ({"threshold": 6}, "no more than all"),
        ({"parties": ("anna", "anna", "bert")}, "each once"),
        ({"session": "again"}, "pattern"),
        ({"parties": ("anna", "bert", "cleo\x1fdora")}, "pattern"),  # it would make two keys' purposes alike
    ],
)
def test_unsafe_terms_are_refused(changes, match):
    with pytest.raises(ValidationError, match=match):
        Terms(**{"session": "0" * 32, "parties": NAMES, "threshold": 3} | changes)
