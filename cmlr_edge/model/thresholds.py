"""Decision thresholds from validation scores: per label by a rule, rare labels pulled to the global."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.errors import DataError

_SURE = float(np.nextafter(np.float32(1), np.float32(0)))  # as high as a threshold that is reached
_DROP = 0.5  # logits below the shared threshold that `shrinkage` positives of a label may buy
_Z = 1.96  # of a bound that holds in 39 of 40 cases


@dataclass(frozen=True)
class ThresholdRule:
    """What a threshold should be best for.

    f1: the highest F1. precision: the highest recall with at least `value` precision; a label that
    cannot reach it is never predicted. cost: the lowest cost where missing a label costs `value`
    times as much as naming it wrongly.
    """

    kind: Literal["f1", "precision", "cost"] = "f1"
    value: float = 0.0

    @classmethod
    def parse(cls, text: str) -> ThresholdRule:
        """Read "f1", "precision=0.9" or "cost=5".

        Raises:
            DataError: Something else.
        """
        kind, equals, number = text.partition("=")
        try:
            value = float(number) if equals else 0.0
        except ValueError:
            value = -1.0
        if kind == "f1" and not equals:
            return cls()
        if kind == "precision" and 0 < value <= 1:
            return cls("precision", value)
        if kind == "cost" and 0 < value < float("inf"):
            return cls("cost", value)
        raise DataError(
            f"threshold rule {text!r}: expected f1, precision=P with P in (0, 1], or cost=C, the "
            "cost of missing a label in units of naming it wrongly"
        )

    def __str__(self) -> str:
        """As `parse` reads it."""
        return self.kind if self.kind == "f1" else f"{self.kind}={self.value:g}"

    def merit(
        self, hits: NDArray[np.float64], named: NDArray[np.int_], positives: float
    ) -> NDArray[np.float64]:
        """How good it is to name the `named` highest scores, `hits` of them rightly."""
        if self.kind == "f1":
            f1: NDArray[np.float64] = 2 * hits / np.maximum(named + positives, 1)
            return f1
        if self.kind == "cost":
            return -(named - hits) - self.value * (positives - hits)
        # A quotient equals the share that was wished; 0.55 * 100 is above 55.
        precise = (named == 0) | (hits / np.maximum(named, 1) >= self.value)
        merit: NDArray[np.float64] = np.where(precise, hits, -1.0)
        return merit


@dataclass(frozen=True)
class LabelExpectation:
    """What a threshold does on the data it was fitted on; None where nothing can be said."""

    threshold: float
    precision: float | None
    precision_at_least: float | None  # Wilson's lower 95 % bound: 1.00 of one picture is 0.21
    recall: float | None
    positives: int
    named: int  # pictures, rightly or not


def reaches(scores: NDArray[np.float32], thresholds: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where a label is said: at or above its threshold. A threshold of 1 switches a label off.

    For a score may be exactly 1, and a label that is wrong then could not be silenced otherwise.
    """
    reached: NDArray[np.bool_] = (scores >= thresholds) & (thresholds < 1)
    return reached


def written(thresholds: NDArray[np.float32]) -> tuple[float, ...]:
    """As a spec has them: short, and neither 0 nor 1 by rounding, which say always and never."""
    return tuple(float(f"{x:.{9 if x > 0.999 else 6}g}") for x in thresholds.tolist())


