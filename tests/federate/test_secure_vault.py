"""What a node keeps to itself: one answer a request, whoever asks how often, and nothing for others to read."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from manybody.core.errors import StoreError, TaskError
from manybody.core.task import Output
from manybody.federate.secure_vault import KEPT_S, Vault
from manybody.store.home import Home


def counting(before):
    """Count the requests, with a random number in each answer."""
    count = int(before.arrays["count"]) + 1 if before is not None else 1
    return Output({"count": np.asarray(count)}, {"secret": "s"}), Output(
        {"drawn": np.frombuffer(os.urandom(8), np.uint8)}, {"n": count}
    )


def test_a_request_is_answered_once_and_the_same_again(tmp_path):
    home = Home(tmp_path)
    one = Vault("session", home).answer("one", counting)
    again = Vault("session", home).answer("one", counting)
    assert again.document == {"n": 1}
    assert np.array_equal(one.arrays["drawn"], again.arrays["drawn"])
    assert Vault("session", home).answer("two", counting).document == {"n": 2}
    assert Vault("other", home).answer("one", counting).document == {"n": 1}


def test_a_step_that_fails_leaves_all_as_it_was(tmp_path):
    def fail(before):
        raise TaskError("no")

    vault = Vault("session", Home(tmp_path))
    vault.answer("one", counting)
    with pytest.raises(TaskError):
        vault.answer("two", fail)
    assert vault.answer("two", counting).document == {"n": 2}


def test_those_that_ask_at_once_get_one_answer(tmp_path):
    """Each opens the lock for itself, as processes do."""
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: Vault("session", Home(tmp_path)).answer("one", counting), range(8)))
    assert {answer.document["n"] for answer in told} == {1}
    assert len({answer.arrays["drawn"].tobytes() for answer in told}) == 1


def test_only_the_user_may_read_it(tmp_path):
    Vault("session", Home(tmp_path)).answer("one", counting)
    found = [tmp_path / "secrets", *(tmp_path / "secrets").rglob("*")]
    assert len(found) == 4  # the folder, the session, its state, its lock
    assert all(path.stat().st_mode & 0o077 == 0 for path in found)


def test_what_nobody_goes_on_with_is_removed(tmp_path):
    for session, age in (("old", KEPT_S + 60), ("young", KEPT_S - 60)):
        Vault(session, Home(tmp_path)).answer("one", counting)
        os.utime(tmp_path / "secrets" / session, (time.time() - age,) * 2)
    Vault("new", Home(tmp_path)).answer("one", counting)
    assert {path.name for path in (tmp_path / "secrets").iterdir()} == {"young", "new"}


@pytest.mark.parametrize("name", ["", "../up", "a/b", "A", "a" * 81, "a b", "-a", "a\n"])
def test_a_name_that_is_no_name_is_refused(name, tmp_path):
    with pytest.raises(TaskError, match="expected lower case"):
        Vault(name, Home(tmp_path))


def test_what_cannot_be_kept_is_not_answered(tmp_path):
    (tmp_path / "secrets").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="nothing has been answered"):
        Vault("session", Home(tmp_path)).answer("one", counting)
