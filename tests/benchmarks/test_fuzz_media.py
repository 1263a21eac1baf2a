"""The stored run over damaged media went well, and its command still works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.fuzz.media import fuzz, write_seeds

STORED = Path(__file__).parents[2] / "benchmarks/results/fuzz/media.json"


@pytest.mark.pages
def test_ten_thousand_damaged_files_did_no_harm() -> None:
    record = json.loads(STORED.read_text())
    assert (record["cases"], record["wrong"]) == (10_000, [])
    assert sum(sum(found.values()) for found in record["outcomes"].values()) == 10_000
    assert len(record["outcomes"]) == 16
    assert "10,000 files" in (STORED.parents[3] / "docs/faults.md").read_text()


@pytest.mark.slow
def test_some_damaged_files_do_no_harm(tmp_path: Path) -> None:
    for name in ("whole", "damaged"):
        (tmp_path / name).mkdir()
    seeds = write_seeds(tmp_path / "whole")
    record = fuzz(seeds, range(50_000, 50_060), tmp_path / "damaged")
    assert record["wrong"] == []
    assert any("loaded" in found for found in record["outcomes"].values())
