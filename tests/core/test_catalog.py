"""The catalog."""

from typing import get_args

import pytest

from manybody.core import catalog
from manybody.core.errors import InputError


@pytest.mark.parametrize("group", get_args(catalog.Group))
def test_every_entry_of_every_group_loads_under_its_own_name(group: catalog.Group) -> None:
    assert catalog.entries(group)
    for name in catalog.entries(group):
        member = catalog.load(group, name)
        if group not in ("backends", "embeddings"):  # which are no specs
            assert member.model_fields["name"].default == name
            assert member.summary


def test_a_misspelt_name_is_answered_with_the_closest() -> None:
    with pytest.raises(InputError, match="Did you mean `conservation`") as caught:
        catalog.load("checks", "consevation")
    assert caught.value.exit_code == 2


def test_a_name_like_none_lists_what_there_is() -> None:
    with pytest.raises(InputError, match=r"Known: agreement, .*conservation, convergence"):
        catalog.load("checks", "zzz")
