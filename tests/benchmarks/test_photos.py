"""The comparison on photos: its table, and that the page says what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from benchmarks.photos.methods import frozen_methods, tuned_methods
from benchmarks.photos.report import REFERENCE, markdown_table, summarize

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
TARGETS = (RNG.random((60, 5)) < [0.3, 0.3, 0.3, 0.3, 0.02]).astype(np.float32)


def mean_ap(scores: np.ndarray) -> float:
    """Of the labels with at least three positives, by scikit-learn."""
    columns = np.flatnonzero(TARGETS.sum(axis=0) >= 3)
    return 100 * float(
        np.mean([average_precision_score(TARGETS[:, c], scores[:, c]) for c in columns])
    )


def test_a_row_holds_each_seeds_map_and_the_gain_on_the_same_seed_of_the_decoder() -> None:
    assert TARGETS[:, 4].sum() < 3  # one label too rare to be scored
    base = [RNG.random(TARGETS.shape).astype(np.float32) for _ in range(3)]
    ours = [scores + TARGETS * 0.3 for scores in base]
    rows = summarize(
        {
            REFERENCE: [{"deployed": scores} for scores in base],
            "ours": [{"prior": scores, "own": scores} for scores in ours],
        },
        TARGETS,
    )
    assert [(row.method, row.read_out) for row in rows] == [
        (REFERENCE, "deployed"),
        ("ours", "prior"),
        ("ours", "own"),
    ]
    expected = [mean_ap(scores) for scores in ours]
    assert rows[1].seeds == pytest.approx(expected, abs=0.006)
    gains = np.array(expected) - [mean_ap(scores) for scores in base]
    assert rows[1].gain == pytest.approx(np.median(gains), abs=1e-4)
    assert (rows[1].gain_low, rows[1].gain_high) == pytest.approx((gains.min(), gains.max()))
    assert rows[0].gain == 0
    assert rows[0].images_low < rows[0].median < rows[0].images_high + 10
    assert "| ours, own context |" in markdown_table([vars(row) for row in rows])


def test_every_method_trains_on_the_same_backbone_and_recipe() -> None:
    for methods in (frozen_methods(), tuned_methods()):
        assert REFERENCE in methods
        shared = {
            (c.model.backbone, c.model.image_size, c.epochs, c.batch_size, c.backbone_lr)
            for c in methods.values()
        }
        assert len(shared) == 1


def test_the_page_says_what_was_measured() -> None:
    rows = json.loads((ROOT / "benchmarks/results/photos/frozen.json").read_text())["rows"]
    by_name = {
        row["method"]
        + ("" if row["read_out"] == "deployed" else f", {row['read_out']} context"): row
        for row in rows
    }
    lines = (ROOT / "docs" / "photos.md").read_text().splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]
    assert len(table) == 9
    for name, *cells in table:
        row = by_name[name]
        expected = [row["median"], min(row["seeds"]), max(row["seeds"])]
        if name != REFERENCE:
            expected += [row["gain"], row["gain_low"], row["gain_high"]]
        numbers = [float(n) for cell in cells for n in re.findall(r"(?<![\d.])[+-]?\d+\.\d", cell)]
        assert numbers == pytest.approx(expected, abs=0.0501)