def best_threshold(
    scores: NDArray[np.float32], targets: NDArray[np.float32], rule: ThresholdRule
) -> float:
    """Threshold that is best by a rule, half way to the next lower score so that it generalises.

    Args:
        scores: (N,), probabilities.
        targets: (N,), 0 or 1, with at least one positive.
        rule: What best means.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = np.concatenate([[1.0], scores[order].astype(np.float64), [0.0]])
    hits = np.concatenate([[0.0], np.cumsum(targets[order], dtype=np.float64)])
    named = np.arange(len(hits))
    # Between equal scores no threshold can cut; 1 names nothing, whatever the scores are.
    cuttable = np.append(True, np.append(ranked[1:-2] > ranked[2:-1], True))
    merit = np.where(cuttable, rule.merit(hits, named, float(targets.sum())), -np.inf)
    best = int(np.argmax(merit))
    return float((ranked[best] + ranked[best + 1]) / 2)


def fit_thresholds(
    scores: NDArray[np.float32],
    targets: NDArray[np.float32],
    *,
    shrinkage: float,
    rule: ThresholdRule | None = None,
) -> NDArray[np.float32]:
    """Fit one threshold per label.

    With n positives a label's own best threshold weighs n / (n + shrinkage), the rest goes to the
    threshold that is best for all labels together; a label without positives takes that one. The
    mixing is done on logits, where scores of one label are spread more evenly. Where the mixture
    lies above every score of a label that its own threshold names, the own one is taken: with scores
    far below those of common labels the label would otherwise never be named. Where a label reaches a
    wanted precision at no threshold, it gets 1, which switches it off: nothing says how often a higher
    score than all that were seen is wrong. Below the shared threshold a label gets by half a logit for every `shrinkage` positives it has, and no further: a
    single picture says that a low score can be right, and not how often it is wrong.

    Args:
        scores: (N, L), probabilities.
        targets: (N, L), 0 or 1.
        shrinkage: Pseudo-count of positives, >= 0.
        rule: F1 where not given.

    Returns:
        (L,), in [0, 1].
    """
    rule = rule or ThresholdRule()
    positives = targets.sum(axis=0)
    shared = best_threshold(scores.ravel(), targets.ravel(), rule) if positives.any() else 0.5
    logits = np.full(targets.shape[1], _logit(shared))
    off = np.full(targets.shape[1], shared == 1)
    for label in np.flatnonzero(positives):
        chosen = best_threshold(scores[:, label], targets[:, label], rule)
        top = float(scores[:, label].max())
        own, highest = _logit(chosen), _logit(top)
        # At no threshold is it precise enough.
        off[label] = rule.kind == "precision" and (chosen > top or chosen == 1)
        weight = positives[label] / (positives[label] + shrinkage)
        mixed = weight * own + (1 - weight) * _logit(shared)
        wanted = own if own <= highest < mixed else mixed
        deepest = _DROP * positives[label] / shrinkage if shrinkage else np.inf
        logits[label] = max(wanted, _logit(shared) - deepest)
    thresholds: NDArray[np.float32] = (1 / (1 + np.exp(-logits))).astype(np.float32)
    thresholds = np.minimum(thresholds, np.float32(_SURE))
    thresholds[off] = 1
    return thresholds


def expect(
    scores: NDArray[np.float32], targets: NDArray[np.float32], thresholds: NDArray[np.float32]
) -> list[LabelExpectation]:
    """Precision and recall of every label at its threshold, on this data."""
    named = reaches(scores, thresholds)
    hits = (named & (targets > 0)).sum(axis=0)
    return [
        LabelExpectation(
            threshold=float(threshold),
            precision=float(hit / count) if count else None,
            precision_at_least=lower_bound(int(hit), int(count)) if count else None,
            recall=float(hit / there) if there else None,
            positives=int(there),
            named=int(count),
        )
        for threshold, hit, count, there in zip(
            thresholds, hits, named.sum(axis=0), targets.sum(axis=0), strict=True
        )
    ]


def lower_bound(hits: int, trials: int) -> float:
    """Wilson's lower 95 % bound of a share, `hits` of `trials` > 0."""
    share, spread = hits / trials, _Z**2 / trials
    root = np.sqrt(share * (1 - share) * spread + spread**2 / 4)
    return float(max(0.0, (share + spread / 2 - root) / (1 + spread)))


def _logit(probability: float) -> float:
    clipped = min(max(probability, 1e-6), 1 - 1e-9)  # surer than float32 tells from 1
    return float(np.log(clipped / (1 - clipped)))
