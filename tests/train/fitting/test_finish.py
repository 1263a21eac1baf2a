"""What `fit` says at its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from train.fitting.finish import what_thresholds_do
from train.network.checkpoint import load_model


def test_labels_that_are_there_and_never_named_are_said(tiny_run: Path) -> None:
    spec = load_model(tiny_run)[1]
    assert spec.labels == ("red", "green", "blue")
    there = np.array([[1, 1, 0], [1, 0, 0]], bool)
    named = np.array([[1, 0, 0], [1, 0, 0]], bool)
    right, silent, absent = what_thresholds_do(spec, "held-out", there, named)
    assert "2 of 2 named labels are right on held-out pictures" in right
    assert "never named: green;" in silent
    assert absent == "on no held-out picture: blue; nobody knows how good they are"
    nothing, _ = what_thresholds_do(spec, "held-out", there, np.zeros_like(there))
    assert "never named: red, green;" in nothing
    for rule, other in (
        ("f1", "precision=0.5"),
        ("precision=0.8", "f1"),
    ):  # never the one that it has
        fitted = replace(spec, threshold_fit=replace(spec.threshold_fit, rule=rule))
        assert f"--rule {other}" in what_thresholds_do(fitted, "held-out", there, named)[1]
    assert len(what_thresholds_do(spec, "held-out", there, there)) == 2
