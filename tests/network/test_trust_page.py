"""The code in docs/network-trust.md runs as it stands, and its closed forms are those of the code."""

import re
from pathlib import Path

from manybody.network.assurance import Fault, assure
from manybody.network.trust import TrustPolicy

PAGE = Path(__file__).parents[2] / "docs" / "network-trust.md"
TEXT = PAGE.read_text()


def test_the_page_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, str(PAGE), "exec", dont_inherit=True), {"__name__": "page"})
    assert "stand in the end" in capsys.readouterr().out


def test_the_closed_forms_of_the_page_are_current():
    """One row of the generated table, to its two digits; the others come from the same function."""
    row = next(line for line in TEXT.splitlines() if line.startswith("| 10% | 300 |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    flips = assure(300, 20, Fault(label="", rate=0.2, wrong=1, as_verifier=True), TrustPolicy(spot=0.1), bad=0.02)
    assert float(cells[2]) == float(f"{flips.in_the_end:.1e}")
    assert cells[4] == f"{flips.checks:.1%}"
    assert (PAGE.parent / "figures" / "trust.svg").stat().st_size > 10_000


def test_the_words_of_the_page_are_the_defaults_of_the_policy():
    policy = TrustPolicy()
    assert (policy.spot, policy.tolerated, policy.margin, policy.prior.bad) == (0.1, 0.05, 2, 0.1)
    assert round(float(policy.replication(0, 20)), 2) == 0.62
    assert round(float(policy.replication(100, 20)), 2) == 0.02
