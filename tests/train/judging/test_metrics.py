from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest  # type: ignore[import-untyped]
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from cmlr_edge.errors import DataError
from cmlr_edge.model.thresholds import (
    ThresholdRule,
    best_threshold,
    expect,
    fit_thresholds,
    reaches,
    written,
)
from train.cli.evaluate import _read_out_table
from train.judging.evaluate import _score_read_out
from train.judging.metrics import average_precisions, evaluate_scores, in_top3

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


def test_the_precision_of_thousands_of_labels_is_known_at_once() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((16, 2000)) < 0.3).astype(np.float32)
    scores = rng.random(targets.shape).round(1).astype(np.float32)
    started = time.process_time()
    found = average_precisions(scores, targets)
    assert time.process_time() - started < 1.5  # scikit-learn looks at each for milliseconds
    for label in (0, 777, 1999):
        assert found[label] == pytest.approx(
            average_precision_score(targets[:, label], scores[:, label])
        )


def test_top3_decisions_equal_scikit_learn_on_the_three_highest_scores() -> None:
    metrics = evaluate_scores(SCORES, TARGETS, LABELS, np.full(5, 0.5, np.float32)).top3
    chosen = np.sort(SCORES, axis=1)[:, -3:-2] <= SCORES
    assert (chosen.sum(axis=1) == 3).all(), "two scores are equal: take another seed"
    there, said = TARGETS[:, :4], chosen[:, :4]
    assert metrics.cp == pytest.approx(precision_score(there, said, average="macro"))
    assert metrics.cr == pytest.approx(recall_score(there, said, average="macro"))
    assert metrics.of1 == pytest.approx(f1_score(there, said, average="micro"))


def test_top3_has_three_labels_an_image_whatever_the_ties() -> None:
    scores = np.full((2, 5), 0.1, np.float32)
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


F1 = ThresholdRule()


def test_best_threshold_reaches_the_best_f1_of_all_thresholds() -> None:
    for label in range(4):
        scores, targets = SCORES[:, label], TARGETS[:, label]
        brute = max(f1_score(targets, scores >= t) for t in scores)
        found = f1_score(targets, scores >= best_threshold(scores, targets, F1))
        assert found == pytest.approx(brute)


def test_equal_scores_are_never_separated() -> None:
    scores = np.array([0.9, 0.5, 0.5, 0.5, 0.1], np.float32)
    targets = np.array([1, 1, 0, 0, 0], np.float32)
    assert 0.5 < best_threshold(scores, targets, F1) <= 0.9


def test_shrinkage_never_silences_a_label_that_its_own_threshold_names() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((500, 2)) < [0.5, 0.1]).astype(np.float32)
    # The common label scores high, the rare one ranks perfectly and scores low.
    scores = (targets * [0.5, 0.005] + rng.random((500, 2)) * [0.4, 0.003]).astype(np.float32)
    scores[:, 1] += 0.04
    own = fit_thresholds(scores, targets, shrinkage=0.0)
    shrunk = fit_thresholds(scores, targets, shrinkage=5.0)
    assert shrunk[1] == pytest.approx(own[1])
    assert ((scores[:, 1] >= shrunk[1]) == (targets[:, 1] > 0)).all()
    silent = fit_thresholds(
        scores[:, ::-1], 1 - targets[:, ::-1], shrinkage=5.0, rule=ThresholdRule("precision", 1.0)
    )
    assert not (scores[:, 1] >= silent[0]).any()


def test_shrinkage_pulls_rare_labels_to_the_common_threshold() -> None:
    own = fit_thresholds(SCORES, TARGETS, shrinkage=0.0)
    common = best_threshold(SCORES.ravel(), TARGETS.ravel(), F1)
    shrunk = fit_thresholds(SCORES, TARGETS, shrinkage=1e9)
    np.testing.assert_allclose(shrunk, common, atol=1e-4)
    assert own[0] == pytest.approx(best_threshold(SCORES[:, 0], TARGETS[:, 0], F1), abs=1e-4)
    between = fit_thresholds(SCORES, TARGETS, shrinkage=5.0)
    for label in range(4):
        low, high = sorted((own[label], common))
        assert low - 1e-5 <= between[label] <= high + 1e-5
    assert own[4] == pytest.approx(common, abs=1e-5)


