"""Multi-label metrics: mAP, per-label AP, CP/CR/CF1 and OP/OR/OF1 at thresholds and top-3."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.model.thresholds import reaches
from train.judging.bootstrap import rank_images, weighted_average_precision

_TOP = 3


# Labels with fewer positives say nothing: `fit` and `evaluate` leave them out of averages.
MIN_POSITIVES = 3


@dataclass(frozen=True)
class DecisionMetrics:
    """Precision and recall of yes-or-no decisions, all in [0, 1]."""

    cp: float  # per-label precision, averaged over labels ("C")
    cr: float
    cf1: float  # harmonic mean of cp and cr
    op: float  # precision over all decisions together ("O")
    or_: float
    of1: float


@dataclass(frozen=True)
class MultiLabelMetrics:
    """All in [0, 1]. AP is None for a label with fewer positives than asked for."""

    mean_ap: float
    ap: dict[str, float | None]
    num_labels_scored: int  # those that `mean_ap` averages
    cp: float  # these six as in DecisionMetrics, at the thresholds
    cr: float
    cf1: float
    op: float
    or_: float
    of1: float
    top3: DecisionMetrics  # where the three highest scores of an image are its labels


def average_precisions(
    scores: NDArray[np.float32], targets: NDArray[np.float32], *, min_positives: int = 1
) -> NDArray[np.float64]:
    """Average precision of each label, NaN where it has too few positives.

    Args:
        scores: (N, L).
        targets: (N, L), 0 or 1.
        min_positives: Labels with fewer positives are not scored.

    Returns:
        (L,), by scikit-learn's definition (no interpolation).
    """
    result, once = np.full(targets.shape[1], np.nan), np.ones(len(targets), int)
    for label in np.flatnonzero(targets.sum(axis=0) >= max(1, min_positives)):
        ranking = rank_images(scores[:, label], targets[:, label])
        result[label] = weighted_average_precision(ranking, once)
    return result


def evaluate_scores(
    scores: NDArray[np.float32],
    targets: NDArray[np.float32],
    labels: tuple[str, ...],
    thresholds: NDArray[np.float32],
    *,
    min_positives: int = 1,
) -> MultiLabelMetrics:
    """Score predictions.

    The threshold metrics follow the field's convention (Wang et al. 2016): a label without
    predictions has precision 0, one without positives recall 0, and both count in the averages
    only where the label has enough positives.

    Args:
        scores: (N, L), probabilities.
        targets: (N, L), 0 or 1.
        labels: L names.
        thresholds: (L,); a label is predicted where its score reaches its threshold.
        min_positives: Labels with fewer positives are left out of every average.
    """
    ap = average_precisions(scores, targets, min_positives=min_positives)
    scored = np.flatnonzero(~np.isnan(ap))
    actual = targets[:, scored] > 0
    at_thresholds = decision_metrics(reaches(scores, thresholds)[:, scored], actual)
    return MultiLabelMetrics(
        mean_ap=float(np.nanmean(ap)) if scored.size else 0.0,
        ap={name: None if np.isnan(v) else float(v) for name, v in zip(labels, ap, strict=True)},
        num_labels_scored=int(scored.size),
        top3=decision_metrics(in_top3(scores)[:, scored], actual),
        **asdict(at_thresholds),
    )


def decision_metrics(predicted: NDArray[np.bool_], actual: NDArray[np.bool_]) -> DecisionMetrics:
    """Score decisions (N, L) against the truth (N, L); nothing divided by nothing is 0."""
    hits, said, there = (predicted & actual).sum(0), predicted.sum(0), actual.sum(0)
    cp = float(np.mean(_ratio(hits, said))) if hits.size else 0.0
    cr = float(np.mean(_ratio(hits, there))) if hits.size else 0.0
    op, or_ = float(_ratio(hits.sum(), said.sum())), float(_ratio(hits.sum(), there.sum()))
    return DecisionMetrics(
        cp=cp, cr=cr, cf1=_harmonic_mean(cp, cr), op=op, or_=or_, of1=_harmonic_mean(op, or_)
    )


def in_top3(scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(N, L): whether a label is among its image's three highest scores; ties go to the first.

    A score of 0 is none: `LabeledImages.judged` gives it to labels that nobody looked for.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :_TOP]
    chosen = np.zeros(scores.shape, bool)
    np.put_along_axis(chosen, best, values=True, axis=1)
    return chosen & (scores > 0)


def _ratio(part: NDArray[np.int_], whole: NDArray[np.int_]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) > 0)


def _harmonic_mean(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b > 0 else 0.0
