"""The stored table of adopted models, and the page that shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.pages

ROOT = Path(__file__).parents[2]


def test_the_page_shows_what_was_measured_and_all_of_it_is_within_bounds() -> None:
    record = json.loads((ROOT / "benchmarks/results/adoption.json").read_text())
    page = (ROOT / "docs/adopt.md").read_text()
    assert len(record["models"]) >= 10
    assert record["pictures"] >= 8
    for row in record["models"]:
        assert row["largest_difference"] <= row["allowed"]
        assert row["allowed"] == 1e-4 or row["input"].startswith("float16")
        low, high = row["scores_from_to"]
        assert high - low > 0.3
        assert f"| {row['model']} |" in page
        assert f"| {row['largest_difference']:.1e} |" in page