@pytest.mark.parametrize("rule", ["f1", "precision=0.8"])
def test_one_positive_never_pulls_a_threshold_far_below_the_shared_one(rule: str) -> None:
    rng = np.random.default_rng(0)
    targets = np.zeros((80, 3), np.float32)
    targets[:, :2] = rng.random((80, 2)) < 0.5
    targets[3, 2] = 1
    scores = (0.5 * targets + 0.4 * rng.random((80, 3))).astype(np.float32)
    scores[:, 2] *= 0.001  # a label that ranks perfectly, with scores near 0
    scores[3, 2] = 0.004
    parsed = ThresholdRule.parse(rule)
    shared = best_threshold(scores.ravel(), targets.ravel(), parsed)
    found = fit_thresholds(scores, targets, shrinkage=5.0, rule=parsed)
    assert found[2] > 0.8 * shared
    # Asked for by hand, a label is still held against its own pictures alone.
    assert fit_thresholds(scores, targets, shrinkage=0.0, rule=parsed)[2] < 0.01


@pytest.mark.parametrize(("hits", "trials"), [(1, 1), (3, 3), (17, 20), (0, 4)])
def test_a_precision_stands_beside_its_lower_bound(hits: int, trials: int) -> None:
    targets = np.zeros((30, 1), np.float32)
    targets[:hits] = 1
    scores = np.full((30, 1), 0.1, np.float32)
    scores[:trials] = 0.9
    (found,) = expect(scores, targets, np.array([0.5], np.float32))
    bound = binomtest(hits, trials).proportion_ci(0.95, method="wilson").low
    assert found.precision_at_least == pytest.approx(bound, abs=1e-3)
    assert found.precision == pytest.approx(hits / trials)
    assert not expect(scores, targets, np.array([0.95], np.float32))[0].precision_at_least


def test_thresholds_without_any_positive_are_one_half() -> None:
    assert fit_thresholds(SCORES, np.zeros_like(TARGETS), shrinkage=5.0) == pytest.approx(0.5)


def test_a_precision_floor_gives_the_highest_recall_that_keeps_it() -> None:
    for label in range(4):
        scores, targets = SCORES[:, label], TARGETS[:, label]
        for floor in (0.5, 0.8, 1.0):
            named = scores >= best_threshold(scores, targets, ThresholdRule("precision", floor))
            recalls = [0.0] + [
                targets[scores >= t].sum() / targets.sum()
                for t in scores
                if targets[scores >= t].mean() >= floor
            ]
            assert not named.any() or targets[named].mean() >= floor
            assert targets[named].sum() / targets.sum() == pytest.approx(max(recalls))


def test_a_label_that_cannot_be_precise_is_never_named() -> None:
    scores = np.array([0.9, 0.8, 0.1], np.float32)
    targets = np.array([0, 0, 1], np.float32)
    assert best_threshold(scores, targets, ThresholdRule("precision", 0.9)) > 0.9


def test_a_label_that_cannot_be_precise_is_not_named_for_the_sake_of_the_others() -> None:
    targets = np.zeros((80, 2), np.float32)
    targets[:40, 0] = 1
    targets[:3, 1] = 1
    scores = 0.1 + 0.3 * targets  # the first label is told apart far below what the other one says
    scores[:, 1] = 0.05
    scores[:3, 1], scores[70, 1] = 0.8, 0.9
    rule = ThresholdRule("precision", 0.9)
    assert best_threshold(scores[:, 1], targets[:, 1], rule) > 0.9
    found = fit_thresholds(scores, targets, shrinkage=5.0, rule=rule)
    assert [item.recall for item in expect(scores, targets, found)] == [1, 0]
    assert found[1] == 1  # nor at a score that no picture had


@pytest.mark.parametrize("rule", ["cost=0.3", "cost=3", "precision=0.8", "f1"])
def test_scores_of_one_are_named_together_or_not_at_all(rule: str) -> None:
    """As a softmax that is sure gives them."""
    targets = np.array([1, 0, 0, 0, 0, 1, 1, 0], np.float32)
    scores = np.array([1, 1, 1, 1, 0.6, 0.6, 0.6, 0.2], np.float32)
    parsed = ThresholdRule.parse(rule)

    def merit(named: NDArray[np.bool_]) -> float:
        hits = np.array([float((named & (targets > 0)).sum())])
        return float(parsed.merit(hits, np.array([named.sum()]), 3.0)[0])

    best = max(merit(scores >= value) for value in (0, 0.5, 0.9, 1.1))
    chosen = np.float32(best_threshold(scores, targets, parsed))
    assert merit(reaches(scores, chosen)) == best


