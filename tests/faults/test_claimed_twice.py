"""Two runs of the same tasks at once: each task is computed once, and both end with all results."""

from __future__ import annotations

from typing import Any

import pytest

from manybody.testing.methods import task


@pytest.mark.fault(
    "a second coordinator started by mistake",
    on="embedded",
    happens="two runs of the same study share the work",
    kept="one result a task; both runs end with all of them",
)
@pytest.mark.parametrize("runs", [2])
def test_runs_of_the_same_tasks_share_the_work(site: Any, runs: int) -> None:
    first = [task("add", terms=[float(number)]) for number in range(12)]
    second = [task("add", inputs={"a": needed.digest}, terms=[1.0]) for needed in first]
    several = [site.start([*first, *second], workers=1) for _ in range(runs)]
    ends = [conductor.until("end") for conductor in several]
    assert [end["computed"] + end["cached"] for end in ends] == [24] * runs
    assert sum(end["computed"] for end in ends) == 24
    ledger = site.home.ledger()
    for done in [*first, *second]:
        assert [row.state for row in ledger.attempts(done.digest)] == ["finished"]
    totals = [site.home.objects.get(ledger.result(done.digest).result).arrays["total"] for done in second]
    assert totals == [number + 1.0 for number in range(12)]
    ledger.close()
