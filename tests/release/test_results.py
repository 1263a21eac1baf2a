"""What the pages say of stored runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def stored(path: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((ROOT / path).read_text())
    return record


def test_the_service_page_says_what_the_stored_storm_found() -> None:
    storm = stored("tests/service/kill_storm.json")
    page = " ".join((ROOT / "docs/service.md").read_text().split())
    total = storm["total"]
    assert (total["kills"], total["updates"]) == (100, 20)
    assert total["stores_without_a_valid_engine"] == total["frames"]["neither"] == 0
    assert f"all {sum(total['frames'].values()):,} frames" in page
    sides = [sum(one[f"{side}_engine_after_kill"] for one in storm["storms"]) for side in ("old", "new")]  # fmt: skip
    assert f"the old one {sides[0]} times and the new one {sides[1]} times" in page


def test_the_jetson_page_says_how_much_memory_was_measured() -> None:
    record = stored("benchmarks/results/memory.json")
    page = " ".join((ROOT / "docs/jetson.md").read_text().split())
    peaks = {stage["stage"]: stage["peak_mb"] for stage in record["stages"]}
    build = record["engine_build"]
    assert f"{peaks['engine loaded and checked']:.0f} MB once the bundled model is loaded" in page
    assert f"{peaks['a batch of 8']:.0f} MB after a batch of 8" in page
    assert f"{build['peak_mb']:.0f} MB to build its engine" in page
