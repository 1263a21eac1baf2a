"""Labels that nobody looked for teach nothing, and count in no metric and no threshold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from cmlr_edge.model.spec import PreprocessSpec
from cmlr_edge.model.thresholds import fit_thresholds
from tests.tiny_training import tiny_config, write_dataset
from train.config import ConfounderConfig
from train.confounders.clustering import fit_context_term
from train.data import read_dataset
from train.data.base import ContextBias
from train.data.transforms import ImageTensors
from train.explaining.link_effects import cooccurrence
from train.fitting.batches import load_parts
from train.fitting.learner import Learner
from train.fitting.loop import fit
from train.judging.biased_pairs import find_biased_pairs
from train.judging.context_bias import score_context_bias
from train.judging.inference import score_images
from train.judging.metrics import evaluate_scores, in_top3
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


RNG = np.random.default_rng(2)
THERE = (RNG.random((120, 4)) < 0.5).astype(np.float32)
SCORES = (0.1 + 0.8 * RNG.random((120, 4))).astype(np.float32)
UNLOOKED = np.zeros((120, 4), bool)
UNLOOKED[:, 1] = (RNG.random(120) < 0.5) & (THERE[:, 1] == 0)


def test_what_nobody_looked_for_is_none_of_the_three_highest() -> None:
    scores = np.array([[0.9, 0, 0.4, 0], [0, 0, 0, 0]], np.float32)  # 0: as `judged` has it
    assert in_top3(scores).tolist() == [[True, False, True, False], [False] * 4]


def test_company_that_nobody_looked_for_is_not_away() -> None:
    bias = ContextBias(((0, 1),), (), "average precision")
    rows = ~UNLOOKED[:, 1] | (THERE[:, 0] == 0)
    found = score_context_bias(SCORES, THERE, tuple("abcd"), bias, known=~UNLOOKED, resamples=2)
    wanted = score_context_bias(SCORES[rows], THERE[rows], tuple("abcd"), bias, resamples=2)
    assert found.pairs == wanted.pairs
    assert found.pairs[0].num_exclusive < ((THERE[:, 0] > 0) & (THERE[:, 1] == 0)).sum()
    looked = ~UNLOOKED[:, 1]
    pairs = [
        find_biased_pairs(SCORES[kept][:, :2], THERE[kept][:, :2], ("a", "b"), known=known)
        for kept, known in ((np.ones(120, bool), ~UNLOOKED[:, :2]), (looked, None))
    ]
    (found_a,), (wanted_a,) = ([p for p in part if p.label == "a"] for part in pairs)
    assert found_a.num_apart == wanted_a.num_apart
    assert found_a.mean_apart == pytest.approx(wanted_a.mean_apart)
    together = cooccurrence(THERE, ~UNLOOKED)
    assert together[0, 1] == pytest.approx(cooccurrence(THERE[looked])[0, 1])


def test_context_explains_a_label_where_somebody_looked_for_it() -> None:
    contexts = torch.from_numpy(RNG.dirichlet(np.ones(3), 120)).float()
    looked = ~UNLOOKED[:, 1]
    config = ConfounderConfig(num_confounders=3, ridge=1.0)
    found, wanted = (
        fit_context_term(contexts, torch.from_numpy(THERE), config, 0, known)
        for known in (~UNLOOKED, None)
    )
    for column in (0, 2, 3):
        torch.testing.assert_close(found.weight[:, column], wanted.weight[:, column])
    scale = contexts.numpy().std(axis=0)
    model = LogisticRegression(C=1.0).fit((contexts.numpy() / scale)[looked], THERE[looked, 1])
    np.testing.assert_allclose(found.weight[:, 1], model.coef_[0] / scale, rtol=0.02, atol=1e-3)
    assert not np.allclose(found.weight[:, 1], wanted.weight[:, 1], rtol=0.1)