@pytest.mark.parametrize("sure", [1, np.nextafter(np.float32(1), np.float32(0)), 0.9999985])
def test_a_label_that_is_wrong_where_it_is_sure_is_switched_off(sure: float) -> None:
    scores = np.full((6, 1), sure, np.float32)
    targets = np.zeros((6, 1), np.float32)
    targets[0] = 1
    rule = ThresholdRule("precision", 0.9)
    found = fit_thresholds(scores, targets, shrinkage=0, rule=rule)
    assert not reaches(scores, np.array(written(found), np.float32)).any()


def test_scores_of_one_that_are_right_are_still_named_where_all_others_are_nearly_one() -> None:
    scores = np.full((6, 1), 0.9999995, np.float32)
    targets = np.zeros((6, 1), np.float32)
    targets[:2] = scores[:2] = 1
    rule = ThresholdRule("precision", 0.9)
    found = np.array(written(fit_thresholds(scores, targets, shrinkage=0, rule=rule)), np.float32)
    assert (reaches(scores, found) == (targets > 0)).all()


def test_a_threshold_near_zero_is_not_written_as_zero_which_would_say_always() -> None:
    thresholds = np.array([3e-7, 0.12345678, 0.5], np.float32)
    assert written(thresholds) == (3e-7, 0.123457, 0.5)


@pytest.mark.parametrize("cost", [0.2, 1.0, 5.0])
def test_a_cost_ratio_gives_the_cheapest_decisions(cost: float) -> None:
    def price(named: NDArray[np.bool_], targets: NDArray[np.float32]) -> float:
        return float((named & (targets == 0)).sum() + cost * (~named & (targets > 0)).sum())

    for label in range(4):
        scores, targets = SCORES[:, label], TARGETS[:, label]
        cheapest = min(price(scores >= t, targets) for t in [*scores, 1.1])
        found = scores >= best_threshold(scores, targets, ThresholdRule("cost", cost))
        assert price(found, targets) == pytest.approx(cheapest)


def test_expected_precision_and_recall_are_scikit_learns() -> None:
    thresholds = np.full(5, 0.5, np.float32)
    for label, found in enumerate(expect(SCORES, TARGETS, thresholds)):
        named, targets = SCORES[:, label] >= 0.5, TARGETS[:, label]
        if found.precision is not None:
            assert found.precision == pytest.approx(precision_score(targets, named))
        if found.recall is not None:
            assert found.recall == pytest.approx(recall_score(targets, named))


@pytest.mark.parametrize("text", ["f2", "precision", "precision=1.5", "cost=-1", "cost=x", "f1=3"])
def test_a_rule_that_is_none_is_named(text: str) -> None:
    with pytest.raises(DataError, match="expected f1, precision=P"):
        ThresholdRule.parse(text)
    for rule in ("f1", "precision=0.9", "cost=5"):
        assert str(ThresholdRule.parse(rule)) == rule


def test_a_precision_that_is_just_reached_counts() -> None:
    # 0.55 * 100 is 55.00000000000001.
    scores = np.linspace(0.9, 0.1, 100, dtype=np.float32)
    targets = np.zeros(100, np.float32)
    targets[0], targets[-54:] = 1, 1
    threshold = best_threshold(scores, targets, ThresholdRule("precision", 0.55))
    assert threshold < scores[-1]


@pytest.mark.parametrize(("fewest", "shows"), [(1, False), (60, True)])
def test_what_no_label_could_be_measured_on_is_not_shown_as_zero(fewest: int, shows: bool) -> None:
    thresholds = np.full(5, 0.5, np.float32)
    scored = _score_read_out(SCORES, TARGETS, LABELS, thresholds, None, None, min_positives=fewest)
    report = {"read_outs": {"deployed": scored}, "num_skipped": 0, "num_images": 60, "split": "val"}
    shown = _read_out_table({**report, "min_positives": fewest})
    assert [[*column.cells] == ["-"] for column in shown.columns[1:]] == [shows] * 3
