"""The comparison on photos: its table, and that the page says what was measured."""

from __future__ import annotations

import json
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


@pytest.mark.pages
@pytest.mark.parametrize("name", ["frozen", "fine_tuned"])
def test_the_page_has_the_table_that_follows_from_the_record(name: str) -> None:
    record = json.loads((ROOT / f"benchmarks/results/photos/{name}.json").read_text())
    assert markdown_table(record["rows"]) in (ROOT / "docs" / "photos.md").read_text()
    assert min(len(row["seeds"]) for row in record["rows"]) >= 5
    for row in record["rows"]:
        assert row["median"] == pytest.approx(np.median(row["seeds"]), abs=0.01)
