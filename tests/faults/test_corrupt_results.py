"""A result that rots on the disk is noticed, set aside and computed again, by the run and by its workers."""

from __future__ import annotations

from typing import Any

import pytest

from manybody.network.local import Embedded
from manybody.testing.methods import task


@pytest.mark.fault(
    "a result that rots on the disk",
    on="all",
    happens="found when it is next read, set aside with the reason, and computed again",
    kept="the same bits",
)
@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_a_damaged_result_is_computed_again_to_the_same_bits(site: Any, damage: str) -> None:
    tasks = [task("fill", nbytes=10_000).model_copy(update={"repeat": number}) for number in range(3)]
    site.start(tasks).until("end")
    ledger = site.home.ledger()
    before = [ledger.result(done.digest).result for done in tasks]
    path = site.home.objects.path(before[1])
    data = bytearray(path.read_bytes())
    data[5000] ^= 4
    path.chmod(0o644)
    path.write_bytes(data if damage == "flipped" else data[:5000])
    again = site.start(tasks)
    assert again.until("withdrawn")["task"] == tasks[1].digest
    end = again.until("end")
    assert (end["cached"], end["computed"]) == (2, 1)
    assert [ledger.result(done.digest).result for done in tasks] == before
    assert ["corrupt" in row.reason for row in ledger.history(tasks[1].digest)] == [True, False]
    assert len(list(site.home.objects.quarantine.iterdir())) == 2  # the bytes and the reason
    site.assert_intact()
    ledger.close()


def test_a_worker_never_computes_with_a_damaged_input(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", site.environment["PYTHONPATH"])
    objects = site.home.objects
    with Embedded(objects.root, workers=1) as backend:
        backend.submit("a", task("add", terms=[1.0]), {})
        result = next(event.result for event in backend.events() if event.kind == "finished")
        objects.path(result).chmod(0o644)
        objects.path(result).write_bytes(objects.path(result).read_bytes()[:-1])
        backend.submit("b", task("add", inputs={"a": "0" * 64}, terms=[1.0]), {"a": result})
        end = list(backend.events())[-1]
    assert end.kind == "failed"
    assert result in end.reason
    assert "corrupt" in end.reason
    assert not objects.has(result)  # by this a conductor knows what to compute again
