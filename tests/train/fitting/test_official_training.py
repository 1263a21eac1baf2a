"""Every published layout goes through the command line: fit, evaluate, explain."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sklearn.metrics import average_precision_score

from cmlr_edge.capture.images import read_image
from tests.tiny_training import TINY
from tests.train.data import official_trees
from train.cli.app import app
from train.data import read_dataset
from train.data.common_labels import COCO_TO_NUS_WIDE
from train.data.transforms import ImageTensors
from train.judging.inference import score_images
from train.network.checkpoint import load_model

pytestmark = pytest.mark.slow

SETTINGS = [part for setting in [*TINY, "epochs=1"] for part in ("--set", setting)]


def call(*arguments: object) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


def fit(data: Path, run: Path) -> None:
    # The settings come after the options and win.
    call("fit", "--data", data, "--out", run, "--recipe", "none", "--image-size", 64, *SETTINGS)


@pytest.mark.parametrize(
    ("write", "split", "num_labels", "cause"),
    [
        (official_trees.write_coco, "val", 80, None),
        (official_trees.write_coco_stuff, "test", 171, "person"),
        (official_trees.write_deepfashion, "test", 250, "skinny"),
        (official_trees.write_nus_wide, "test", 81, "person"),
    ],
    ids=["coco", "coco-stuff", "deepfashion", "nus-wide"],
)
def test_a_published_layout_is_trained_evaluated_and_explained(
    tmp_path: Path, write: Callable[[Path], Path], split: str, num_labels: int, cause: str | None
) -> None:
    data, run, out = write(tmp_path / "data"), tmp_path / "run", tmp_path / "report.json"
    fit(data, run)
    call("evaluate", "--checkpoint", run, "--data", data, "--split", split, "--json", out)
    metrics = json.loads(out.read_text())["read_outs"]["deployed"]
    assert len(metrics["ap"]) == num_labels
    if cause is not None:
        call("explain", "--checkpoint", run, "--data", data, "--split", split,
             "--cause", cause, "--out", tmp_path / "why")  # fmt: skip
        record = json.loads((tmp_path / "why" / "explanation.json").read_text())
        assert len(record["p"]) == len(record["p_change_do"]) == num_labels
        assert record["points"]["confounders"] == 4
        for name in ("do", "links", "heat_maps", "features", "confounders"):
            assert read_image(tmp_path / "why" / f"{name}.png").std() > 5
    low, high = metrics["mean_ap_interval"]
    assert 0 < low <= metrics["mean_ap"] <= high <= 1
    benchmark = read_dataset(data).context_bias
    assert ("context_bias" in metrics) is (benchmark is not None)
    if benchmark is not None:
        assert metrics["context_bias"]["measure"] == benchmark.measure
        counts = read_dataset(data).split(split).targets().sum(axis=0)
        for (b, _), pair in zip(benchmark.pairs, metrics["context_bias"]["pairs"], strict=True):
            assert pair["num_exclusive"] + pair["num_co_occur"] == counts[b]


def test_a_coco_run_is_scored_on_nus_wide_by_the_common_labels_alone(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "report.json"
    fit(official_trees.write_coco(tmp_path / "coco"), run)
    nus = official_trees.write_nus_wide(tmp_path / "nus")
    call("evaluate", "--checkpoint", run, "--data", nus, "--split", "test", "--json", out)
    report = json.loads(out.read_text())
    deployed = report["read_outs"]["deployed"]
    assert list(deployed["ap"]) == list(COCO_TO_NUS_WIDE)
    model, spec = load_model(run)
    data = read_dataset(nus).split("test")
    scores = score_images(model, ImageTensors(data, spec.preprocess), spec.preprocess).deployed
    truth = data.targets()[:, data.classes.index("zebra")]
    expected = average_precision_score(truth, scores[:, spec.labels.index("zebra")])
    assert deployed["ap"]["zebra"] == pytest.approx(expected)
