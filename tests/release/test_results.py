"""What is stored of runs of `make wheels` and `make test-arm64`, and what the pages say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.pages

ROOT = Path(__file__).parents[2]
GUIDES = ("jetpack6", "jetpack7")
ON_DEVICE = ("install", "inspect", "label", "stages", "service", "native_tests")


def stored(path: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((ROOT / path).read_text())
    return record


def test_all_parts_of_the_stored_run_tried_the_stored_wheels() -> None:
    run, wheels = stored("release/results/arm64.json"), stored("release/results/wheels.json")
    assert run["sdist"] == wheels["sdist"]
    assert run["source"]["changed"] == wheels["source"]["changed"] == []
    hashes = {one["wheel"]: one["sha256"] for one in wheels["wheels"]}
    assert len(hashes) == 8
    parts = run["parts"]
    assert parts.keys() == {"unpack", *ON_DEVICE, *GUIDES, "kernels", "cuda_parts"}
    for name in (*ON_DEVICE, *GUIDES):
        assert parts[name]["wheel_sha256"] == hashes[parts[name]["wheel"]], name
    assert len({parts[name]["wheel"] for name in ON_DEVICE}) == 1
    assert ["cp310" in parts[name]["wheel"] for name in GUIDES] == [True, False]
    cuda = stored("release/results/cuda_wheel.json")
    assert parts["cuda_parts"]["wheel_sha256"] == cuda["wheels"][0]["sha256"]
    assert cuda["sdist"] == run["sdist"]


def test_the_jetson_page_says_what_the_stored_run_found() -> None:
    parts = stored("release/results/arm64.json")["parts"]
    page = " ".join((ROOT / "docs/jetson.md").read_text().split())
    label, stages = parts["label"]["found"], parts["stages"]["found"]
    guides = [parts[name]["found"] for name in GUIDES]
    assert f"all {label['decisions']} decisions on {label['frames']} frames" in page
    assert f"score was {label['max_score_difference']:.3f}" in page
    assert f"scores by {stages['scores']:.1e}" in page
    assert f"up to {stages['decoded']:.0f} of 255" in page
    assert parts["native_tests"]["found"].split(" in ")[0] in page
    assert all(guide["label"]["decisions_that_differ"] == 0 for guide in guides)
    for guide in guides:
        assert guide["installed"]["python"] in page
        assert "numpy<2" in str(guide["doctor_with_numpy_2"])
        assert guide["doctor"] == guide["doctor_after_its_remedy"] == []


def test_the_service_page_says_what_the_stored_storm_found() -> None:
    storm = stored("tests/cmlr_edge/service/kill_storm.json")
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
