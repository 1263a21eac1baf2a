"""docs/faults.md and docs/features.md name tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cmlr_edge.pipeline.faults import FAULTS

pytestmark = pytest.mark.pages

_TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)(?:\[[^\]]+\])?`")
_CASE = re.compile(r"\[([^\]`]+)\]`")


def named_tests(page: str) -> list[tuple[str, str]]:
    """File and name of every test that a page names; each of them exists."""
    named = _TEST.findall(page)
    for file, name in named:
        texts = [path.read_text() for path in Path("tests").rglob(file)]
        assert any(re.search(rf"^def {name}\(", text, re.MULTILINE) for text in texts), name
    return named


def test_every_feature_is_held_by_a_test_or_is_said_to_be_missing() -> None:
    page = Path("docs/features.md").read_text()
    cells = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    rows = [row for row in cells if row[0] != "feature"]
    assert len(rows) >= 50
    for what, has, why in rows:
        assert has in {"y", "n"}, what
        assert bool(named_tests(why)) is (has == "y"), what


def test_every_fault_of_the_page_has_its_test() -> None:
    page = Path("docs/faults.md").read_text()
    assert len(named_tests(page)) >= 40
    assert set(_CASE.findall(page)) == set(FAULTS)
    rows = [row for row in page.splitlines() if row.startswith("|")]
    headers = [row for row in rows if row.startswith(("| fault", "|---"))]
    assert all("test_" in row or "...[" in row for row in rows if row not in headers)
