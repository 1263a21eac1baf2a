from __future__ import annotations

import numpy as np
import pytest
import scipy.stats  # type: ignore[import-untyped]
from sklearn.metrics import average_precision_score

from train.data import ContextBias
from train.judging.bootstrap import (
    bootstrap_intervals,
    mean_ap_interval,
    mean_where_defined,
    rank_images,
    weighted_average_precision,
)
from train.judging.context_bias import score_context_bias

RNG = np.random.default_rng(3)
NUM_IMAGES, NUM_LABELS = 80, 6
TARGETS = (RNG.random((NUM_IMAGES, NUM_LABELS)) < 0.4).astype(np.float32)
# Rounded, so that many scores are equal.
SCORES = (0.3 * TARGETS + 0.7 * RNG.random(TARGETS.shape)).round(1).astype(np.float32)
LABELS = tuple("abcdef")


@pytest.mark.parametrize("seed", range(5))
def test_weighted_average_precision_equals_scikit_learn(seed: int) -> None:
    weights = np.random.default_rng(seed).integers(0, 4, NUM_IMAGES)
    for label in range(NUM_LABELS):
        ranking = rank_images(SCORES[:, label], TARGETS[:, label])
        expected = average_precision_score(
            TARGETS[:, label], SCORES[:, label], sample_weight=weights
        )
        assert weighted_average_precision(ranking, weights) == pytest.approx(expected)


def test_average_precision_without_a_positive_is_not_a_number() -> None:
    ranking = rank_images(SCORES[:, 0], np.zeros(NUM_IMAGES, np.float32))
    assert np.isnan(weighted_average_precision(ranking, np.ones(NUM_IMAGES, int)))
    nothing = rank_images(SCORES[:, 0], TARGETS[:, 0], np.zeros(NUM_IMAGES, bool))
    assert np.isnan(weighted_average_precision(nothing, np.ones(NUM_IMAGES, int)))


def test_exclusive_and_co_occur_on_a_hand_made_case() -> None:
    # Images: b with c, b with c, b alone, c alone, neither; b is scored by its company.
    targets = np.array([[1, 1], [1, 1], [1, 0], [0, 1], [0, 0]], np.float32)
    scores = np.array([[0.9, 0], [0.8, 0], [0.2, 0], [0.7, 0], [0.1, 0]], np.float32)
    bias = ContextBias(((0, 1),), (1,), "average precision")
    result = score_context_bias(scores, targets, ("b", "c"), bias, resamples=20)
    assert result.co_occur.value == 1  # 0.9 and 0.8 stand above 0.7 and 0.1
    assert result.exclusive.value == pytest.approx(1 / 2)  # 0.2 stands below 0.7
    assert result.pairs[0].num_exclusive == 1
    assert result.pairs[0].num_co_occur == 2
    assert result.all_labels == pytest.approx((11 / 12 + 3 / 5) / 2)
    assert result.non_biased == pytest.approx(3 / 5)


def test_pairs_equal_scikit_learn_on_their_subsets() -> None:
    bias = ContextBias(((0, 1), (2, 3), (4, 0)), (1, 3, 5), "average precision")
    result = score_context_bias(SCORES, TARGETS, LABELS, bias, resamples=20)
    for (b, c), pair in zip(bias.pairs, result.pairs, strict=True):
        has_b, has_c = TARGETS[:, b] == 1, TARGETS[:, c] == 1
        alone, together = ~(has_b & has_c), ~(has_b & ~has_c)
        for rows, found in ((alone, pair.exclusive), (together, pair.co_occur)):
            expected = average_precision_score(TARGETS[rows, b], SCORES[rows, b])
            assert found == pytest.approx(expected)
    assert result.exclusive.value == pytest.approx(np.mean([p.exclusive for p in result.pairs]))
    assert result.all_labels == pytest.approx(average_precision_score(TARGETS, SCORES))
    others = average_precision_score(TARGETS[:, [1, 3, 5]], SCORES[:, [1, 3, 5]])
    assert result.non_biased == pytest.approx(others)


def test_top3_recall_counts_the_images_whose_three_highest_scores_hold_the_label() -> None:
    scores = np.array(
        [
            [0.9, 0.8, 0.7, 0.6],  # label 3 is fourth
            [0.1, 0.2, 0.3, 0.4],
            [0.9, 0.1, 0.2, 0.3],
            [0.4, 0.3, 0.2, 0.1],
        ],
        np.float32,
    )
    targets = np.array([[1, 0, 0, 1], [0, 0, 0, 1], [1, 0, 0, 1], [0, 0, 0, 1]], np.float32)
    bias = ContextBias(((3, 0),), (), "top-3 recall")
    result = score_context_bias(scores, targets, tuple("abcd"), bias, resamples=20)
    assert result.co_occur.value == 1 / 2  # images 0 and 2
    assert result.exclusive.value == 1 / 2  # images 1 and 3
    assert result.all_labels == pytest.approx((1 + 1 / 2) / 2)  # labels a and d
    assert result.non_biased is None


def test_a_pair_without_images_of_its_own_is_left_out() -> None:
    targets = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 1]], np.float32)
    scores = RNG.random((3, 3)).astype(np.float32)
    bias = ContextBias(((0, 1),), (), "average precision")
    result = score_context_bias(scores, targets, tuple("abc"), bias, resamples=20)
    assert result.exclusive.value is None
    assert result.exclusive.low is None
    assert result.pairs[0].exclusive is None
    assert result.co_occur.value is not None


def test_intervals_equal_scipy() -> None:
    sample = RNG.normal(size=200)

    def mean(weights: np.ndarray) -> np.ndarray:
        return np.array([np.average(sample, weights=weights)])

    found = bootstrap_intervals(mean, len(sample), resamples=4000, level=0.9)[0]
    expected = scipy.stats.bootstrap(
        (sample,),
        np.mean,
        n_resamples=4000,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    # The bounds of two independent draws differ by their own sampling error.
    np.testing.assert_allclose(found, expected, atol=0.15 * (expected.high - expected.low))


def test_intervals_come_from_the_seed_and_hold_the_value() -> None:
    value = average_precision_score(TARGETS, SCORES)
    low, high = mean_ap_interval(SCORES, TARGETS, resamples=200, seed=1)
    assert low < value < high
    assert (low, high) == mean_ap_interval(SCORES, TARGETS, resamples=200, seed=1)
    assert (low, high) != mean_ap_interval(SCORES, TARGETS, resamples=200, seed=2)
    wide = mean_ap_interval(SCORES[:20], TARGETS[:20], resamples=200)
    assert wide[1] - wide[0] > high - low


def test_resamples_without_positives_are_left_out() -> None:
    targets = np.zeros((10, 1), np.float32)
    targets[0] = 1
    scores = np.linspace(1, 0, 10, dtype=np.float32)[:, None]
    assert mean_ap_interval(scores, targets, resamples=100) == (1.0, 1.0)
    assert np.isnan(mean_where_defined(np.array([np.nan])))
