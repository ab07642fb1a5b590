"""The code in docs/aggregation.md runs as it stands."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "aggregation.md"


@pytest.mark.skipif(find_spec("dp_accounting") is None, reason="needs dp-accounting (manybody[privacy])")
def test_the_page_runs(capsys):
    namespace = {"__name__": "page"}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, str(PAGE), "exec", dont_inherit=True), namespace)
    assert "changes the chance of any outcome" in capsys.readouterr().out
