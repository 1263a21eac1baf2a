"""Labels that nobody looked for teach nothing, and count in no metric and no threshold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cmlr_edge.model.spec import PreprocessSpec
from cmlr_edge.model.thresholds import fit_thresholds
from tests.tiny_training import tiny_config, write_dataset
from train.data import read_dataset
from train.data.transforms import ImageTensors
from train.fitting.batches import load_parts
from train.fitting.learner import Learner
from train.fitting.loop import fit
from train.judging.inference import score_images
from train.judging.metrics import evaluate_scores
from train.network.model import CausalRecognizer

SPEC = PreprocessSpec((64, 64), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CONFIG = tiny_config("model.intervention=none", "epochs=1", "augmentation=none")


def loss(data: Any, targets: torch.Tensor, known: torch.Tensor | None, unite: float) -> float:
    """Of one step from the same start."""
    torch.manual_seed(0)
    config = tiny_config("model.intervention=none", f"model.united_share={unite}")
    model = CausalRecognizer(config.model, len(data.classes), pretrained=False)
    learner = Learner(model, config, SPEC, precision=torch.float32, num_steps=4)
    learner.train()
    batch = [(i, i) for i in range(8)]
    images = ImageTensors(data, SPEC)
    [parts] = load_parts([batch], images, targets, None, config, known=known)
    torch.manual_seed(1)
    return learner.step(parts)


def test_no_loss_is_taken_on_what_nobody_looked_for(tmp_path: Path) -> None:
    data = read_dataset(write_dataset(tmp_path)).split("train")
    targets = torch.from_numpy(data.targets())
    known = torch.from_numpy(np.random.default_rng(0).random(targets.shape) < 0.6)
    absent = targets * 0
    # Every decision counts once, with those that are known or with the others.
    parts = [loss(data, absent, mask, 0) for mask in (known, ~known)]
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(loss(data, absent, None, 0), rel=1e-5)
    assert loss(data, absent, torch.zeros_like(known), 0) == 0
    # Of two pictures united, one may show what nobody looked for in the other.
    assert 0 < loss(data, targets * known, known, 1) < loss(data, targets * known, None, 1)


def test_scores_and_thresholds_are_those_without_what_nobody_looked_for() -> None:
    rng = np.random.default_rng(1)
    targets = (rng.random((200, 3)) < 0.3).astype(np.float32)
    scores = np.clip(targets * 0.3 + rng.random((200, 3)) * 0.6 + 0.05, 0, 1).astype(np.float32)
    unknown = rng.random(200) < 0.4
    targets[unknown, 0] = 0
    judged = scores.copy()
    judged[unknown, 0] = 0  # as `LabeledImages.judged` has it
    fitted = fit_thresholds(judged[:, :1], targets[:, :1], shrinkage=0)
    alone = fit_thresholds(scores[~unknown, :1], targets[~unknown, :1], shrinkage=0)
    assert np.allclose(fitted, alone, atol=1e-3)
    labels, thresholds = ("a",), np.array([0.5], np.float32)
    found = evaluate_scores(judged[:, :1], targets[:, :1], labels, thresholds)
    wanted = evaluate_scores(scores[~unknown, :1], targets[~unknown, :1], labels, thresholds)
    assert found.ap["a"] == pytest.approx(wanted.ap["a"])
    assert (found.cp, found.cr, found.of1) == pytest.approx((wanted.cp, wanted.cr, wanted.of1))


@pytest.mark.slow
def test_a_run_goes_through_with_unknown_labels(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "data")
    record = json.loads((root / "labels.json").read_text())
    for number, entry in enumerate(record["images"]):
        if number % 3 == 0:
            entry["unknown"] = sorted({"red", "green", "blue"} - set(entry["labels"]))
    (root / "labels.json").write_text(json.dumps(record))
    data = read_dataset(root)
    fit(data, tmp_path / "run", CONFIG)
    val = data.split("val")
    model = CausalRecognizer(CONFIG.model, len(data.classes), pretrained=False)
    scores = score_images(model, ImageTensors(val, SPEC), SPEC).deployed
    known = val.known()
    assert known is not None
    assert (scores[~known] == 0).all()
    assert (scores[known] > 0).all()
