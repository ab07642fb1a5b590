"""Random keys."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from manybody.core.random import Key


@given(st.integers(0, 2**63), st.lists(st.one_of(st.integers(), st.text(max_size=8)), max_size=4))
def test_same_seed_and_labels_give_the_same_stream(seed: int, labels: list[str | int]) -> None:
    first, second = (Key.from_seed(seed, *labels).generator().random(4) for _ in range(2))
    assert np.array_equal(first, second)


def test_labels_do_not_run_into_each_other() -> None:
    keys = [Key(0).derive(*labels) for labels in (("ab", "c"), ("a", "bc"), ("abc",), (1, "2"), ("1", 2), (12,), ("12",))]
    assert len(set(keys)) == len(keys)


def test_streams_of_derived_keys_are_uniform_and_uncorrelated() -> None:
    draws = np.array([Key.from_seed(7, index).generator().random(2) for index in range(4000)])
    assert kstest(draws[:, 0], "uniform").pvalue > 1e-3
    # The correlation of n independent pairs scatters by 1/sqrt(n); four deviations.
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 1])[0, 1]) < 4 / np.sqrt(len(draws))


def test_stream_is_philox_so_that_any_machine_agrees() -> None:
    assert Key(12345).generator().bit_generator.random_raw(2).tolist() == np.random.Philox(key=12345).random_raw(2).tolist()
    assert Key.from_seed(0).value == Key.from_seed(0).value != Key.from_seed(1).value
