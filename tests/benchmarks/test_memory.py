from __future__ import annotations

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
