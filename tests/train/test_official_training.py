"""Every published layout goes through the command line: fit, then evaluate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny_training import TINY
from tests.train import official_trees
from train.__main__ import app

SETTINGS = [part for setting in [*TINY, "epochs=1"] for part in ("--set", setting)]


def call(*arguments: object) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


def fit(data: Path, run: Path) -> None:
    # The settings come after the options and win.
    call("fit", "--data", data, "--out", run, "--image-size", 64, *SETTINGS)


@pytest.mark.parametrize(
    ("write", "split", "num_labels"),
    [
        (official_trees.write_coco, "val", 80),
        (official_trees.write_coco_stuff, "test", 171),
        (official_trees.write_deepfashion, "test", 250),
        (official_trees.write_nus_wide, "test", 81),
    ],
    ids=["coco", "coco-stuff", "deepfashion", "nus-wide"],
)
def test_a_published_layout_is_trained_and_evaluated_on(
    tmp_path: Path, write: Callable[[Path], Path], split: str, num_labels: int
) -> None:
    data, run, out = write(tmp_path / "data"), tmp_path / "run", tmp_path / "report.json"
    fit(data, run)
    call("evaluate", "--checkpoint", run, "--data", data, "--split", split, "--json", out)
    metrics = json.loads(out.read_text())["read_outs"]["deployed"]
    assert len(metrics["ap"]) == num_labels
    assert 0 < metrics["mean_ap"] <= 1
