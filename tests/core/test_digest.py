"""Canonical JSON and digests."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manybody.core.digest import canonical_json, digest_bytes, digest_document

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(documents)
def test_canonical_json_loses_nothing(document: object) -> None:
    assert json.loads(canonical_json(document)) == document


def test_order_of_keys_does_not_matter_and_values_do() -> None:
    assert digest_document({"a": 1, "b": 2}) == digest_document({"b": 2, "a": 1})
    assert digest_document({"a": 1.0}) != digest_document({"a": math.nextafter(1.0, 2.0)})


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest_document({"a": math.nan})


def test_sha256_of_the_empty_string() -> None:
    # FIPS 180-4 example value.
    assert digest_bytes(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
