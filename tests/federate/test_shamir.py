"""Shamir's secret sharing: any threshold of shares give the secret, fewer fit every secret, wrong ones are refused."""

import itertools

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from manybody.core.errors import TaskError
from manybody.federate.shamir import PRIME, SHARE_BYTES, Share, combine, split

SECRET = bytes(range(32))
sizes = st.integers(1, 9).flatmap(lambda count: st.tuples(st.integers(1, count), st.just(count)))


def test_the_modulus_is_a_prime_above_every_secret():
    assert sympy.isprime(PRIME)
    assert PRIME > 2**256


@settings(max_examples=25, deadline=None)
@given(secret=st.binary(min_size=32, max_size=32), size=sizes, data=st.data())
def test_any_threshold_of_shares_gives_the_secret(secret, size, data):
    threshold, count = size
    shares = split(secret, threshold, count)
    assert [share.x for share in shares] == list(range(1, count + 1))
    chosen = data.draw(st.permutations(shares))[: data.draw(st.integers(threshold, count))]
    assert combine(chosen, threshold) == secret


def test_fewer_shares_fit_every_secret():
    """Two shares of three needed: for any secret there is a third share that makes it so. They say nothing."""
    two = split(SECRET, 3, 5)[:2]
    for wanted in (bytes(32), b"\xff" * 32, SECRET):
        at_0 = Share(PRIME, int.from_bytes(wanted, "big"))  # the point PRIME is 0 modulo PRIME
        third = 0
        for share in (*two, at_0):
            others = [other.x for other in (*two, at_0) if other is not share]
            weight = 1
            for other in others:
                weight = weight * (3 - other) * pow(share.x - other, -1, PRIME) % PRIME
            third = (third + share.y * weight) % PRIME
        assert combine([*two, Share(3, third)], 3) == wanted


def test_shares_are_fresh_each_time():
    one, other = split(SECRET, 2, 3), split(SECRET, 2, 3)
    assert not set(one) & set(other)
    assert combine(one, 2) == combine(other, 2) == SECRET


def test_a_wrong_share_beyond_the_threshold_is_found():
    shares = list(split(SECRET, 3, 5))
    for number in range(5):
        bad = [*shares[:number], Share(shares[number].x, (shares[number].y + 1) % PRIME), *shares[number + 1 :]]
        with pytest.raises(TaskError, match="one polynomial"):
            combine(bad, 3)


@pytest.mark.parametrize(
    ("shares", "match"),
    [
        (split(SECRET, 3, 5)[:2], "at least 3"),
        ((split(SECRET, 3, 5)[0],) * 3, "a point of its own"),
        ((Share(0, 1), *split(SECRET, 3, 5)[:2]), "a point of its own"),
    ],
    ids=["too few", "one share thrice", "the secret's own point"],
)
def test_what_is_no_set_of_shares_is_refused(shares, match):
    with pytest.raises(TaskError, match=match):
        combine(shares, 3)


def test_bytes_that_are_no_share_are_refused():
    share = split(SECRET, 2, 3)[1]
    assert Share.read(2, share.to_bytes()) == share
    for data in (share.to_bytes()[1:], PRIME.to_bytes(SHARE_BYTES, "big"), b""):
        with pytest.raises(TaskError, match="below the prime"):
            Share.read(2, data)


@pytest.mark.parametrize(("secret", "threshold", "count"), [(b"short", 2, 3), (SECRET, 0, 3), (SECRET, 4, 3)])
def test_what_cannot_be_shared_is_refused(secret, threshold, count):
    with pytest.raises(ValueError, match="expected a secret"):
        split(secret, threshold, count)


def test_every_pair_of_three_gives_the_secret():
    for pair in itertools.combinations(split(SECRET, 2, 3), 2):
        assert combine(pair, 2) == SECRET
