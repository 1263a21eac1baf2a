"""docs/faults.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cmlr_edge.pipeline.faults import FAULTS

pytestmark = pytest.mark.pages

_TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)(?:\[[^\]]+\])?`")
_CASE = re.compile(r"\[([^\]`]+)\]`")


def test_every_fault_of_the_page_has_its_test() -> None:
    page = Path("docs/faults.md").read_text()
    named = _TEST.findall(page)
    assert len(named) >= 40
    for file, name in named:
        texts = [path.read_text() for path in Path("tests").rglob(file)]
        assert any(re.search(rf"^def {name}\(", text, re.MULTILINE) for text in texts), name
    assert set(_CASE.findall(page)) == set(FAULTS)
    rows = [row for row in page.splitlines() if row.startswith("|")]
    headers = [row for row in rows if row.startswith(("| fault", "|---"))]
    assert all("test_" in row or "...[" in row for row in rows if row not in headers)
