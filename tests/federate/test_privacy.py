"""Clipping, noise and the account: bounds that hold with round-off, statistics of the noise, published epsilons."""

import math
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special, stats

from manybody.core.errors import InputError
from manybody.core.random import Key
from manybody.federate.privacy import (
    GaussianRounds,
    PrivacyAccount,
    PrivacySpend,
    clipped,
    global_norm,
    noised,
    privatised,
    secret_key,
)

KEY = Key.from_seed(7, "privacy tests")


@settings(max_examples=100, deadline=None)
@given(
    w=hnp.arrays(np.float64, (3, 2), elements=st.floats(-1e308, 1e308)),
    b=hnp.arrays(np.float32, 4, elements=st.floats(-(2.0**100), 2.0**100, width=32)),
    limit=st.floats(1e-3, 1e6),
)
def test_the_norm_after_clipping_never_exceeds_the_limit(w, b, limit):
    tensors = {"w": w, "b": b}
    after = clipped(tensors, limit)
    assert global_norm(after) <= limit
    assert {k: v.dtype for k, v in after.items()} == {k: v.dtype for k, v in tensors.items()}
    if global_norm(tensors) > limit:
        assert global_norm(after) >= limit * (1 - 1e-6)


def test_a_small_update_passes_untouched():
    tensors = {"w": np.array([3.0, 4.0])}
    assert clipped(tensors, 5.0) is tensors


def test_direction_is_kept():
    after = clipped({"w": np.array([3.0]), "b": np.array([4.0])}, 1.0)
    np.testing.assert_allclose([after["w"][0], after["b"][0]], [0.6, 0.8], rtol=1e-8)


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1.0, 1e200, 1e307])
def test_the_norm_survives_huge_and_tiny_numbers(scale):
    assert global_norm({"w": np.array([3.0, 4.0]) * scale}) == pytest.approx(5 * scale, rel=1e-3 if scale < 1e-300 else 1e-15)


@pytest.mark.parametrize("limit", [0.0, -1.0, math.inf, math.nan])
def test_an_impossible_limit_is_refused(limit):
    with pytest.raises(InputError, match="a positive, finite norm"):
        clipped({"w": np.ones(1)}, limit)


def test_the_noise_is_gaussian_of_the_stated_variance():
    """The sample variance of n Gaussians has standard error sigma^2 sqrt(2 / n); the mean sigma / sqrt(n)."""
    n, sigma = 200_000, 1.1 * 0.7
    noise = privatised({"w": np.zeros(n)}, limit=0.7, noise_multiplier=1.1, key=KEY)["w"]
    assert abs(noise.var() - sigma**2) < 3 * sigma**2 * math.sqrt(2 / n)
    assert abs(noise.mean()) < 3 * sigma / math.sqrt(n)
    assert stats.kstest(noise / sigma, "norm").pvalue > 1e-3


def test_noise_of_different_keys_and_tensors_is_independent():
    """The correlation of two independent samples of n has standard error 1 / sqrt(n)."""
    n = 100_000
    tensors = {"a": np.zeros(n), "b": np.zeros(n)}
    one, two = noised(tensors, 1.0, KEY.derive("round", 1)), noised(tensors, 1.0, KEY.derive("round", 2))
    series = [one["a"], one["b"], two["a"], two["b"]]
    for i in range(4):
        for j in range(i):
            assert abs(np.corrcoef(series[i], series[j])[0, 1]) < 4 / math.sqrt(n)


def test_the_same_key_gives_the_same_noise_and_other_tensors_do_not_matter():
    one = noised({"a": np.zeros(5)}, 1.0, KEY)
    two = noised({"a": np.zeros(5), "b": np.zeros(3)}, 1.0, KEY)
    assert one["a"].tobytes() == two["a"].tobytes()


def test_noise_needs_a_secret_that_the_seed_does_not_give():
    one, two = secret_key(KEY, b"a" * 16), secret_key(KEY, b"b" * 16)
    assert len({KEY, one, two}) == 3
    assert secret_key(KEY, b"a" * 16) == one
    with pytest.raises(InputError, match="at least 16 bytes"):
        secret_key(KEY, b"short")


def test_noise_that_cannot_be_stored_is_refused():
    with pytest.raises(InputError, match="tensor w: expected values within float16"):
        noised({"w": np.full(100, 65504, np.float16)}, 1e4, KEY)
    with pytest.raises(InputError, match="not negative"):
        noised({"w": np.zeros(1)}, -1.0, KEY)


# --- the account -----------------------------------------------------------------------------------------------

accounting = pytest.mark.skipif(find_spec("dp_accounting") is None, reason="needs dp-accounting (manybody[privacy])")
MNIST = GaussianRounds(sampling=256 / 60000, noise_multiplier=1.1, rounds=14_062)


@accounting
@pytest.mark.parametrize(("accountant", "epsilon"), [("rdp", 2.59656), ("pld", 2.38169)])
def test_the_known_account(accountant, epsilon):
    """60 epochs of MNIST in batches of 256: RDP agrees with opacus, too (2.59656)."""
    spend = PrivacyAccount().after(MNIST).spend(1e-5, accountant)
    assert spend.epsilon == pytest.approx(epsilon, abs=5e-6)


@accounting
def test_rounds_one_by_one_are_rounds_at_once():
    account = PrivacyAccount()
    for _ in range(20):
        account = account.after(MNIST.model_copy(update={"rounds": 1}))
    assert account == PrivacyAccount().after(MNIST.model_copy(update={"rounds": 20}))


@accounting
def test_one_full_gaussian_round_against_the_closed_form():
    """delta = Phi(1/2z - eps z) - e^eps Phi(-1/2z - eps z), exact for q = 1 (Balle and Wang, 2018); PLD is within its grid."""
    z, delta = 2.0, 1e-5
    epsilon = PrivacyAccount().after(GaussianRounds(sampling=1.0, noise_multiplier=z, rounds=1)).spend(delta).epsilon
    phi = special.ndtr
    exact = phi(1 / (2 * z) - epsilon * z) - math.exp(epsilon) * phi(-1 / (2 * z) - epsilon * z)
    assert exact == pytest.approx(delta, rel=5e-3)
    assert exact <= delta


@accounting
def test_more_rounds_less_noise_and_mixed_rounds_cost_more():
    base = PrivacyAccount().after(GaussianRounds(sampling=0.01, noise_multiplier=1.0, rounds=100))
    more = base.after(GaussianRounds(sampling=0.01, noise_multiplier=2.0, rounds=100))
    assert more.spend(1e-6, "rdp").epsilon > base.spend(1e-6, "rdp").epsilon


@accounting
def test_what_a_certificate_can_state():
    spend = PrivacyAccount(unit="node").after(MNIST).spend(1e-5, "rdp")
    assert PrivacySpend.model_validate_json(spend.model_dump_json()) == spend
    assert spend.claim().startswith(
        "adding or removing one node changes the chance of any outcome by at most e^2.597, apart from 1e-05"
    )


def test_an_empty_account_and_an_impossible_delta():
    with pytest.raises(InputError, match="at least one round"):
        PrivacyAccount().spend(1e-5)
    with pytest.raises(InputError, match="between 0 and 1"):
        PrivacyAccount().after(MNIST).spend(0.0)


def test_a_missing_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(InputError, match=r"manybody\[privacy\]"):
        PrivacyAccount().after(MNIST).spend(1e-5)
