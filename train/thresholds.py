"""Decision thresholds from validation scores: per label for F1, rare labels pulled to the global."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_f1_threshold(scores: NDArray[np.float32], targets: NDArray[np.float32]) -> float:
    """Threshold with the highest F1, half way to the next lower score so that it generalises.

    Args:
        scores: (N,), probabilities.
        targets: (N,), 0 or 1, with at least one positive.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].astype(np.float64)
    hits = np.cumsum(targets[order])
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + targets.sum())
    # Between equal scores no threshold can cut.
    cuttable = np.append(ranked[:-1] > ranked[1:], True)
    best = int(np.argmax(np.where(cuttable, f1, -1.0)))
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)


def fit_thresholds(
    scores: NDArray[np.float32], targets: NDArray[np.float32], *, shrinkage: float
) -> NDArray[np.float32]:
    """Fit one threshold per label.

    With n positives a label's own best threshold weighs n / (n + shrinkage), the rest goes to the
    threshold that is best for all labels together; a label without positives takes that one. The
    mixing is done on logits, where scores of one label are spread more evenly.

    Args:
        scores: (N, L), probabilities.
        targets: (N, L), 0 or 1.
        shrinkage: Pseudo-count of positives, >= 0.

    Returns:
        (L,), in [0, 1].
    """
    positives = targets.sum(axis=0)
    shared = best_f1_threshold(scores.ravel(), targets.ravel()) if positives.any() else 0.5
    logits = np.full(targets.shape[1], _logit(shared))
    for label in np.flatnonzero(positives):
        own = _logit(best_f1_threshold(scores[:, label], targets[:, label]))
        weight = positives[label] / (positives[label] + shrinkage)
        logits[label] = weight * own + (1 - weight) * _logit(shared)
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def _logit(probability: float) -> float:
    clipped = min(max(probability, 1e-6), 1 - 1e-6)
    return float(np.log(clipped / (1 - clipped)))
