from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.streams.endurance import endure
from benchmarks.streams.flicker import count_flicker, find_events
from benchmarks.streams.stand_in import write_stand_in
from cmlr_edge import LabelStability, Recognizer


def test_a_short_run_is_counted_and_leaves_no_thread_and_no_file(tmp_path: Path) -> None:
    with Recognizer.from_engine(write_stand_in(tmp_path)) as recognizer:
        report = endure(recognizer, sources=3, fps=20, duration_s=3, size="160x120")
    assert [source["fails"] for source in report["sources"]] == [True, True, False]
    for source in report["sources"]:
        assert source["due"] == 60
        assert source["kept"] == pytest.approx(1, abs=0.2)
        assert source["events"] == {"start": 3, "end": 3}
    assert report["before"]["threads"] == report["after"]["threads"]
    assert report["before"]["files"] == report["after"]["files"]
    assert not report["passed"]  # too short for an outage, so nothing was proved


def test_flicker_counts_rises_and_events_bridge_them() -> None:
    scores = np.array([0.9, 0.4, 0.9, 0.9, 0.4, 0.9, 0.1, 0.1, 0.1, 0.1], np.float32)
    times_s = [i / 2 for i in range(10)]
    assert count_flicker(scores, 0.5) == 3
    settings = LabelStability(0.5, 0.3, smoothing_s=0, min_duration_s=0.5, min_gap_s=1)
    assert find_events(times_s, scores, settings) == [[0.0, 3.0]]
