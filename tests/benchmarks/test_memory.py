from __future__ import annotations

from benchmarks.memory import measure
from cmlr_edge import demo_engine


def test_loading_and_running_the_bundled_model_fits_a_small_board() -> None:
    peaks = {stage["stage"]: stage["peak_mb"] for stage in measure(demo_engine(), runs=1)}
    assert peaks["import cmlr_edge"] < 60
    assert peaks["engine loaded and checked"] < 260
    assert peaks["21 frames"] < 320
    assert peaks["a batch of 8"] < 520
