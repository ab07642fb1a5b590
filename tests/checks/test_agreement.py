"""The check of agreement."""

import pytest

from manybody.checks.agreement import Agreement
from manybody.core.certificate import Verdict
from manybody.core.errors import InputError
from manybody.testing.check import verify_check

BOTH = Agreement(measures=("potential-energy", "pressure"))
DOCUMENT = BOTH.document()
STEPS = ({"method.time_step": 0.004}, {"method.time_step": 0.002})


def test_contract(evidence) -> None:
    """The time step must not matter; the density does."""
    verify_check(BOTH, evidence(DOCUMENT, sweep=STEPS), evidence(DOCUMENT))


def test_few_samples_cannot_tell(evidence) -> None:
    found = BOTH.model_copy(update={"least": 100_000}).judge(evidence(DOCUMENT, sweep=STEPS), ())
    assert [finding.verdict for finding in found] == [Verdict.UNDECIDED] * 2
    assert "too coarse" in found[0].tolerance_from


@pytest.mark.parametrize(
    ("document", "sweep"),
    [(DOCUMENT, STEPS[:1]), (DOCUMENT | {"measures": ["molecular-energy"]}, STEPS)],
    ids=["alone", "unknown"],
)
def test_what_cannot_be_compared_is_refused(evidence, document, sweep) -> None:
    with pytest.raises(InputError, match="at least two points, and measures among potential-energy, pressure"):
        evidence(document, sweep=sweep)
