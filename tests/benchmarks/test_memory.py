from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.memory import measure, measure_build
from cmlr_edge import demo_engine
from csrc.tensorrt import packages


def test_loading_and_running_the_bundled_model_fits_a_small_board() -> None:
    peaks = {stage["stage"]: stage["peak_mb"] for stage in measure(demo_engine(), runs=1)}
    assert peaks["import cmlr_edge"] < 60
    assert peaks["engine loaded and checked"] < 260
    assert peaks["21 frames"] < 320
    assert peaks["a batch of 8"] < 520


def test_building_an_engine_takes_less_than_what_is_asked_for_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rtx = packages.find("rtx") or pytest.skip("tensorrt-rtx: python -m csrc.tensorrt.packages")
    monkeypatch.setenv("PYTHONPATH", "")  # so that it is put back
    found = measure_build(demo_engine(), rtx)
    assert 50 < found["peak_mb"] < found["not_started_below_mb"]


@pytest.mark.pages
def test_the_page_on_speed_says_how_long_starting_took() -> None:
    root = Path(__file__).parents[2]
    record = json.loads((root / "benchmarks/results/memory.json").read_text())
    stages = {stage["stage"]: stage for stage in record["stages"]}
    page = " ".join((root / "docs/speed.md").read_text().split())
    assert f"takes {stages['import cmlr_edge']['wall_s']:.2f} s" in page
    assert f"{stages['first frame, 1920 x 1080']['wall_s']:.2f} s after the start" in page
    assert f"{stages['21 frames']['now_mb']:.0f} MB are in use" in page
