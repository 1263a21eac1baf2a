"""The comparison on photos: its table, and that the page says what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from benchmarks.photos import fitted
from benchmarks.photos.fitted_report import fits_table, runs_table, summarize_fits
from benchmarks.photos.methods import frozen_methods, tuned_methods
from benchmarks.photos.report import REFERENCE, markdown_table, summarize
from train.data.base import LabeledImage, LabeledImages
from train.settings import build_config

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "benchmarks" / "results" / "photos"
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


def photos(train: int, val: int) -> LabeledImages:
    images = [
        LabeledImage(Path(f"{i}.jpg"), "train" if i < train else "val", ())
        for i in range(train + val)
    ]
    return LabeledImages("photos", ("a",), tuple(images))


def test_what_is_reported_is_tested_on_photos_that_development_never_sees() -> None:
    data = photos(100, 20)
    reported = fitted.divide(data, fitted.REPORTED, 3)
    assert [i.path.name for i in reported.split("test").images] == [
        f"{i}.jpg" for i in range(100, 120)
    ]
    assert len(reported.split("train").images) == 100
    assert "val" not in reported.splits  # `fit` holds out of train what it chooses on
    first, second = (fitted.divide(data, fitted.DEVELOPMENT, number) for number in (0, 1))
    for divided in (first, second):
        assert {i.path for i in divided.images} == {i.path for i in data.split("train").images}
        assert len(divided.split("test").images) == 20
    assert first.split("test").images != second.split("test").images


@pytest.mark.parametrize("arm", [*fitted.ARMS, *fitted.CANDIDATES])
def test_every_arm_is_the_recipe_with_some_settings(arm: str) -> None:
    settings = (fitted.ARMS | fitted.CANDIDATES)[arm]
    config = build_config({}, [*settings], recipe="few")
    assert config.recipe == "few"
    assert (config.backbone_lr, config.keep) == (0, "best")
    if arm in {fitted.DECODER, fitted.POOLED}:
        model = config.model
        assert (model.intervention, model.decoder_layers, model.united_share) == ("none", 1, 0)
        assert model.pooled_skip is (arm == fitted.POOLED)


def fit_record(arm: str, number: int, value: float) -> dict[str, Any]:
    measures = {"map": value, "resampled": [value - 1, value + 1]}
    return {"arm": arm, "number": number, "chosen": "plain", "read_outs": {"deployed": measures}}


def test_gains_of_fits_are_paired_and_the_worst_run_is_told() -> None:
    runs = []
    for number, base in enumerate((50.0, 60.0, 55.0)):
        runs += [
            fit_record(fitted.DECODER, number, base),
            fit_record(fitted.POOLED, number, base + 2),
            fit_record(fitted.FITTED, number, base + (5, 3, -1)[number]),
        ]
    rows = {row["arm"]: row for row in summarize_fits(runs)}
    gain = rows[fitted.FITTED]["gains"]
    assert gain[fitted.DECODER]["mean"] == pytest.approx(7 / 3, abs=0.01)
    assert gain[fitted.DECODER]["worst_run"] == -1
    assert gain[fitted.POOLED]["mean"] == pytest.approx(1 / 3, abs=0.01)
    reach = 4.3027 * np.std([5, 3, -1], ddof=1) / 3**0.5
    low, high = gain[fitted.DECODER]["runs"]
    assert (low, high) == pytest.approx((7 / 3 - reach, 7 / 3 + reach), abs=0.02)
    assert "| 2 | 55.0 | 57.0 | 54.0 | without links |" in runs_table(runs)
    assert len(fits_table(list(rows.values())).splitlines()) == 2 + 3


@pytest.mark.pages
def test_the_page_has_what_fit_deploys_and_every_run_of_it() -> None:
    record = json.loads((PHOTOS / "fit.json").read_text())
    runs = [json.loads(line) for line in (PHOTOS / "fit_runs.jsonl").read_text().splitlines()]
    page = (ROOT / "docs" / "photos.md").read_text()
    rows = summarize_fits(runs)
    assert json.loads(json.dumps(rows)) == record["rows"]
    assert fits_table(rows) in page
    assert runs_table(runs) in page
    assert {len(row["runs"]) for row in rows} == {5}
