"""Averaging over the place: the written-out sum, and nothing but that."""

from __future__ import annotations

import numpy as np
import pytest

from cmlr_edge.model.explanation import LINKS, OWN_EVIDENCE
from cmlr_edge.place.histogram import PlaceHistogram
from cmlr_edge.place.prior import average_over, averaged_logits
from cmlr_edge.why import Reasons
from tests.placed_engine import BIAS, TRAINING, meaning

LABELS = ("red", "green", "blue")


def reasons(own: list[float]) -> Reasons:
    outputs = {OWN_EVIDENCE: np.array(own, np.float32), "surroundings": np.zeros(3, np.float32)}
    outputs["context"] = np.full(3, 1 / 3, np.float32)
    scores = np.full(3, 0.5, np.float32)
    return Reasons(LABELS, scores, outputs, meaning(), (0.5, 0.5, 0.5))


def test_scores_are_the_sum_over_surroundings_and_the_amounts_add_up() -> None:
    prior = np.array([0.7, 0.2, 0.1])
    found = average_over(reasons([4.0, 5.0, 1.0]), prior)
    expected = np.zeros(3)
    for share, context in zip(prior, TRAINING.contexts, strict=True):
        said = np.array(context) @ np.array(TRAINING.weight) + TRAINING.bias
        expected += share / (1 + np.exp(-(np.array([4.0, 5.0, 1.0]) + BIAS + said)))
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)
    for label in LABELS:
        logit = np.log(found[label].score / (1 - found[label].score))
        assert found[label].logit == pytest.approx(logit, abs=1e-5)
        assert not found[label].because_of_surroundings
    assert found.other_scores is not None  # the picture's own context is the other one now
    np.testing.assert_array_equal(found.other_scores, np.full(3, 0.5, np.float32))


def test_scores_near_1_and_0_stay_apart() -> None:
    logits = averaged_logits(np.array([60.0, -60.0, 500.0]), TRAINING, np.array([0.4, 0.3, 0.3]))
    assert logits[0] > 55
    assert logits[1] < -55
    assert np.isfinite(logits).all()


def test_links_count_and_a_taught_label_keeps_its_score() -> None:
    plain = reasons([4.0, 5.0, 1.0])
    outputs = {**plain.outputs, LINKS: np.zeros((3, 3), np.float32)}
    outputs[LINKS][0, 1] = 2.0
    linked = Reasons(
        (*LABELS, "taught"), np.append(plain.scores, np.float32(0.77)), outputs, plain.meaning, (0.5,) * 4
    )  # fmt: skip
    prior = np.array([0.4, 0.3, 0.3])
    found = average_over(linked, prior)
    np.testing.assert_allclose(
        found.scores[:3], average_over(reasons([6.0, 5.0, 1.0]), prior).scores, atol=1e-6
    )
    assert found.scores[3] == np.float32(0.77)


def test_each_tile_is_averaged_and_the_best_counts() -> None:
    prior, looks = np.array([0.4, 0.3, 0.3]), [reasons([1.0, 1.0, 1.0]), reasons([6.0, 0.0, 0.0])]
    found = average_over(Reasons.together(looks), prior)
    each = [average_over(look, prior).scores for look in looks]
    np.testing.assert_array_equal(found.scores, np.max(each, axis=0))


def test_the_prior_is_trainings_at_first_and_the_places_in_the_end() -> None:
    histogram = PlaceHistogram(TRAINING)
    np.testing.assert_allclose(histogram.prior, TRAINING.prior)
    for _ in range(600):
        for _ in range(50):  # frames of one block count once
            histogram.add(np.array([0.1, 0.1, 0.8], np.float32))
        histogram.end_block()
    assert histogram.prior[2] > 0.85
    assert len(histogram.blocks) == 144
    assert histogram.num_blocks == 600
    one = PlaceHistogram(TRAINING)
    one.add(np.array([0.1, 0.1, 0.8], np.float32))
    one.end_block()
    assert one.prior[2] < 0.35
