"""The stored times are of routes that compute the same, and the tables say what the records say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.peers.__main__ import widest_gaps
from benchmarks.peers.report import GOALS, ratio, tables
from benchmarks.resize import measure

RESULTS = Path(__file__).parents[2] / "benchmarks/results/latency"


def test_the_resize_that_was_timed_gave_the_same_bytes() -> None:
    stored = json.loads((RESULTS / "resize.json").read_text())
    assert [case["bytes_that_differ"] for case in stored["cases"]] == [0] * len(stored["cases"])
    assert measure((60, 80), 32)["bytes_that_differ"] == 0


def test_the_table_is_what_the_record_gives() -> None:
    record = json.loads((RESULTS / "peers.json").read_text())
    assert (RESULTS / "peers.md").read_text() == tables(record["comparisons"])


def test_every_route_decides_as_the_training_code_does() -> None:
    comparisons = json.loads((RESULTS / "peers.json").read_text())["comparisons"]
    for record in comparisons.values():
        for name, route in record["routes"].items():
            if name.startswith("bare"):
                continue
            # Frames move the scores of seeded weights by little more than bf16 rounds.
            allowed = 0.05 if name.endswith("bf16") else 0.001
            assert route["decisions_that_differ"] <= allowed * route["decisions"], name


def test_a_ratio_is_of_medians_and_of_minima() -> None:
    routes = {"a": {"p50": 3.0, "min": 1.0}, "b": {"p50": 2.0, "min": 2.0}}
    assert ratio(routes, "a", "b") == "1.50 (0.50)"
    assert all(len(goals) == 2 for goals in GOALS.values())


def test_a_threshold_lies_in_the_middle_of_the_widest_gap() -> None:
    scores = np.array([[0.1, 0.9], [0.2, 0.5], [0.8, 0.1]], np.float32)
    np.testing.assert_allclose(widest_gaps(scores), [0.5, 0.3], rtol=1e-6)
