from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from train.metrics import evaluate_scores, in_top3
from train.thresholds import best_f1_threshold, fit_thresholds

RNG = np.random.default_rng(0)
TARGETS = (RNG.random((60, 5)) < [0.5, 0.3, 0.2, 0.1, 0.0]).astype(np.float32)
SCORES = (0.5 * TARGETS + RNG.random((60, 5)) * 0.7).clip(0, 1).astype(np.float32)
LABELS = ("a", "b", "c", "d", "e")


def test_metrics_equal_scikit_learn() -> None:
    thresholds = np.array([0.5, 0.4, 0.6, 0.5, 0.5], np.float32)
    metrics = evaluate_scores(SCORES, TARGETS, LABELS, thresholds)
    there, said = TARGETS[:, :4], (thresholds <= SCORES)[:, :4]  # the last label has no positive
    assert metrics.num_labels_scored == 4
    assert metrics.ap["e"] is None
    assert metrics.mean_ap == pytest.approx(
        average_precision_score(there, SCORES[:, :4], average="macro")
    )
    assert metrics.cp == pytest.approx(precision_score(there, said, average="macro"))
    assert metrics.cr == pytest.approx(recall_score(there, said, average="macro"))
    assert metrics.of1 == pytest.approx(f1_score(there, said, average="micro"))
    assert metrics.cf1 == pytest.approx(2 / (1 / metrics.cp + 1 / metrics.cr))


def test_top3_decisions_equal_scikit_learn_on_the_three_highest_scores() -> None:
    metrics = evaluate_scores(SCORES, TARGETS, LABELS, np.full(5, 0.5, np.float32)).top3
    chosen = np.sort(SCORES, axis=1)[:, -3:-2] <= SCORES
    assert (chosen.sum(axis=1) == 3).all(), "two scores are equal: take another seed"
    there, said = TARGETS[:, :4], chosen[:, :4]
    assert metrics.cp == pytest.approx(precision_score(there, said, average="macro"))
    assert metrics.cr == pytest.approx(recall_score(there, said, average="macro"))
    assert metrics.of1 == pytest.approx(f1_score(there, said, average="micro"))


def test_top3_has_three_labels_an_image_whatever_the_ties() -> None:
    scores = np.zeros((2, 5), np.float32)
    scores[1, [4, 2]] = 0.5
    expected = [[True, True, True, False, False], [True, False, True, False, True]]
    assert in_top3(scores).tolist() == expected
    assert in_top3(scores[:, :2]).all()


def test_labels_with_too_few_positives_leave_every_average() -> None:
    rare = int(TARGETS[:, 3].sum())
    metrics = evaluate_scores(
        SCORES, TARGETS, LABELS, np.full(5, 0.5, np.float32), min_positives=rare + 1
    )
    assert metrics.num_labels_scored == 3
    assert metrics.ap["d"] is None


def test_predicting_nothing_is_zero_and_not_an_error() -> None:
    metrics = evaluate_scores(SCORES, TARGETS, LABELS, np.full(5, 1.1, np.float32))
    assert (metrics.cf1, metrics.of1) == (0, 0)


def test_best_threshold_reaches_the_best_f1_of_all_thresholds() -> None:
    for label in range(4):
        scores, targets = SCORES[:, label], TARGETS[:, label]
        brute = max(f1_score(targets, scores >= t) for t in scores)
        found = f1_score(targets, scores >= best_f1_threshold(scores, targets))
        assert found == pytest.approx(brute)


def test_equal_scores_are_never_separated() -> None:
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.1], np.float32)
    targets = np.array([1, 1, 0, 0, 0], np.float32)
    assert 0.5 < best_f1_threshold(scores, targets) <= 0.9


def test_shrinkage_pulls_rare_labels_to_the_common_threshold() -> None:
    own = fit_thresholds(SCORES, TARGETS, shrinkage=0.0)
    common = best_f1_threshold(SCORES.ravel(), TARGETS.ravel())
    shrunk = fit_thresholds(SCORES, TARGETS, shrinkage=1e9)
    np.testing.assert_allclose(shrunk, common, atol=1e-4)
    assert own[0] == pytest.approx(best_f1_threshold(SCORES[:, 0], TARGETS[:, 0]), abs=1e-4)
    between = fit_thresholds(SCORES, TARGETS, shrinkage=5.0)
    for label in range(4):
        low, high = sorted((own[label], common))
        assert low - 1e-5 <= between[label] <= high + 1e-5
    assert own[4] == pytest.approx(common, abs=1e-5)


def test_thresholds_without_any_positive_are_one_half() -> None:
    assert fit_thresholds(SCORES, np.zeros_like(TARGETS), shrinkage=5.0) == pytest.approx(0.5)
